"""Where input costs: the study's stages, augmentation, records against one cached batch.

python benchmarks/input_pipeline.py stages|augmentation|training|growth --data <class folders>

`stages` feeds a simulated device, which sleeps, from original JPEGs in each of the study's ways and
from records; `augmentation` is per example against per batch at 32, 96 and 224 pixels; `training`
is real training steps on records against the same steps on one cached batch; `growth` is images/s
and memory for 1,000, 10,000 and 100,000 records.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measure import alternating, report

from lottery import choices, models
from lottery.data import Chunk
from lottery.data.preprocessing import Preprocessing
from lottery.data.records import RecordSplit
from lottery.training import devices
from lottery.training.loop import Loop

REPOSITORY = Path(__file__).parents[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STORED, SIZE, BATCH = 256, 224, 64
DEVICE_RATE = 2000  # images/s of the simulated device; a MobileNetV2 on one GPU takes about as many


# -- the study's stages --------------------------------------------------------------------------


def decode(path):
    return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)


def example(path, seed):
    """One image in the naive way: decode, crop a random area, resize, flip, normalise."""
    image = decode(path)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image), tf.zeros([1, 0, 4]), [seed, 0], min_object_covered=0.0,
        area_range=(0.08, 1.0), use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    image = tf.image.resize(tf.slice(image, begin, extent), (SIZE, SIZE))
    image = tf.image.stateless_random_flip_left_right(image, [seed, 1])
    return (image / 255 - MEAN) / STD


def cropped(path, seed):
    """One image, decoded only where the crop is, left as uint8."""
    content = tf.io.read_file(path)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(content), tf.zeros([1, 0, 4]), [seed, 0],
        min_object_covered=0.0, area_range=(0.08, 1.0), use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    image = tf.image.decode_and_crop_jpeg(content, window, channels=3)
    return tf.cast(tf.image.resize(image, (SIZE, SIZE)), tf.uint8)


@tf.function(jit_compile=True)
def finished(images, step):
    """Flip and normalise a whole batch."""
    return Preprocessing((SIZE, SIZE, 3), 0, True, MEAN, STD).training(images, seed=0, step=step)


def shuffled(paths):
    return tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).enumerate()


def serial(paths):
    return shuffled(paths).map(lambda i, p: example(p, i)).batch(BATCH, drop_remainder=True)


def parallel(paths):
    examples = shuffled(paths).map(lambda i, p: example(p, i), num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(BATCH, drop_remainder=True)


def vectorised(paths):
    examples = shuffled(paths).map(lambda i, p: cropped(p, i), num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(BATCH, drop_remainder=True).enumerate()
    return batches.map(lambda i, images: finished(images, i)).prefetch(tf.data.AUTOTUNE)


def records(split, size=BATCH):
    steps = split.size // size
    chunks = [Chunk(step, 1) for step in range(steps)]
    return split.training(chunks, batch_size=size, steps_per_epoch=steps, seed=0)


def augmented(split):
    """Records with all that the device would do, done by this machine's cores."""
    p = Preprocessing((SIZE, SIZE, 3), 0, True, MEAN, STD, crop_area=(0.08, 1.0))
    work = tf.function(lambda x, i: p.training(x, seed=0, step=i), jit_compile=True)
    batches = records(split)

    def run():
        for i, (images, _) in enumerate(batches):
            work(images[0], tf.constant(i, tf.int64))

    return run


def drained(dataset, device_seconds=0.0):
    """Take every batch as a device would that needs so long for each."""

    def run():
        for _ in dataset:
            time.sleep(device_seconds)

    return run


def records_in(folder: Path) -> Any:
    return choices.source.of({"source": "records", "dir": str(folder), "in_memory": False})


def everything(config):
    """All images as one split: of a sample with an image a class, nothing can be held out."""
    source = config.open()
    labels = source.labels("train")
    return source.stream("train", np.arange(len(labels)), labels)


def stages(options):
    paths = sorted(str(p) for p in Path(options.data).glob("*/*") if p.is_file())
    paths = paths[: len(paths) // BATCH * BATCH]
    with prepared(options.data, STORED) as folder:
        split = everything(records_in(folder))
        split = RecordSplit(split.path, split.rows[: len(paths)], split.labels[: len(paths)])
        ways = {
            "serial": serial(paths),
            "parallel map": parallel(paths),
            "and prefetch": parallel(paths).prefetch(tf.data.AUTOTUNE),
            "and vectorised": vectorised(paths),
            "offline: records": records(split),
        }
        scale = split.size // BATCH * BATCH / len(paths)
        alone = alternating(
            {name: drained(way) for name, way in ways.items()}
            | {"records, augmented here": augmented(split)},
            options.rounds,
        )
        report_rates("input alone", "parallel map", alone, len(paths), scale)
        device = {name: drained(way, BATCH / DEVICE_RATE) for name, way in ways.items()}
        fed = alternating(device, options.rounds)
        report_rates(f"a device of {DEVICE_RATE} images/s", "parallel map", fed, len(paths), scale)


def report_rates(what, baseline, seconds, images, scale):
    # Records lack the images held out for validation and test.
    seconds = {
        name: [s / scale if "records" in name else s for s in own] for name, own in seconds.items()
    }
    rates = {name: round(images / float(np.median(own))) for name, own in seconds.items()}
    report("stages", baseline, seconds, what=what, images=images, images_per_second=rates)


# -- augmentation --------------------------------------------------------------------------------


def augmentation(options):
    for size, stored, padding, batch in ((32, 32, 4, 256), (96, 112, 0, 128), (224, 256, 0, 64)):
        p = Preprocessing((size, size, 3), padding, True, MEAN, STD)
        steps = 8
        pixels = np.random.default_rng(0).integers(0, 256, (batch, stored, stored, 3), np.uint8)
        images = tf.constant(pixels)

        def one(i, image, size=size, padding=padding):
            if padding:
                image = tf.pad(image, [[padding, padding], [padding, padding], [0, 0]])
            image = tf.image.stateless_random_crop(image, (size, size, 3), [0, i])
            image = tf.image.stateless_random_flip_left_right(image, [1, i])
            return (tf.cast(image, tf.float32) / 255 - MEAN) / STD

        each = tf.data.Dataset.from_tensor_slices(images).repeat(steps).enumerate()
        each = each.map(one, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)
        plain, compiled = (
            tf.function(lambda x, i, p=p: p.training(x, seed=0, step=i), jit_compile=jit)
            for jit in (False, True)
        )

        def whole(call, images=images, steps=steps):
            return lambda: [call(images, tf.constant(i, tf.int64)) for i in range(steps)]

        seconds = alternating(
            {
                "per example": drained(each.prefetch(tf.data.AUTOTUNE)),
                "per batch, TensorFlow's kernels": whole(plain),
                "per batch, compiled (ours)": whole(compiled),
            },
            options.rounds,
        )
        report("augmentation", "per example", seconds, size=size, batch=batch,
               images_per_second={k: round(steps * batch / float(np.median(s)))
                                  for k, s in seconds.items()})  # fmt: skip


# -- training ------------------------------------------------------------------------------------


def training(options):
    size, stored, batch, steps = 96, 112, 32, 8
    keras.utils.set_random_seed(0)
    loop = Loop(
        network=lambda: models.build("mobilenet_v2", (size, size, 3), 1000),
        optimizer=lambda: keras.optimizers.SGD(0.01, momentum=0.9),
        preprocessing=Preprocessing((size, size, 3), 0, True, MEAN, STD, crop_area=(0.08, 1.0)),
        batch_size=batch,
        eval_batch_size=batch,
        seed=0,
        strategy=devices.strategy("one"),
    )
    with prepared(options.data, stored) as folder:
        config = records_in(folder)
        feed = records(everything(config), batch).take(steps)
        cached = next(iter(feed))

        def step(images, labels, i):
            return loop._train_call(images, labels, tf.constant(i, tf.int64)).numpy()

        seconds = alternating(
            {
                "one cached batch": lambda: [step(*cached, i) for i in range(steps)],
                "records": lambda: [step(*each, i) for i, each in enumerate(feed)],
            },
            options.rounds,
        )
    report("training", "one cached batch", seconds, size=size, batch=batch, steps=steps)


# -- growth --------------------------------------------------------------------------------------


def growth(options):
    """Each size in a process of its own, so that memory is its own."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for count in (1_000, 10_000, 100_000):
            path = Path(folder) / "images.npy"
            write_synthetic(path, count)
            subprocess.run([sys.executable, __file__, "grown", "--data", str(path)], check=True)


def write_synthetic(path, count):
    """``count`` records, copies of a thousand."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, STORED, STORED, 3), np.uint8)
    with path.open("wb") as file:
        shape = (count, STORED, STORED, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(count // 1000):
            file.write(pixels.data)


def grown(options):
    count = len(np.load(options.data, mmap_mode="r"))
    split = RecordSplit(Path(options.data), np.arange(count), np.zeros(count, np.int32))
    steps = split.size // BATCH
    taken, seconds = 150, []
    chunks = [
        Chunk(epoch * steps + s, 1) for epoch in range(taken // steps + 1) for s in range(steps)
    ]
    dataset = split.training(chunks, batch_size=BATCH, steps_per_epoch=steps, seed=0)
    before = own_memory()
    for _ in range(2):
        started = time.perf_counter()
        for _batch in dataset.take(taken):
            pass
        seconds.append(time.perf_counter() - started)
    report("growth", "records", {"records": seconds}, records=count,
           images_per_second=round(taken * BATCH / min(seconds)),
           own_memory_mib=round(own_memory()), before_mib=round(before))  # fmt: skip


def own_memory():
    """MiB of this process that are not pages of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@contextlib.contextmanager
def prepared(source, size):
    """The images as preprocess.py prepares them."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, REPOSITORY / "preprocess.py", f"source={source}", f"output={folder}/r",
             f"size={size}", "preprocess=processes", "max_unreadable=10"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        yield Path(folder) / "r"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stages", "augmentation", "training", "growth", "grown"))
    parser.add_argument("--data", help="folder of class folders of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", help="where growth may write 20 GB")
    options = parser.parse_args()
    globals()[options.what](options)


if __name__ == "__main__":
    main()
