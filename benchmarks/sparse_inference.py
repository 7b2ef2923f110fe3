"""A pruned MobileNetV2 against its dense twin in a browser: WebAssembly, by LiteRT.js.

python benchmarks/sparse_inference.py --mask magnitude|channels|trained --sparsity 80 88 95

Target: at 224 pixels at least 2.5 times as fast with 88 % of the weights pruned, 3.5 times with
95 %. Masks are by global magnitude, of three kinds of weights:

magnitude  random weights as a network starts with: hardly a channel loses all of its weights
channels   random weights, scaled by a log-normal factor for each channel; its spread is chosen so
           that as large a share of the channels is dead as in a small MobileNetV2 trained on digits
           (80, 88, 95, 98 % pruned: 0, 10, 45, 67 %). A simulation: in a real network dead channels
           gather in some layers, here they are everywhere
trained    weights of this network trained on digits for some epochs, at its own, small image size:
           its kernels, all but the classifier's, have the same shapes at 224 pixels
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from lottery import models
from lottery.compaction.folding import fold
from lottery.compaction.inference import compact
from lottery.data.sources.digits import Digits
from lottery.export import browser, latency, litert, memory
from lottery.models import cost
from lottery.models.kernels import flat_layers, layer_kernels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEAD = {0: 0.0, 80: 0.0, 88: 0.10, 95: 0.45, 98: 0.67}  # of a small MobileNetV2 trained on digits


def network(size, classes, seed=0):
    keras.utils.set_random_seed(seed)
    return models.build("mobilenet_v2", (size, size, 3), classes, batch_norm_momentum=0.0)


def prunable(model):
    return [
        (layer, variable)
        for layer in flat_layers(model)
        for variable, kind in layer_kernels(layer)
        if kind != "depthwise"
    ]


def prune(model, percent):
    """Zero the ``percent`` smallest of all prunable weights."""
    variables = [variable for _, variable in prunable(model)]
    sizes = np.concatenate([np.abs(np.asarray(v)).ravel() for v in variables])
    threshold = np.quantile(sizes, percent / 100)
    for variable in variables:
        kernel = np.asarray(variable)
        variable.assign(kernel * (np.abs(kernel) > threshold))


def dead_channels(model):
    """Share of the outputs of (not depthwise) convolutions whose weights are all zero."""
    dead = [
        ~np.asarray(variable).any(axis=(0, 1, 2))
        for layer, variable in prunable(model)
        if isinstance(layer, keras.layers.Conv2D)
    ]
    return np.concatenate(dead).mean()


def pruned(mask, percent, size, classes, start):
    """The network with a mask of one kind; ``start`` holds trained kernels."""
    model = network(size, classes)
    if mask == "trained":
        for _, variable in prunable(model):
            if variable.path in start and start[variable.path].shape == tuple(variable.shape):
                variable.assign(start[variable.path])
        for layer in flat_layers(model):
            for variable, kind in layer_kernels(layer):
                if kind == "depthwise":
                    variable.assign(start[variable.path])
    if mask == "channels":
        scale_channels(model, percent)
    prune(model, percent)
    return model


def scale_channels(model, percent):
    """Scale channels so that pruning will leave the share of dead ones that :data:`DEAD` states."""
    kernels = [np.asarray(variable) for _, variable in prunable(model)]
    draws = [np.random.default_rng(i).standard_normal(k.shape[-1]) for i, k in enumerate(kernels)]
    wanted = np.interp(percent, list(DEAD), list(DEAD.values()))

    def apply(spread):
        for (_, variable), kernel, draw in zip(prunable(model), kernels, draws, strict=True):
            variable.assign(kernel * np.exp(spread * draw))

    low, high = 0.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        apply(middle)
        prune(model, percent)
        low, high = (middle, high) if dead_channels(model) < wanted else (low, middle)
    apply(low)


def trained(path, epochs):
    """Kernels by path of the network that ``path`` holds, trained on digits if there is none."""
    if not path.exists():
        train(epochs).save(path)
    model = keras.saving.load_model(path)
    return {v.path: np.asarray(v) for layer in flat_layers(model) for v, _ in layer_kernels(layer)}


def train(epochs):
    source = Digits()
    pixels = source.images("train", np.arange(1797)).astype("float32").repeat(3, axis=-1)
    model = network(8, 10)
    for layer in flat_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    steps = epochs * 1797 // 128
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, steps), momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(pixels / 127.5 - 1, source.labels("train"), 128, epochs=epochs, verbose=2)
    return model


def settle(model, images):
    """Give BatchNorm scales, shifts and the statistics of ``images``."""
    rng = np.random.default_rng(0)
    for layer in flat_layers(model):  # constant channels of zero would be easier to remove
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    model(images, training=True)  # momentum 0: the moving statistics become this batch's


def photographs(size):
    """Two photographs and their mirror images, normalised, [4, size, size, 3]."""
    images = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name)).resize((size, size))
        images += [np.asarray(photo), np.asarray(photo)[:, ::-1]]
    return ((np.stack(images) / 255 - MEAN) / STD).astype("float32")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mask", choices=("magnitude", "channels", "trained"), default="magnitude")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[80, 88, 95])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each alternating run")
    parser.add_argument("--trained", type=Path, default=Path("trained.keras"),
                        help="file of the trained network; made if it is not there")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=8, help="of training on digits")
    options = parser.parse_args()
    start = trained(options.trained, options.epochs) if options.mask == "trained" else {}
    images = photographs(options.size)
    with tempfile.TemporaryDirectory() as temporary:
        compare(options, start, images, Path(temporary))


def compare(options, start, images, folder):
    def file(name, model):
        path = folder / f"{name}.tflite"
        path.write_bytes(litert.convert(model))
        return path

    dense = network(options.size, options.classes)
    settle(dense, images)
    files = {"dense": file("dense", fold(dense))}
    full = memory.sizes(files["dense"])
    print(f"dense {full.raw / 1e6:.2f} MB, gzip {full.gzip / 1e6:.2f} MB; mask: {options.mask}")
    print("pruned | dead | multiply-adds |    MB (share) |  gzip (share) | dense ms | "
          "masked ms  speed-up | compacted ms  speed-up | difference (of largest)")  # fmt: skip
    for percent in options.sparsity:
        model = pruned(options.mask, percent, options.size, options.classes, start)
        settle(model, images)
        expected = np.asarray(model(images[:1]))
        smaller = compact(model)
        files["masked"] = file("masked", fold(model))
        files["compacted"] = file("compacted", smaller)
        trials = browser.run(files, images[0], threads=options.threads, seconds=options.seconds)
        speed = {n: latency.summary(t.milliseconds) for n, t in trials.items()}
        gain = {n: speed["dense"].median_ms / speed[n].median_ms for n in speed}
        size = memory.sizes(files["compacted"])
        left = cost.surviving_multiply_adds(smaller) / cost.multiply_adds(dense)
        difference = np.abs(trials["compacted"].logits - expected).max()
        print(
            f"{percent:5g}% | {dead_channels(model):4.0%} | {left:13.1%} | "
            f"{size.raw / 1e6:5.2f} ({size.raw / full.raw:5.1%}) | "
            f"{size.gzip / 1e6:5.2f} ({size.gzip / full.gzip:5.1%}) | "
            f"{speed['dense'].median_ms:8.2f} | "
            f"{speed['masked'].median_ms:9.2f} {gain['masked']:8.2f}x | "
            f"{speed['compacted'].median_ms:12.2f} {gain['compacted']:8.2f}x | "
            f"{difference:.1e} ({difference / np.abs(expected).max():.1e})",
            flush=True,
        )


if __name__ == "__main__":
    main()
