"""What preprocess.py does: find the images, spread shards over an engine, publish; or verify."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from lottery import config, files
from lottery.data.manifest import MANIFEST
from lottery.data.sources.records import check_files, read_manifest, trust
from lottery.errors import ConfigError, DataError
from lottery.options import bound_errors, option

if TYPE_CHECKING:  # --help must not wait for them
    from lottery.preprocess.processes import Map
    from lottery.preprocess.shards import Done, Layout, Task
    from lottery.preprocess.sources import Source

log = logging.getLogger(__name__)

_WORK, _LOG = ".work", "spark.log"
_TELLING = ("format", "encoding", "size", "options", "source")  # one output from another
_SHARD, _FEWEST_SHARDS = 1024, 16


@dataclass
class Spark:
    """Where Spark runs, and what else to tell it."""

    master: str = option("local[*]", "local[*], or spark://host:port of a standalone cluster")
    conf: Any = option(None, "further options, e.g. {spark.executor.memory: 2g}")
    ui: bool = option(False, "serve Spark's web page while the job runs")


@dataclass
class Options:
    """What preprocess.py can be told."""

    source: str | None = option(None, "folder with the images")
    output: str | None = option(None, "folder to write")
    verify: str | None = option(None, "output folder to check against its manifest")
    size: int = option(256, "side of the images in pixels", ge=1, le=4096)
    format: str = option("array", "how they are stored", choices=("array", "tfrecord"))
    encoding: str = option("raw", "pixels or JPEG, in a TFRecord", choices=("raw", "jpeg"))
    quality: int = option(95, "of a JPEG", ge=1, le=100)
    max_unreadable: int = option(0, "unreadable images to leave out before the job fails", ge=0)
    shard_examples: int | None = option(None, "images of a shard", ge=1)
    force: bool = option(False, "make the output again, whatever is there")
    engine: str = option("spark", "what spreads the shards", choices=("spark", "processes"))
    workers: int | None = option(None, "of engine processes; null: one a core", ge=1)
    spark: Spark = field(default_factory=Spark)


def register_schema() -> None:
    """Make the schema known to Hydra, for ``conf/preprocess.yaml`` to build on."""
    ConfigStore.instance().store("preprocess_schema", Options)


def main(chosen: DictConfig) -> None:
    """Preprocess, or verify. Raises :class:`LotteryError` for bad input."""
    options: Options = config.typed(chosen)
    check(options)
    if options.verify is not None:
        verify(Path(options.verify))
    else:
        preprocess(options)


def check(options: Options) -> None:
    """Raise :class:`ConfigError` for what cannot be meant."""
    if (options.verify is None) == (options.source is None and options.output is None):
        raise ConfigError(
            "say what to do: source=<folder of images> output=<folder>, or verify=<output folder>"
        )
    if options.verify is None and (options.source is None or options.output is None):
        missing = "source=<folder of images>" if options.source is None else "output=<folder>"
        raise ConfigError(f"{missing} is missing")
    if found := bound_errors(options):
        raise ConfigError("; ".join(found))
    if options.format == "array" and options.encoding == "jpeg":
        raise ConfigError("encoding=jpeg needs format=tfrecord: an array holds pixels")
    if not isinstance(options.spark.conf, dict | None):
        raise ConfigError("spark.conf needs names and values: 'spark.conf={spark.cores.max: 8}'")


def preprocess(options: Options) -> None:
    """Write the output folder, or find it written, and say where.

    Raises :class:`LotteryError` for bad input, and :class:`OSError` for a full or foreign disk.
    """
    from lottery.preprocess import assembly, sources

    root, output = Path(options.source or ""), Path(options.output or "").resolve()
    _check_apart(root.resolve(), output)
    source = sources.find(root)
    about = _about(options, source)
    if (output / MANIFEST).exists() and not options.force:
        _check_same(output, about)
        shutil.rmtree(output / _WORK, ignore_errors=True)
        print("this output is finished already; nothing to do")
        _show(output)
        return
    if options.engine == "spark":
        from lottery.preprocess import spark

        spark.check(options.spark.master)
    with _lock(output / _WORK) as work:
        if not _is_assembled(work, about):
            shards = _shards(options, source, work)
            _check_unreadable(shards, options.max_unreadable, work)
            assembly.assemble(source, _layout(options, work), shards, about)
        assembly.publish(work, output)
    trust(output)
    _show(output)


def verify(folder: Path) -> None:
    """Compare an output folder with its manifest. Raises :class:`DataError` if they differ."""
    from lottery.data import manifest
    from lottery.preprocess import progress

    about = read_manifest(folder)
    total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    wrong = []
    with progress.shown("verifying", total, "B") as advance:
        try:
            for found in manifest.problems(folder, about):
                if isinstance(found, int):
                    advance(found)
                else:
                    wrong.append(found)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / MANIFEST} is damaged: {error!r}") from None
    for problem in wrong:
        print(problem)
    if wrong:
        raise DataError(f"{folder} does not match its manifest: {len(wrong)} differences")
    count = sum(split["examples"] for split in about["splits"].values())
    print(f"{folder} matches its manifest: {count:,} images")


def tasks(source: "Source", layout: "Layout", shard_examples: int | None) -> "list[Task]":
    """The shards of all parts, by default of 1024 images, or fewer so that there are 16."""
    from lottery.preprocess.shards import Task, libraries

    found = []
    for part, images in source.parts.items():
        if layout.format == "tfrecord":  # is read in its order, so that classes must be mixed
            images = images.scattered()
        size = shard_examples or max(1, min(_SHARD, -(-len(images) // _FEWEST_SHARDS)))
        of = -(-len(images) // size)
        found += [
            Task(part, i, of, i * size, images.cut(i * size, size), layout, libraries())
            for i in range(of)
        ]
    return found


def _about(options: Options, source: "Source") -> dict[str, Any]:
    """What the manifest says of where an output is from."""
    from lottery.preprocess.shards import libraries

    chosen = {"shard_examples": options.shard_examples}
    if options.encoding == "jpeg":
        chosen["quality"] = options.quality
    return {
        "format": options.format,
        "encoding": options.encoding,
        "size": options.size,
        "options": chosen,
        "source": {"kind": source.kind, "name": source.name, "fingerprint": source.fingerprint},
        "libraries": dict(libraries()),
    }


def _engine(options: Options, work: Path) -> "AbstractContextManager[Map]":
    if options.engine == "processes":
        from lottery.preprocess import processes

        return processes.open_engine(options.workers)
    from lottery.preprocess import spark

    chosen = options.spark
    return spark.open_engine(chosen.master, chosen.conf or {}, work / _LOG, ui=chosen.ui)


def _layout(options: Options, work: Path) -> "Layout":
    from lottery.preprocess.shards import Layout

    return Layout(str(work), options.format, options.encoding, options.size, options.quality)


def _check_apart(source: Path, output: Path) -> None:
    if output == source or source in output.parents:
        raise ConfigError(f"output={output} lies inside source={source}: choose another folder")
    if output in source.parents:
        raise ConfigError(f"source={source} lies inside output={output}: choose another folder")


@contextmanager
def _lock(work: Path) -> Iterator[Path]:
    """The work folder, for one job at a time; it goes with the lock if nothing is in it."""
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(work / "lock", wait=False))
        except BlockingIOError:
            raise DataError(f"another preprocess.py is writing to {work.parent}") from None
        yield work


def _check_same(output: Path, about: dict[str, Any]) -> None:
    """Raise :class:`DataError` if an output is of another job, or its files are cut or gone."""
    found = read_manifest(output)
    changed = [key for key in _TELLING if found.get(key) != about[key]]
    if changed:
        raise DataError(
            f"{output} holds the output of another job (different: {', '.join(changed)}): "
            "choose another folder, or force=true to replace it"
        )
    check_files(output, found)


def _is_assembled(work: Path, about: dict[str, Any]) -> bool:
    """Whether an earlier job of the same kind was stopped while it gave files their names."""
    path = work / "manifest.json"
    if path.exists():
        found = files.read_json(path)
        if all(found.get(key) == about[key] for key in _TELLING):
            return True
        path.unlink()
    return False


def _shards(options: Options, source: "Source", work: Path) -> "list[Done]":
    from lottery.preprocess import assembly, progress
    from lottery.preprocess.shards import Failed

    layout = _layout(options, work)
    todo = tasks(source, layout, options.shard_examples)
    _discard_others(work, todo)
    _check_space(work, todo)
    if layout.format == "array":
        for part, images in source.parts.items():
            assembly.allocate(layout, part, len(images))
    total, done = sum(len(task.images) for task in todo), []
    print(f"{source.name} ({source.kind}): {total:,} images in {len(todo)} shards", file=sys.stderr)
    with ExitStack() as stack:
        engine = stack.enter_context(_engine(options, work))
        advance = stack.enter_context(progress.shown("preprocessing", total, " images"))
        # Closed here and now, so that an error or Ctrl-C does not wait for the shards to come.
        for result in stack.enter_context(closing(engine(todo))):
            if isinstance(result, Failed):
                raise result.error()
            done.append(result)
            advance(result.examples)
    if kept := sum(result.kept for result in done):
        print(f"{kept} of {len(todo)} shards were there from an earlier job", file=sys.stderr)
    return done


def _discard_others(work: Path, todo: "list[Task]") -> None:
    """Remove what a job of another kind left; shards of this kind know themselves."""
    ours = {path.name for task in todo for path in (task.path, task.journal)} | {"lock", _LOG}
    for path in work.iterdir():
        if path.name not in ours:
            path.unlink()


def _check_space(work: Path, todo: "list[Task]") -> None:
    """Raise :class:`DataError`, before hours are spent, if the pixels still to come do not fit."""
    missing = sum(
        len(task.images) * task.layout.row_bytes
        for task in todo
        if task.layout.encoding == "raw" and not task.journal.exists()
    )
    free = shutil.disk_usage(work).free
    if missing > free:
        raise DataError(
            f"{work.parent} has {free / 2**30:.1f} GiB free, the images need "
            f"{missing / 2**30:.1f}: choose another disk, a smaller size, or "
            "format=tfrecord encoding=jpeg"
        )


def _check_unreadable(shards: "list[Done]", allowed: int, work: Path) -> None:
    found = [
        entry for s in sorted(shards, key=lambda s: (s.part, s.index)) for entry in s.unreadable
    ]
    for entry in found[:5]:
        log.warning("unreadable: %s: %s", entry["path"], entry["reason"])
    if len(found) > 5:
        log.warning("unreadable: %d more", len(found) - 5)
    if len(found) > allowed:
        files.write_json(work / "unreadable.json", found)
        named = ", ".join(entry["path"] for entry in found[:5]) + (
            ", ..." if len(found) > 5 else ""
        )
        raise DataError(
            f"{len(found)} images cannot be read, more than max_unreadable={allowed}: {named} "
            f"(all, with reasons, in {work / 'unreadable.json'}); repair, remove or allow for "
            "them, and the same command goes on from here"
        )


def _show(output: Path) -> None:
    about = read_manifest(output)
    for name, split in about["splits"].items():
        left_out = f", {len(n)} unreadable left out" if (n := split["unreadable"]) else ""
        print(
            f"{name:5s} {split['examples']:,} images of {len(about['classes'])} classes{left_out}"
        )
    for name in ("mean", "std"):
        print(f"{name:5s} {', '.join(f'{value:.4f}' for value in about[name])}")
    print(f"manifest: {output / MANIFEST}")
