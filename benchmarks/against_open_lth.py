"""An epoch of LeNet-300-100 on MNIST: ours against open_lth's, on the same machine.

python benchmarks/against_open_lth.py --checkout <folder> --torch <python> [--rounds 5]

`checkout` is a work tree of https://github.com/facebookresearch/open_lth, in which nothing is
changed; `torch` is a Python with PyTorch, in an environment of its own:
`uv venv torch && uv pip install --python torch/bin/python torch torchvision numpy pillow`.
MNIST is read from TFDS_DATA_DIR by us, and handed to open_lth as torchvision would have it.

Both train with plain SGD at a rate of 0.1 in batches of 128, and after each epoch save a checkpoint
and measure 10,000 images: open_lth those of the test set, ours those that it holds out. A round is
the time from the end of the first epoch to that of the last, so that nothing that comes once per
training counts. Epochs of ours have 50,000 images for that reason; seconds are scaled to 60,000.
"""

import argparse
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS, BATCH, RATE, IMAGES = 3, 128, 0.1, 60_000
LENET = "mnist_lenet_300_100"


BASES = b"(abc.ABC, torch.nn.Module)"


# -- in the other Python -------------------------------------------------------------------------


class Patched:
    """Imports `models.base` with torch.nn.Module as its first base.

    Today that does not call the __init__ of a class before it, and the network has no layers.
    """

    def __init__(self, checkout):
        self.file = str(Path(checkout) / "models" / "base.py")

    def find_spec(self, name, path, target=None):
        """See :class:`importlib.abc.MetaPathFinder`."""
        if name != "models.base":
            return None

        class Loader(importlib.machinery.SourceFileLoader):
            def get_data(self, path):
                source = super().get_data(path)
                return source.replace(BASES, b"(torch.nn.Module, abc.ABC)")

        return importlib.util.spec_from_file_location(name, loader=Loader(name, self.file))


def serve(checkout, folder):
    """Train once for each line of the input; answer with the seconds of an epoch."""
    import numpy as np

    np.product = np.prod  # which numpy has by this name only today
    sys.path.insert(0, checkout)
    sys.meta_path.insert(0, Patched(checkout))
    import torch
    from datasets import mnist
    from models import initializers, mnist_lenet
    from platforms import local, platform
    from training import standard_callbacks, train

    platform._PLATFORM = local.Platform()
    arrays = {name: torch.tensor(a) for name, a in np.load(f"{folder}/mnist.npz").items()}
    loaders = [
        mnist.DataLoader(mnist.Dataset(arrays[f"{of}_images"], arrays[f"{of}_labels"]), BATCH, 0)
        for of in ("train", "test")
    ]
    options = mnist_lenet.Model.default_hparams().training_hparams
    assert (options.optimizer_name, options.lr) == ("sgd", RATE)
    options.training_steps = f"{EPOCHS}ep"
    for _ in sys.stdin:
        ends = []

        def note(output, step, *_, ends=ends):
            if step.it == 0:
                ends.append(time.perf_counter())

        callbacks = standard_callbacks.standard_callbacks(options, *loaders, verbose=False)
        model = mnist_lenet.Model.get_model_from_name(LENET, initializers.kaiming_normal)
        train.train(options, model, loaders[0], tempfile.mkdtemp(dir=folder), [*callbacks, note])
        print((ends[-1] - ends[1]) / (EPOCHS - 1), flush=True)


# -- here ----------------------------------------------------------------------------------------


def epochs_of_ours(folder):
    """What trains, and gives the seconds of an epoch of 60,000 images."""
    import keras
    import numpy as np

    from lottery import choices, models
    from lottery.data import loading
    from lottery.data.preprocessing import Preprocessing
    from lottery.interrupts import StopSignals
    from lottery.training import devices
    from lottery.training.checkpoints import CheckpointFolder, Progress
    from lottery.training.length import Length
    from lottery.training.loop import Loop
    from lottery.training.schedules import unchanging

    devices.configure(precision="float32", deterministic=False)
    root = os.environ["TFDS_DATA_DIR"]
    config = choices.source.of(
        {"source": "tfds", "name": "mnist", "root": root, "validation": 1 / 6, "crop_padding": 0,
         "flip": False, "mean": [0.1307], "std": [0.3081]}
    )  # fmt: skip
    data = loading.load(config)
    source = config.open()
    arrays = {}
    for part in ("train", "test"):
        labels = source.labels(part)
        arrays[f"{part}_images"] = source.images(part, np.arange(len(labels)))[..., 0]
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    np.savez(folder / "mnist.npz", **arrays)
    shape, steps = data.description.input_shape, data.train.size // BATCH

    class Ends(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seconds = []

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter())

    def train():
        keras.utils.set_random_seed(0)
        loop = Loop(
            network=lambda: models.build("lenet_300_100", shape, 10),
            optimizer=lambda: keras.optimizers.SGD(unchanging(RATE), name="optimizer"),
            preprocessing=Preprocessing(shape, 0, False, (0.1307,), (0.3081,)),
            batch_size=BATCH,
            eval_batch_size=1000,
            seed=0,
            strategy=devices.strategy("one"),
        )
        ends = Ends()
        with tempfile.TemporaryDirectory() as saved, StopSignals() as signals:
            loop.fit(
                data,
                Length(EPOCHS * steps, steps, steps_per_call=50),
                Progress(0),
                checkpoints=CheckpointFolder(Path(saved)),
                checkpoint_steps=steps,
                callbacks=[ends],
                signals=signals,
            )
        seconds = (ends.seconds[-1] - ends.seconds[0]) / (EPOCHS - 1)
        return seconds * IMAGES / (steps * BATCH)

    return train


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--torch", required=True, help="a Python that has PyTorch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from measure import report

    with tempfile.TemporaryDirectory() as folder:
        train = epochs_of_ours(Path(folder))
        other = subprocess.Popen(
            [given.torch, "-B", __file__, "serve", str(Path(given.checkout).resolve()), folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        def theirs():
            other.stdin.write("go\n")
            other.stdin.flush()
            return float(other.stdout.readline())

        ways = {"open_lth": theirs, "ours": train}
        for run in ways.values():
            run()
        seconds = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, run in ways.items():
                seconds[name].append(run())
        other.stdin.close()
        other.wait()
    report("against_open_lth", "open_lth", seconds, network="lenet_300_100", batch=BATCH)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        main()
