"""Networks as LiteRT files, SavedModels and .keras files: what they compute, weigh and refuse."""

import dataclasses
import json
import resource
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import THOROUGH
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from lottery import models
from lottery.data.sources.digits import Digits
from lottery.errors import ExportError
from lottery.export import formats, interpreter, latency, litert, memory, metadata
from lottery.export.interpreter import predict
from lottery.models.kernels import flat_layers, layer_kernels

OWN = ("conv_2", "conv_4", "conv_6", "lenet_300_100", "mobilenet_v2", "resnet20")
SMALL = ("conv_2", "lenet_300_100")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def zoo(*values):
    return pytest.param(*values, marks=pytest.mark.zoo)


def images(count, shape=(32, 32, 3)):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


def network(name, share=0.88, *, width=0.25, classes=10, shape=(32, 32, 3)):
    """A network with random weights and statistics of which a share of the kernels is zero."""
    keras.utils.set_random_seed(0)
    model = models.build(name, shape, classes, width=width)
    rng = np.random.default_rng(0)
    for layer in flat_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            for variable in (layer.moving_mean, layer.beta):
                variable.assign(rng.normal(0, 0.1, variable.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        for variable, kind in layer_kernels(layer):
            kernel = np.asarray(variable)
            # As large as keeps the activations' scale.
            kernel = kernel / (kernel.std() * np.sqrt(np.prod(kernel.shape[:-1])))
            if kind != "depthwise":
                threshold = np.quantile(np.abs(kernel), share)
                kernel = kernel * (np.abs(kernel) > threshold) / np.sqrt(1 - share + 1e-3)
            variable.assign(kernel)
    return model


def saved(folder, content):
    file = folder / "model.tflite"
    file.write_bytes(content)
    return file


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A network that knows digits from pixels, its pixels [N, 8, 8, 1] and labels."""
    source = Digits()
    pixels = source.images("train", np.arange(1797)).astype("float32")
    labels = source.labels("train")
    keras.utils.set_random_seed(0)
    inner = models.build("conv_2", (8, 8, 1), 10, width=0.25)
    inner.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(True))
    inner.fit((pixels[:1400] / 255 - 0.3) / 0.4, labels[:1400], 64, epochs=8, verbose=0)
    return litert.with_normalisation(inner, [0.3], [0.4]), pixels, labels


# Conversion.


@pytest.mark.parametrize("name", [n if n in SMALL else zoo(n) for n in OWN])
def test_a_file_computes_what_keras_does_at_any_batch(name, tmp_path):
    model, x = network(name), images(40)
    expected = np.asarray(model(x))
    assert np.abs(expected).max() > 0.01  # else agreement would mean nothing
    file = saved(tmp_path, litert.convert(model))
    for batch in (1, 32):
        got = predict(file, x, batch=batch)
        assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_lower_precisions_keep_the_accuracy(precision, share, trained, tmp_path):
    model, pixels, labels = trained
    pruned = keras.models.clone_model(model)
    pruned.set_weights(model.get_weights())
    for layer in flat_layers(pruned):
        for variable, _ in layer_kernels(layer):
            kernel = np.asarray(variable)
            variable.assign(kernel * (np.abs(kernel) >= np.quantile(np.abs(kernel), share)))
    test, truth = pixels[1400:], labels[1400:]
    before = np.mean(np.asarray(pruned(test)).argmax(1) == truth)
    file = saved(tmp_path, litert.convert(pruned, precision, calibration=pixels[:200]))
    after = np.mean(predict(file, test).argmax(1) == truth)
    assert before > 0.8
    assert abs(after - before) < {"float16": 0.005, "int8": 0.015}[precision]


@pytest.mark.slow
def test_int8_takes_pixels_as_they_are(trained, tmp_path):
    model, pixels, _ = trained
    file = saved(tmp_path, litert.convert(model, "int8", calibration=pixels[:200]))
    entry = interpreter.Interpreter(file).input
    assert entry.dtype == np.uint8
    assert (entry.scale, entry.zero_point) == (1, 0)


@pytest.mark.zoo
def test_a_ticket_of_mobilenet_v2_takes_a_fifth_of_the_dense_file():
    size = {"shape": (8, 8, 3), "classes": 1000, "width": 1.0}
    dense = litert.convert(network("mobilenet_v2", 0.0, **size))
    ticket = network("mobilenet_v2", 0.88, **size)
    assert len(dense) > 4 * 3.4e6
    assert len(litert.convert(ticket)) <= len(dense) / 5
    assert len(litert.convert(ticket, "float16")) <= len(dense) / 7


@settings(max_examples=15 if THOROUGH else 5, deadline=None)
@given(
    st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 300), st.floats(0.2, 1.0),
    st.sampled_from(["float32", "float16"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_kernel_survives_its_sparse_form(side, inputs, outputs, share, precision, seed):
    """Also the shapes and shares at which the converter's own sparse form loses columns."""
    rng = np.random.default_rng(seed)
    image = keras.Input((4, 4, inputs))
    conv, dense = layers.Conv2D(outputs, side), layers.Dense(5)
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(conv(image))))
    for layer in (conv, dense):
        kernel = rng.normal(1, 0.1, layer.kernel.shape) * (rng.random(layer.kernel.shape) > share)
        layer.kernel.assign(kernel.astype("float16"))  # no rounding
    x = rng.random((2, 4, 4, inputs), "float32")
    expected = np.asarray(model(x))
    with tempfile.TemporaryDirectory() as folder:
        got = predict(saved(Path(folder), litert.convert(model, precision)), x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def row_bounds(model: bytes) -> list[list[int]]:
    """Of each sparse kernel: where its rows begin among its values, and where the last ends."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0]
    return [
        list(t.sparsity.dimMetadata[-1].arraySegments.values) for t in graph.tensors if t.sparsity
    ]


def test_outputs_without_a_weight_come_last_too(tmp_path):
    """The rows of the sparse form that are empty have their place in it, the last ones too."""
    image = keras.Input((64,))
    layer = layers.Dense(40)
    model = keras.Model(image, layer(image))
    kernel = np.zeros(layer.kernel.shape, "float32")
    kernel[3, [1, 7]] = 2.0
    layer.kernel.assign(kernel)
    written = litert.convert(model)
    assert len(written) < kernel.nbytes
    (segments,) = row_bounds(written)
    assert segments == [*[0] * 2, *[1] * 6, *[2] * 33], "a bound for each of 40 outputs"
    x = np.random.default_rng(0).random((5, 64), "float32")
    np.testing.assert_allclose(predict(saved(tmp_path, written), x), np.asarray(model(x)))


def test_a_nearly_empty_wide_layer_is_right(tmp_path):
    image = keras.Input((1278,))
    layer = layers.Dense(1000)
    model = keras.Model(image, layer(image))
    rng = np.random.default_rng(0)
    layer.kernel.assign(rng.random(layer.kernel.shape) * (rng.random(layer.kernel.shape) > 0.98))
    file = saved(tmp_path, litert.convert(model))
    x = rng.random((2, 1278), "float32")
    np.testing.assert_allclose(predict(file, x), np.asarray(model(x)), rtol=1e-4)
    assert file.stat().st_size < 0.02 * 1278 * 1000 * 6.6  # a value and a place of 16 bits each


@pytest.mark.slow
def test_normalisation_is_in_front_of_the_padding(tmp_path):
    model = network("mobilenet_v2", width=0.1, shape=(96, 96, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3)).astype("float32")
    expected = np.asarray(model((pixels / 255 - np.float32(MEAN)) / np.float32(STD)))
    whole = litert.with_normalisation(model, MEAN, STD)
    assert np.abs(np.asarray(whole(pixels)) - expected).max() < 1e-4
    file = saved(tmp_path, litert.convert(whole))
    assert np.abs(predict(file, pixels) - expected).max() < 1e-4


def test_conversion_says_nothing(capfd):
    litert.convert(network("lenet_300_100"), "int8", calibration=images(4))
    assert capfd.readouterr() == ("", "")


class Digamma(layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.math.digamma(x)


def test_an_operator_that_litert_lacks_is_named_in_one_line():
    image = keras.Input((8, 8, 3))
    with pytest.raises(ExportError) as caught:
        litert.convert(keras.Model(image, Digamma()(image)))
    message = str(caught.value)
    assert "Digamma" in message
    assert "LiteRT" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("precision", "message"), [("int8", "needs images to calibrate"), ("int4", "no precision int4")]
)
def test_impossible_precisions(precision, message):
    with pytest.raises(ExportError, match=message):
        litert.convert(network("lenet_300_100"), precision)


# Metadata.


ABOUT = metadata.About(
    "a network for digits", ("eins", "zwei\nzeilig", "drei"), 32, 3, "cut it", [0.0] * 3, [1.0] * 3,
    {"output": {"classes": ["eins", "zwei", "drei"]}},
)  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_metadata_changes_no_output_and_can_be_read(tmp_path, share):
    """By us, by unzip, and by the schema of LiteRT's metadata."""
    from ai_edge_litert import schema_py_generated as schema

    content = litert.convert(network("lenet_300_100", share))
    file = saved(tmp_path, metadata.attach(content, ABOUT))
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(content)
    np.testing.assert_array_equal(predict(file, images(4)), predict(plain, images(4)))
    assert metadata.read(file) == ABOUT.details
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode() == "eins\nzwei zeilig\ndrei\n"
    model = schema.Model.GetRootAs(file.read_bytes())
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    (entry,) = (e for e in entries if e.Name() == b"TFLITE_METADATA")
    standard = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert standard[4:8] == b"M001"
    for text in (b"a network for digits", b"cut it", b"labels.txt", b"lottery.json"):
        assert text in standard
    assert metadata.attach(content, ABOUT) == file.read_bytes(), "the same each time"


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_constants_are_aligned(share):
    """As the schema asks: at multiples of 16 bytes."""
    from ai_edge_litert import schema_py_generated as schema

    content = litert.convert(network("conv_2", share))
    for written in (metadata.attach(content, ABOUT), *([content] if share else [])):
        model = schema.Model.GetRootAs(written)
        buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
        starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
        assert len(starts) > 4
        assert {start % 16 for start in starts} == {0}


def test_a_file_that_says_nothing_of_itself(lenet):
    with pytest.raises(ExportError, match=r"does not say what it is: it has no lottery\.json"):
        metadata.read(lenet)


# Running.


@pytest.fixture(scope="session")
def lenet(tmp_path_factory):
    file = tmp_path_factory.mktemp("lenet") / "model.tflite"
    file.write_bytes(litert.convert(network("lenet_300_100")))
    return file


@pytest.mark.parametrize("count", [0, 1, 31, 33])
def test_any_number_of_images(lenet, count):
    x = images(count)
    assert predict(lenet, x).shape == (count, 10)
    np.testing.assert_allclose(predict(lenet, x), predict(lenet, x, batch=1), atol=1e-5)


def test_images_of_another_size(lenet):
    with pytest.raises(ExportError, match="takes images of 32x32x3, not 8x8x1"):
        predict(lenet, images(2, (8, 8, 1)))


@pytest.mark.parametrize("content", [None, b"", b"no network" * 100])
def test_a_file_that_is_none(tmp_path, content):
    file = tmp_path / "model.tflite"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExportError, match="LiteRT cannot run") as caught:
        predict(file, images(1))
    assert len(str(caught.value).splitlines()) == 1


# Formats.


def test_all_formats_compute_the_same(tmp_path):
    import tensorflow as tf

    model, x = network("conv_2"), images(4)
    expected = np.asarray(model(x))
    paths = formats.write(model, tmp_path / "export", precisions=("float32", "float16"))
    assert set(paths) == {"keras", "litert-float32", "litert-float16", "savedmodel"}
    assert {p.name for p in paths.values()} == {p.name for p in (tmp_path / "export").iterdir()}
    loaded = keras.saving.load_model(paths["keras"])
    np.testing.assert_array_equal(np.asarray(loaded(x)), expected)
    served = tf.saved_model.load(str(paths["savedmodel"]))
    np.testing.assert_allclose(served.serve(x), expected, atol=1e-5)
    np.testing.assert_allclose(predict(paths["litert-float32"], x), expected, atol=1e-4)


def test_nothing_is_overwritten_without_force(tmp_path):
    first, second = network("lenet_300_100", 0.5), network("lenet_300_100", 0.9)
    paths = formats.write(first, tmp_path, ("litert", "savedmodel"))
    before = paths["litert-float32"].read_bytes()
    with pytest.raises(ExportError, match=r"would be overwritten.*force=true") as caught:
        formats.write(second, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "model.keras").exists()  # it is said before anything is written
    assert paths["litert-float32"].read_bytes() == before
    formats.write(second, tmp_path, ("litert", "savedmodel"), force=True)
    assert paths["litert-float32"].read_bytes() != before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_export_leaves_what_was_there(tmp_path):
    image = keras.Input((8, 8, 3))
    (tmp_path / "model-float32.tflite").write_bytes(b"old")
    with pytest.raises(ExportError, match="Digamma"):
        formats.write(keras.Model(image, Digamma()(image)), tmp_path, ("litert",), force=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_full_disk_is_one_line(tmp_path):
    """TensorFlow's own error, which is no OSError: here no file may grow beyond 4 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = network("lenet_300_100")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ExportError, match=r"the SavedModel cannot be written: .*too large"):
            formats.write(model, tmp_path, ["savedmodel"])
        with pytest.raises(OSError, match=r"File too large: .*model\.keras"):
            formats.write(model, tmp_path, ["keras"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_an_unknown_format(tmp_path):
    with pytest.raises(ExportError, match="no format onnx; there are keras, litert, savedmodel"):
        formats.write(network("lenet_300_100"), tmp_path, ("onnx",))


# Measurements.


def test_a_comparison_is_of_medians_with_quartiles():
    times = {"dense": [4.0, 1.0, 3.0, 2.0, 100.0], "ticket": [1.0, 1.0, 1.0, 2.0, 0.5]}
    got = latency.compare("litert", times, precision="int8", batch=32, threads=2)
    assert got.dense == latency.Latency(3.0, 2.0, 4.0)
    assert got.ticket == latency.Latency(1.0, 1.0, 1.0)
    assert got.speedup == 3.0
    assert (got.precision, got.batch, got.threads) == ("int8", 32, 2)


def test_variants_run_in_turn():
    calls = []
    times = latency.alternating({n: lambda n=n: calls.append(n) for n in "ab"}, seconds=0)
    assert calls == ["a", "b"] * (len(calls) // 2)
    assert len(times["a"]) == len(times["b"]) == latency.FEWEST == len(calls) // 2 - latency.WARMUP


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (32, 2)])
def test_litert_files_are_timed(lenet, batch, threads):
    got = latency.litert(lenet, lenet, batch=batch, threads=threads, seconds=0.1)
    assert (got.runtime, got.batch, got.threads) == ("litert", batch, threads)
    assert 0 < got.ticket.low_ms <= got.ticket.median_ms <= got.ticket.high_ms


@pytest.mark.slow
def test_keras_files_are_timed_in_a_process_of_their_own(tmp_path, monkeypatch):
    for name, width in (("dense", 1.0), ("ticket", 0.1)):
        network("lenet_300_100", width=width).save(tmp_path / f"{name}.keras")
    small, large = latency.keras(
        tmp_path / "dense.keras", tmp_path / "ticket.keras", batches=(1, 256), seconds=0.2
    )
    assert (small.runtime, small.batch, large.batch, large.threads) == ("keras", 1, 256, 1)
    assert large.dense.median_ms > small.dense.median_ms
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ExportError, match=r"TensorFlow did not run .*dense\.keras"):
        latency.keras(tmp_path / "dense.keras", tmp_path / "ticket.keras")


def test_sizes(tmp_path, lenet):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zeros").write_bytes(bytes(100_000))
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(1000))
    got = memory.sizes(tmp_path)
    assert got.raw == 101_000
    assert 1000 < got.gzip < 1300
    assert memory.sizes(lenet).raw == lenet.stat().st_size


@pytest.mark.slow
def test_memory_counts_weights_and_activations(tmp_path):
    weights = 4 * 3072 * 3000
    image = keras.Input((32, 32, 3))
    wide = layers.Dense(10)(layers.Dense(3000)(layers.Flatten()(image)))
    file = saved(tmp_path, litert.convert(keras.Model(image, wide)))
    alone = memory.peak(file)
    assert weights < alone < 5 * weights
    assert memory.peak(file, batch=512) > alone + 4 * 512 * 3072
    with pytest.raises(ExportError, match="LiteRT cannot run"):
        memory.peak(tmp_path / "none.tflite")


@pytest.mark.slow
def test_memory_of_a_keras_file_counts_its_weights(tmp_path):
    peaks = []
    for width in (1, 2000):
        model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(width)])
        model.save(tmp_path / f"{width}.keras")
        peaks.append(memory.peak(tmp_path / f"{width}.keras"))
    assert peaks[1] > peaks[0] + 4 * 1000 * 2000


def test_what_is_measured_fits_json(lenet):
    got = latency.litert(lenet, lenet, seconds=0)
    entry = json.loads(json.dumps(dataclasses.asdict(got)))
    assert set(entry) == {
        "runtime", "precision", "batch", "threads", "dense", "ticket", "speedup",
    }  # fmt: skip
    assert set(entry["dense"]) == {"median_ms", "low_ms", "high_ms"}
