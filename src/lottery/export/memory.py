"""What a file takes: on disk, compressed, and of memory while it runs."""

import gzip
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lottery.errors import ExportError
from lottery.export.interpreter import Interpreter
from lottery.quiet import import_tensorflow, quiet_stderr

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a file, or of all files of a folder, as they are and compressed."""

    raw: int
    gzip: int


def sizes(path: Path) -> Sizes:
    """The sizes of ``path``; gzip at its highest level, each file for itself."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    contents = [file.read_bytes() for file in files]
    return Sizes(
        sum(len(content) for content in contents),
        sum(len(gzip.compress(content, mtime=0)) for content in contents),
    )


def peak(file: Path, *, batch: int = 1, threads: int = 1) -> int | None:
    """Bytes of memory that loading and running a LiteRT or ``.keras`` ``file`` takes at most.

    It is the high-water mark of resident memory in a fresh process (Linux counts it for each
    program, unlike ``ru_maxrss``, which a child inherits from its parent), less what was resident
    after importing the interpreter, or TensorFlow for a ``.keras`` file, which runs as a compiled
    function. ``None`` where the system does not tell. Raises
    :class:`ExportError` for a file that does not run.
    """
    if not _RESET.exists():
        return None
    process = subprocess.run(
        [sys.executable, "-m", "lottery.export.memory", str(file), str(batch), str(threads)],
        capture_output=True,
        text=True,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"no memory of {file} was measured: {reason}")
    return int(process.stdout)


def _measure(file: Path, batch: int, threads: int) -> int:
    run = _keras if file.suffix == ".keras" else _litert
    with quiet_stderr():  # what the import takes does not count
        if run is _keras:
            import_tensorflow()
            import keras  # noqa: F401
        else:
            import ai_edge_litert.interpreter  # noqa: F401
    before = _status("VmRSS")
    _RESET.write_text("5")  # the high-water mark starts anew
    run(file, batch, threads)
    return _status("VmHWM") - before


def _litert(file: Path, batch: int, threads: int) -> None:
    interpreter = Interpreter(file, batch=batch, threads=threads)
    interpreter.feed(np.ones(interpreter.input.shape, np.float32))
    for _ in range(2):
        interpreter.invoke()
    interpreter.logits()


def _keras(file: Path, batch: int, threads: int) -> None:
    import keras
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = keras.saving.load_model(file, compile=False)
    run = tf.function(lambda images: model(images, training=False), autograph=False)
    images = tf.ones((batch, *model.input_shape[1:]))
    for _ in range(2):
        run(images).numpy()


def _status(field: str) -> int:
    """Bytes that the kernel states for this process."""
    lines = _STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    print(_measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
