"""Preprocessing of 1,000 ImageNet JPEGs to 256 x 256 pixels: Spark against a bare pool, and TFDS.

python benchmarks/preprocessing.py --source <folder of class folders> [--rounds 3] [--slow-rounds 1]
    [--copies 4]

The bare pool decodes and resizes, and keeps nothing: no file, no checksum, no statistics. Spark's
JVM is started before and its Python workers are warm, as in a job of more than a minute; each round
is a whole job to a manifest. TFDS writes with its default encoding of a Tensor.
"""

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
from measure import alternating, report

from lottery.data import images
from lottery.preprocess import job, processes, spark

SIDE = 256
PROCESSES = 2


@contextlib.contextmanager
def silence():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def decode_file(path):
    images.decode(Path(path).read_bytes(), (SIDE, SIDE, 3))


def repeated(source, copies, target):
    """The source with every image so many times, as links."""
    for path in source.glob("**/*.JPEG"):
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            (folder / f"{path.stem}_{copy}.JPEG").symlink_to(path)
    return target


def tfds_builder(paths):
    """A builder that maps the same function, to be given a folder."""
    import tensorflow_datasets as tfds

    class Images(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Tensor(shape=(SIDE, SIDE, 3), dtype=np.uint8),
                "label": tfds.features.Scalar(dtype=np.int64),
            }
            # Not from the module's folder, as for a published data set: this is a script.
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for label, path in enumerate(paths):
                image = images.decode(Path(path).read_bytes(), (SIDE, SIDE, 3))
                yield label, {"image": image, "label": label}

    return Images


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="of the comparison with TFDS; 0: none"
    )
    parser.add_argument("--shard-examples", type=int, help="of a task; by default 16 tasks")
    parser.add_argument("--copies", type=int, default=1, help="how often to take each image")
    arguments = parser.parse_args()

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = repeated(Path(arguments.source), arguments.copies, folder / "source")
        paths = sorted(str(p) for p in source.glob("**/*.JPEG"))
        facts = {"images": len(paths), "processes": PROCESSES}
        number = itertools.count()
        pool = stack.enter_context(multiprocessing.get_context("forkserver").Pool(PROCESSES))
        engines = {
            "Spark": stack.enter_context(
                spark.open_engine(f"local[{PROCESSES}]", {}, folder / "spark.log")
            ),
            "processes": stack.enter_context(processes.open_engine(PROCESSES)),
        }

        def bare():
            for _ in pool.imap_unordered(decode_file, paths, chunksize=25):
                pass

        def whole_job(name):
            def run():
                output = folder / str(next(number))
                options = job.Options(
                    str(source), str(output), size=SIDE, shard_examples=arguments.shard_examples
                )
                job._engine = lambda *_: contextlib.nullcontext(engines[name])
                with silence():
                    job.preprocess(options)

            return run

        variants = {"bare pool": bare, "Spark": whole_job("Spark")}
        variants["processes"] = whole_job("processes")
        report("preprocessing", "bare pool", alternating(variants, arguments.rounds), **facts)

        if not arguments.slow_rounds:
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        builder = tfds_builder(paths)

        def tfds():
            with silence():
                builder(data_dir=folder / str(next(number))).download_and_prepare()

        variants = {"Spark": whole_job("Spark"), "TFDS": tfds}
        report("preprocessing", "Spark", alternating(variants, arguments.slow_rounds), **facts)


if __name__ == "__main__":
    main()
