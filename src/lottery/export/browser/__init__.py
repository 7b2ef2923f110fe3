"""LiteRT files in a real headless Chromium, through LiteRT.js and WebAssembly."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.errors import BrowserError
from lottery.export import latency
from lottery.export.browser import litertjs
from lottery.export.browser.server import serving
from lottery.export.interpreter import Interpreter

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_PAGE = Path(__file__).parent
_STARTING = 120_000  # ms until a page must have loaded LiteRT.js
_BESIDES = 300_000  # ms for loading files, warming up and the fewest rounds, on a slow machine
_MEASURE = """options => {
    window.result = window.measure(options);
    window.result.catch(() => {}).then(() => { window.settled = true; });
}"""


@dataclass(frozen=True)
class Trial:
    """What one file did in the page."""

    milliseconds: list[float]
    """Of each timed run, uploading its input and reading its output apart."""
    logits: NDArray[np.float32]
    """Outputs [1, classes] for the image."""


def check() -> None:
    """Start Chromium once, and fetch LiteRT.js if it is not there yet.

    Raises :class:`BrowserError` if Chromium, Playwright or npm is missing or fails.
    """
    litertjs.folder()
    with _started():
        pass


def run(
    files: Mapping[str, Path],
    image: NDArray[Any],
    *,
    threads: int = 1,
    seconds: float = 2.0,
) -> dict[str, Trial]:
    """Run LiteRT ``files`` in turn in one page, for about ``seconds`` after a warm-up.

    ``image`` [height, width, channels] is the input of all; their batch is 1. LiteRT.js takes its
    build with relaxed SIMD where the browser has it, and its threaded one for several ``threads``.
    Raises :class:`BrowserError` if Chromium, Playwright or npm is missing, or LiteRT.js fails or
    does not come to an end.
    """
    package = litertjs.folder()
    entries = [Interpreter(path) for path in files.values()]
    routes = {
        "/": _PAGE / "page.html",
        "/measure.js": _PAGE / "measure.js",
        "/node_modules": package / "node_modules",
    }
    with tempfile.TemporaryDirectory() as temporary:
        for number, (path, entry) in enumerate(zip(files.values(), entries, strict=True)):
            encoded = Path(temporary) / f"{number}.input"
            encoded.write_bytes(entry.input.encode(image[None]).tobytes())
            routes |= {f"/files/{number}.tflite": path, f"/files/{number}.input": encoded}
        options = {
            "count": len(files), "threads": threads, "seconds": seconds,
            "fewest": latency.FEWEST, "warmup": latency.WARMUP,
        }  # fmt: skip
        with serving(routes) as address:
            results = _evaluate(address, options)
    return {
        name: Trial(result["milliseconds"], entry.output.decode(np.array([result["output"]])))
        for name, entry, result in zip(files, entries, results, strict=True)
    }


def _evaluate(address: str, options: dict[str, Any]) -> Any:
    """What ``measure(options)`` of the page returns."""
    with _started() as browser:
        from playwright import sync_api as playwright

        try:
            page = browser.new_page()
            page.goto(address)
            page.wait_for_function("() => window.measure !== undefined", timeout=_STARTING)
            page.evaluate(_MEASURE, options)
            # Playwright waits for ever for what it evaluates. Twice a second: it costs no time.
            patience = _BESIDES + 2000 * options["seconds"]
            page.wait_for_function("() => window.settled", timeout=patience, polling=500)
            return page.evaluate("() => window.result")
        except playwright.Error as error:
            reason = error.message.splitlines()[0].removeprefix("Page.evaluate: Error: ")
            raise BrowserError(f"LiteRT.js failed: {reason}") from error


@contextmanager
def _started() -> Iterator["Browser"]:
    """A headless Chromium: the system's, or Playwright's own."""
    try:
        from playwright import sync_api as playwright
    except ImportError as error:
        raise BrowserError(
            "measuring in a browser needs Playwright: pip install 'lottery[browser]'"
        ) from error
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        try:
            # --no-sandbox: Chromium's own does not work as root, as in most containers.
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except playwright.Error as error:
            raise BrowserError(
                "measuring in a browser needs Chromium: apt-get install chromium, "
                "or playwright install chromium"
            ) from error
        try:
            yield browser
        finally:
            browser.close()
