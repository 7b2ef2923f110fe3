"""A network as files: Keras's own, LiteRT's, TensorFlow's SavedModel."""

import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lottery import files
from lottery.errors import ExportError
from lottery.export import litert, metadata
from lottery.export.names import FORMATS, PRECISIONS, Format, Precision
from lottery.quiet import quiet_stderr

if TYPE_CHECKING:
    import keras

_KERAS, _SAVEDMODEL, _LITERT = "model.keras", "savedmodel", "model-{}.tflite"


def write(
    model: "keras.Model",
    folder: Path,
    formats: Sequence[Format] = FORMATS,
    precisions: Sequence[Precision] = ("float32",),
    *,
    calibration: NDArray[Any] | None = None,
    force: bool = False,
    about: metadata.About | None = None,
) -> dict[str, Path]:
    """Write ``model`` to ``folder`` and return the paths, named ``keras``, ``savedmodel``,
    ``litert-float32``, and so on: one LiteRT file for each of ``precisions``.

    Each file, and the SavedModel's folder, appears whole or not at all. Raises
    :class:`ExportError` before anything is written if one of them is there and not ``force``, and
    for what a format cannot express; ``calibration`` is that of :func:`litert.convert`,
    and ``about`` what LiteRT files say of themselves.
    """
    writers = _writers(model, formats, precisions, calibration, about)
    paths = {name: folder / file for name, (file, _) in writers.items()}
    there = [str(path) for path in paths.values() if path.exists()]
    if there and not force:
        raise ExportError(f"{', '.join(there)} would be overwritten; allow it with force=true")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, writer) in writers.items():
        with _placing(paths[name]) as temporary:
            writer(temporary)
    return paths


def remove(folder: Path, keep: Collection[Path] = ()) -> None:
    """Remove all that :func:`write` may have left in ``folder``, but what is to ``keep``.

    Other files stay. The folder goes too if it is empty then.
    """
    if not folder.is_dir():
        return
    for name in (_KERAS, _SAVEDMODEL, *map(_LITERT.format, PRECISIONS)):
        path = folder / name
        if path in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _writers(
    model: "keras.Model",
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    calibration: NDArray[Any] | None,
    about: metadata.About | None,
) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """For each name, the file's name and what writes it."""
    writers: dict[str, tuple[str, Callable[[Path], object]]] = {}
    for chosen in formats:
        if chosen == "keras":
            writers[chosen] = (_KERAS, partial(_write_keras, model))
        elif chosen == "savedmodel":
            writers[chosen] = (_SAVEDMODEL, partial(_write_savedmodel, model))
        elif chosen == "litert":
            for precision in precisions:
                writer = partial(_write_litert, model, precision, calibration, about)
                writers[f"litert-{precision}"] = (_LITERT.format(precision), writer)
        else:
            raise ExportError(f"no format {chosen}; there are {', '.join(FORMATS)}")
    return writers


def _write_litert(
    model: "keras.Model",
    precision: Precision,
    calibration: NDArray[Any] | None,
    about: metadata.About | None,
    path: Path,
) -> None:
    content = litert.convert(model, precision, calibration=calibration)
    path.write_bytes(content if about is None else metadata.attach(content, about))


def _write_keras(model: "keras.Model", path: Path) -> None:
    try:
        model.save(path)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ExportError(f"the network does not fit a .keras file: {_line(error)}") from error


def _write_savedmodel(model: "keras.Model", path: Path) -> None:
    import tensorflow as tf

    try:
        with quiet_stderr():
            model.export(path, verbose=False)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ExportError(f"the network does not fit a SavedModel: {_line(error)}") from error
    except tf.errors.OpError as error:  # a full disk, say: TensorFlow has no OSError
        raise ExportError(f"the SavedModel cannot be written: {_line(error)}") from error


@contextmanager
def _placing(path: Path) -> Iterator[Path]:
    """A temporary path, of the same suffix, that takes the place of the file or folder ``path``."""
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with files.naming(path):
            yield temporary
            if path.is_dir():
                shutil.rmtree(path)  # no rename replaces a folder that holds something
            files.sync(temporary)
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
