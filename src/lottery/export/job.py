"""What export.py does: a ticket as files of other runtimes, checked, and measured if asked.

Each file is run on the test images after it is written: the accuracy is that of the file.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.config_store import ConfigStore
from numpy.typing import NDArray
from omegaconf import DictConfig

from lottery import choices, files
from lottery.config import Data, typed
from lottery.errors import BrowserError, ConfigError, DataError, TicketError
from lottery.export.names import FORMATS, PRECISIONS
from lottery.export.results import Benchmark
from lottery.options import bound_errors, did_you_mean, option
from lottery.tickets import Ticket, asked_for

if TYPE_CHECKING:  # --help must not wait for it
    import keras

    from lottery.export.benchmark import Exported
    from lottery.export.images import Images

log = logging.getLogger(__name__)

EXPORT, BENCHMARK = "export.json", "benchmark.json"
_EXACT = 1e-4  # largest difference of outputs, relative to the largest output if that is above 1


@dataclass
class Where:
    """Where the ticket's data lie on this machine, if elsewhere than when it was found."""

    root: str | None = option(None, "TensorFlow Datasets directory")
    dir: str | None = option(None, "folder of images or records")


@dataclass
class Paths:
    """Where results and runs are."""

    outputs: str = option("outputs", "root of everything written")
    store: str = option("${.outputs}/store", "the run store, for the dense parent")


@dataclass
class Options:
    """What export.py can be told."""

    ticket: str | None = option(None, "ticket file, run folder or report")
    format: Any = option(["keras", "litert"], "formats to write")
    precision: Any = option(["float32"], "numbers in the LiteRT files")
    output: str | None = option(None, "folder to write to; null: a new one")
    pixels: bool = option(True, "the files take pixels from 0 to 255, not normalised images")
    compact: bool = option(True, "remove the channels that the mask has disconnected")
    calibration: int = option(256, "training images that set the ranges of int8", ge=1)
    benchmark: bool = option(False, "measure dense against ticket")
    browser: bool | None = option(
        None, "measure in Chromium too; null: if Chromium, npm and Playwright are there"
    )
    seconds: float = option(2.0, "of each measurement of latency", gt=0)
    force: bool = option(False, "overwrite files that are there")
    plugins: list[str] = option([], "modules that register choices which the ticket needs")
    data: Where = field(default_factory=Where)
    paths: Paths = field(default_factory=Paths)


def register_schema() -> None:
    """Make the schema known to Hydra, for ``conf/export.yaml`` to build on."""
    ConfigStore.instance().store("export_schema", Options)


def main(config: DictConfig) -> None:
    """Export as the options say, print the tables. Raises :class:`LotteryError` for bad input."""
    options = checked(typed(config))
    ticket = asked_for(options.ticket, options.paths.outputs)
    ticket.check_known(choices.model, choices.source)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    folder = Path(options.output or Path(options.paths.outputs, "export", stamp))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output={folder} is a file; name a folder to write to")
    if (folder / EXPORT).exists() and not options.force:
        raise ConfigError(f"{folder} holds an export already; overwrite it with force=true")
    export(ticket, options, folder)


def checked(options: Options) -> Options:
    """The options with lists where lists are meant. Raises :class:`ConfigError`."""
    if errors := bound_errors(options):
        raise ConfigError("; ".join(errors))
    return replace(
        options,
        format=_listed("format", options.format, FORMATS),
        precision=_listed("precision", options.precision, PRECISIONS),
    )


def _listed(name: str, value: Any, known: Sequence[str]) -> list[str]:
    if value in (None, ""):
        value = []
    if isinstance(value, str):
        value = value.split(",")
    chosen = value if isinstance(value, list) else [value]
    for item in chosen:
        if item not in known:
            bits = [k for k in known if k.endswith(f"t{item}")]  # precision=16
            hint = f"; did you mean {bits[0]}?" if bits else did_you_mean(str(item), known)
            raise ConfigError(f"{name}={item} is unknown{hint}")
    if not chosen:
        raise ConfigError(f"{name} names nothing (known: {', '.join(known)})")
    return list(dict.fromkeys(chosen))


def export(ticket: Ticket, options: Options, folder: Path) -> dict[str, Any]:
    """Write the ticket's files, measure their accuracy, and compare with dense if asked.

    Leaves ``export.json``, and ``benchmark.json``, in ``folder``; returns the former. With
    ``options.force`` nothing stays there of an export before. Raises :class:`TicketError` if the
    ticket does not fit its network, :class:`ExportError` for what a format cannot express, and
    :class:`BrowserError` if ``options.browser`` asks for one that cannot be measured: before all
    else if its tools are missing, and after the other measurements are written if it fails.
    """
    if options.benchmark and options.browser:
        from lottery.export import browser

        browser.check()
    sparse = ticket.model()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it warns of every compiled network after the fourth
    from lottery.compaction.folding import fold
    from lottery.compaction.inference import compact, removed
    from lottery.export import accuracy, description, formats, summary

    found = _images(ticket, options)
    described = description.of_ticket(ticket, _known_data(ticket, options), found, options.pixels)
    small = compact(sparse) if options.compact else fold(sparse)
    difference = exactness(ticket, sparse, small, found)
    prepare = (lambda pixels: pixels) if options.pixels else ticket.normalised

    def write(model: "keras.Model", place: Path) -> dict[str, Path]:
        return formats.write(
            _entered(model, ticket, options),
            place,
            options.format,
            options.precision,
            calibration=_calibration(ticket, options, found),
            force=options.force,
            about=described,
        )

    written = write(small, folder)
    if options.force:  # the rest would pass for this ticket's
        (folder / BENCHMARK).unlink(missing_ok=True)
        formats.remove(folder, keep=written.values())
        formats.remove(folder / "dense")
    where = options.ticket and str(Path(options.ticket).resolve())
    about: dict[str, Any] = {
        "version": 2,
        "ticket": ticket.summary(where),
        **{name: described.details[name] for name in ("input", "output")},
        "channels": {k: list(v) for k, v in removed(sparse, small).items()},
        "largest_difference": difference,
        "files": accuracy.of_files(written, found, prepare, folder),
        "ticket_accuracy": accuracy.of_model(sparse, found, ticket.normalised),
    }
    files.write_json(folder / EXPORT, about)
    for warning in summary.integers(about):
        log.warning("%s", warning)
    summary.show_export(about, folder / EXPORT)
    if options.benchmark:
        from lottery.export.benchmark import Exported

        pixels = (_noise(ticket, 1) if found is None else found.sample())[:1]
        twin, trained = _dense(ticket, options)
        dense = write(twin, folder / "dense")
        _compare(
            Exported(
                twin, dense, accuracy.of_files(dense, found if trained else None, prepare, folder)
            ),
            Exported(small, written, about["files"]),
            (pixels if options.pixels else ticket.normalised(pixels))[0],
            accuracy.logits_of(small)(ticket.normalised(pixels))[0],
            about["ticket"],
            options,
            folder / BENCHMARK,
        )
    return about


def _compare(
    dense: "Exported",
    ticket: "Exported",
    image: NDArray[np.float32],
    expected: NDArray[np.float32],
    about: Mapping[str, Any],
    options: Options,
    path: Path,
) -> None:
    """Measure dense against ticket, and write and show what was measured, browser or not."""
    from lottery.export import benchmark, summary

    measured = benchmark.measure(dense, ticket, seconds=options.seconds)
    measured = Benchmark(ticket=about, **measured).written()
    files.write_json(path, measured)  # whatever the browser does
    failure = None
    if options.browser is not False:
        try:
            measured = benchmark.with_browser(
                measured, dense, ticket, image=image, expected=expected, seconds=options.seconds
            )
        except BrowserError as error:
            failure = error
            if not options.browser:
                log.warning("the browser is not measured: %s", error)
            measured = {**measured, "browser": {"missing": str(error)}}
        files.write_json(path, measured)
    summary.show_benchmark(measured, path)
    if failure and options.browser:
        raise failure


def exactness(
    ticket: Ticket, sparse: "keras.Model", small: "keras.Model", found: "Images | None"
) -> float:
    """The largest difference of outputs on real images, or on noise if there are none.

    Raises :class:`TicketError` if the smaller network does not compute the same function, or the
    ticket's own outputs are not finite.
    """
    pixels = _noise(ticket, 64) if found is None else found.sample()
    from lottery.export.accuracy import logits_of

    expected, actual = (logits_of(m)(ticket.normalised(pixels)) for m in (sparse, small))
    if not np.isfinite(expected).all():
        raise TicketError(
            "the ticket's outputs are not finite numbers, so its weights are of no use: "
            "export another ticket"
        )
    difference = float(np.abs(expected - actual).max())
    if not difference <= _EXACT * max(1.0, float(np.abs(expected).max())):
        raise TicketError(
            f"the smaller network's outputs differ by {difference:.2g} from the ticket's: "
            "export with compact=false, and please report it"
        )
    return difference


def _noise(ticket: Ticket, count: int) -> NDArray[np.float32]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *ticket.network.input_shape))
    return pixels.astype(np.float32)


def _entered(model: "keras.Model", ticket: Ticket, options: Options) -> "keras.Model":
    """The network behind its normalisation, if the files are to take pixels."""
    if not options.pixels:
        return model
    from lottery.export.litert import with_normalisation

    return with_normalisation(model, *ticket.statistics)


def _images(ticket: Ticket, options: Options) -> "Images | None":
    from lottery.export import images

    try:
        return images.of_ticket(_data(ticket, options), ticket)
    except (DataError, ConfigError) as error:
        log.warning("no accuracy is measured: %s", error)
        return None


def _known_data(ticket: Ticket, options: Options) -> Data | None:
    try:
        return _data(ticket, options)
    except ConfigError:
        return None


def _data(ticket: Ticket, options: Options) -> Data:
    """The ticket's data set. Raises :class:`ConfigError` if the ticket does not tell which."""
    recorded = ticket.provenance.get("config", {}).get("data", {})
    if not recorded:
        raise ConfigError("the ticket does not tell its data set")
    where = {k: v for k, v in (("root", options.data.root), ("dir", options.data.dir)) if v}
    data: Data = choices.source.of(choices.source.known_part(recorded, **where))
    if errors := bound_errors(data):
        raise ConfigError(f"the ticket does not tell its data set: data.{'; data.'.join(errors)}")
    return data


def _calibration(
    ticket: Ticket, options: Options, found: "Images | None"
) -> NDArray[np.float32] | None:
    if "int8" not in options.precision or "litert" not in options.format:
        return None
    if found is None:
        raise ConfigError(
            "precision=int8 needs images of the ticket's data set to calibrate with: say where "
            "they are (data.root, data.dir)"
        )
    pixels = found.calibration(options.calibration)
    return pixels if options.pixels else ticket.normalised(pixels)


def _dense(ticket: Ticket, options: Options) -> "tuple[keras.Model, bool]":
    """The dense twin, and whether it is trained.

    Its weights are those of the dense parent; where the store has none, random ones stand in for
    those that the mask removed: good for measuring time and size.
    """
    from lottery.compaction.folding import fold
    from lottery.runs import Run

    network = ticket.model()
    parent = Path(options.paths.store, "dense", ticket.provenance["runs"]["dense"])
    moved = "transfer" in ticket.provenance["runs"]  # the parent has other classes
    trained = (parent / "done.json").exists() and not moved
    weights: Mapping[str, NDArray[Any]]
    if trained:
        weights = Run(parent).weights()
    else:
        log.warning("the dense parent is not in the store: its twin has no accuracy")
        generator = np.random.default_rng(0)
        weights = {
            path: np.where(m, ticket.trained[path], generator.normal(0, 0.05, m.shape))
            for path, m in ticket.mask.items()
        }
    for variable in network.variables:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    return fold(network), trained
