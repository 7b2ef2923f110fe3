"""Exported files in a real Chromium through LiteRT.js."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from test_litert import images, network, trained

from lottery.errors import BrowserError
from lottery.export import browser, litert, metadata, names
from lottery.export.browser import litertjs, server

assert trained


@pytest.fixture
def tools():
    """A skip where something that runs a file in a browser is missing."""
    pytest.importorskip("playwright.sync_api", reason="no playwright")
    for tool in ("npm", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")


def written(folder, **contents):
    files = {}
    for name, content in contents.items():
        files[name] = folder / f"{name}.tflite"
        files[name].write_bytes(content)
    return files


@pytest.fixture(scope="module")
def mobilenets(tmp_path_factory):
    """MobileNetV2 with and without zeros, an image, and for each a file and Keras's logits."""
    shape = (96, 96, 3)
    image = images(1, shape)
    networks = {"dense": network("mobilenet_v2", 0.0, shape=shape),
                "ticket": network("mobilenet_v2", 0.9, shape=shape)}  # fmt: skip
    folder = tmp_path_factory.mktemp("mobilenets")
    files = written(folder, **{n: litert.convert(m) for n, m in networks.items()})
    return image[0], files, {n: np.asarray(m(image)) for n, m in networks.items()}


@pytest.mark.browser
@pytest.mark.parametrize("threads", [1, 2])
def test_a_browser_computes_what_keras_does(tools, mobilenets, threads):
    """By XNNPACK's usual kernels, and by its sparse ones."""
    image, files, logits = mobilenets
    trials = browser.run(files, image, threads=threads, seconds=0.2)
    for name, expected in logits.items():
        assert np.abs(trials[name].logits - expected).max() < 1e-4 * np.abs(expected).max()
        assert len(trials[name].milliseconds) >= 10
        assert min(trials[name].milliseconds) > 0


@pytest.mark.browser
def test_integers_in_a_browser(tools, trained, tmp_path):
    model, pixels, _ = trained
    files = written(tmp_path, **{
        p: litert.convert(model, p, calibration=pixels[:200]) for p in names.PRECISIONS
    })  # fmt: skip
    trials = browser.run(files, pixels[0], seconds=0)
    expected = np.asarray(model(pixels[:1]))
    for name, tolerance in (("float32", 1e-5), ("float16", 0.01), ("int8", 0.1)):
        difference = np.abs(trials[name].logits - expected).max()
        assert difference < tolerance * np.abs(expected).max()


@pytest.mark.browser
def test_metadata_is_no_hindrance(tools, mobilenets, tmp_path):
    image, files, logits = mobilenets
    about = metadata.About("network", ("a", "b"), 96, 3, "", [0.0] * 3, [1.0] * 3, {})
    content = {name: metadata.attach(file.read_bytes(), about) for name, file in files.items()}
    trials = browser.run(written(tmp_path, **content), image, seconds=0)
    for name, expected in logits.items():
        assert np.abs(trials[name].logits - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.browser
def test_a_file_that_litertjs_refuses(tools, tmp_path, monkeypatch):
    """One line with its reason, not a script's trace."""
    (file,) = written(tmp_path, model=litert.convert(network("lenet_300_100"))).values()
    monkeypatch.setattr(litertjs, "folder", lambda: tmp_path)  # where no LiteRT.js is
    monkeypatch.setattr(browser, "_STARTING", 500)
    with pytest.raises(BrowserError, match=r"LiteRT\.js failed") as caught:
        browser.run({"model": file}, images(1)[0])
    assert len(str(caught.value).splitlines()) == 1


def test_missing_tools_are_named(tmp_path, monkeypatch):
    (file,) = written(tmp_path, model=litert.convert(network("lenet_300_100"))).values()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BrowserError, match="apt-get install npm"):
        browser.run({"model": file}, images(1)[0])
    (tmp_path / "lottery" / f"litertjs-{litertjs.VERSION}").mkdir(parents=True)
    pytest.importorskip("playwright.sync_api", reason="no playwright")
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(BrowserError, match="apt-get install chromium"):
        browser.run({"model": file}, images(1)[0])


def npm_that(does, tmp_path, monkeypatch):
    """Put an npm in place of the real one, and an empty cache."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{does}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_refused_fetch_leaves_nothing(tmp_path, monkeypatch):
    npm_that("echo 'npm error code ENOTFOUND' >&2; exit 1", tmp_path, monkeypatch)
    with pytest.raises(BrowserError, match="npm error code ENOTFOUND"):
        litertjs.folder()
    assert not list((tmp_path / "cache" / "lottery").iterdir())


def test_a_fetch_that_does_not_end(tmp_path, monkeypatch):
    npm_that("exec sleep 30", tmp_path, monkeypatch)
    monkeypatch.setattr(litertjs, "_PATIENCE", 0.1)
    with pytest.raises(BrowserError, match=r"did not fetch LiteRT\.js .* within 0\.1 s"):
        litertjs.folder()
    assert not list((tmp_path / "cache" / "lottery").iterdir())


@pytest.mark.browser
def test_a_page_that_does_not_end(tools, tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text(
        "<script>window.measure = () => new Promise(() => {})</script>"
    )
    (tmp_path / "measure.js").touch()
    (file,) = written(tmp_path, model=litert.convert(network("lenet_300_100"))).values()
    monkeypatch.setattr(litertjs, "folder", lambda: tmp_path)
    monkeypatch.setattr(browser, "_PAGE", tmp_path)
    monkeypatch.setattr(browser, "_BESIDES", 100)
    with pytest.raises(BrowserError, match=r"LiteRT\.js failed: .*Timeout"):
        browser.run({"model": file}, images(1)[0], seconds=0)


@pytest.mark.browser
def test_the_tools_are_checked_alone(tools):
    browser.check()


def test_the_server_serves_its_routes_only(tmp_path):
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "deep" / "a.wasm").write_bytes(b"wasm")
    (tmp_path / "secret").write_bytes(b"secret")
    routes = {"/": tmp_path / "open" / "deep" / "a.wasm", "/open": tmp_path / "open"}
    with server.serving(routes) as address:
        with urllib.request.urlopen(f"{address}open/deep/a.wasm") as response:
            assert response.read() == b"wasm"
            assert response.headers["Content-Type"] == "application/wasm"
            assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        for path in ("open/../secret", "open/%2e%2e/secret", "secret", "open", "open/none"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)


def test_the_lock_pins_what_is_fetched():
    lock = (Path(litertjs.__file__).parent / "package-lock.json").read_text()
    assert f'"@litertjs/core": "{litertjs.VERSION}"' in lock
    assert lock.count('"integrity": "sha512-') == 2
    assert "://" not in lock  # the user's registry, whichever it is
