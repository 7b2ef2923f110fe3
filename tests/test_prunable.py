"""Which matrices of a network are pruned, whatever layers it is made of; what is left is named."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import TINY, composed
from keras import layers

from lottery import choices, experiment, models, tickets
from lottery.compaction.inference import compact, removed
from lottery.errors import ConfigError
from lottery.files import read_json
from lottery.masking import prunable
from lottery.models import cost, kernels
from lottery.runs import runs_of

CLASSES = 4


@keras.saving.register_keras_serializable("tests")
class Positions(layers.Layer):
    """A table of positions, and a matrix of a layer of no known kind."""

    def build(self, shape):
        self.table = layers.Embedding(shape[1], shape[2], name="table")
        self.table.build(())
        self.mix = self.add_weight(shape=(shape[2], shape[2]), name="mix")
        super().build(shape)

    def call(self, x):
        return x @ keras.ops.cast(self.mix, x.dtype) + self.table(np.arange(x.shape[1]))


def vit(input_shape, classes):
    """Two patches a side, one block with attention, and BatchNorm and a head in nested models."""
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 4, 4, name="patches")(image)
    x = layers.Reshape((-1, 8), name="tokens")(x)
    x = Positions(name="positions")(x)
    y = layers.LayerNormalization(name="norm")(x)
    y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    x = layers.Add(name="add")([x, y])
    x = layers.EinsumDense("abc,cd->abd", (x.shape[1], 5), name="einsum")(x)
    inner = [layers.Dense(6, name="inner"), layers.BatchNormalization(name="inner_norm")]
    x = keras.Sequential(inner, name="mlp")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    head = keras.Sequential([layers.Dense(classes, name="logits")], name="head")
    return keras.Model(image, head(x), name="vit")


PROJECTIONS = [f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")]
PRUNED = {"patches/kernel", *PROJECTIONS, "einsum/kernel", "mlp/inner/kernel", "head/logits/kernel"}
LEFT_OUT = {"positions/table/embeddings", "positions/mix"}


@pytest.fixture
def known_vit(monkeypatch):
    """The network above as a choice of ``model.name``, here in place of LeNet."""
    network = choices.model.find("lenet_300_100")
    monkeypatch.setattr(network, "build", lambda self, shape, classes: vit(shape, classes))


def built(**options):
    keras.utils.set_random_seed(0)
    return models.build("lenet_300_100", (8, 8, 1), CLASSES, **options)


@pytest.mark.slow
def test_attention_is_pruned_and_what_is_left_out_is_named(known_vit, lab, tmp_path, caplog):
    config = composed(*TINY, "mask.percentile=90", "data.classes=[0,1,2,3]", "trainer.epochs=1")
    experiment._warn_of_left_out.cache_clear()
    with caplog.at_level(logging.WARNING):
        result = experiment.find_ticket(config, lab)
    mask, ticket = result["mask"], runs_of(result)["ticket"]
    assert set(mask["layers"]) == PRUNED
    assert set(mask["left_out"]) == LEFT_OUT
    matrices = {path: w for path, w in ticket.weights().items() if path in PRUNED | LEFT_OUT}
    kept = sum(np.count_nonzero(w) for w in matrices.values())
    size = sum(w.size for w in matrices.values())
    assert (mask["kernels"], mask["density_of_kernels"]) == (size, kept / size)
    said = [r.getMessage() for r in caplog.records if "never pruned" in r.getMessage()]
    assert len(said) == 1
    assert all(path in said[0] for path in LEFT_OUT)
    assert read_json(ticket.path / "mask.json") == mask

    file = tmp_path / tickets.FILE
    tickets.write(tickets.of_run(ticket), file)
    network = tickets.read(file).model()
    smaller = compact(network)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(smaller(images), network(images), atol=1e-4)
    assert removed(network, smaller)["einsum"] == (5, 5)
    assert cost.surviving_multiply_adds(network) < cost.multiply_adds(network) / 4


def test_multiply_adds_of_attention(known_vit):
    tokens = 4
    assert cost.multiply_adds(built()) == tokens * (
        16 * 8 + 3 * 8 * 6 + 6 * 8 + 8 * 5 + 5 * 6
    ) + 6 * CLASSES  # fmt: skip


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_every_attention_has_the_kernels_of_its_projections(kind):
    heads = {"GroupQueryAttention": (4, 4, 2), "MultiHeadAttention": (4, 4)}[kind]
    tokens = keras.Input((5, 8))
    model = keras.Model(tokens, getattr(layers, kind)(*heads, name="attention")(tokens, tokens))
    found = kernels.kernels(model)
    matrices = [v.path for v in model.trainable_variables if v.path.endswith("/kernel")]
    assert sorted(k.path for k in found) == sorted(matrices)
    assert len(found) == 4
    assert kernels.left_out(model) == []


def test_layers_inside_others_are_normalised_and_frozen_like_the_rest(known_vit):
    model = built(sync_batch_norm=True, head_only=True)
    inside = {layer.name: layer for layer in kernels.flat_layers(model)}
    assert inside["inner_norm"].synchronized
    assert [v.path for v in model.trainable_variables] == ["head/logits/kernel", "head/logits/bias"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.LSTM(3, name="a"), {"kernel": (5, 12), "recurrent_kernel": (3, 12)}),
        (layers.GRU(3, name="a"), {"kernel": (5, 9), "recurrent_kernel": (3, 9)}),
        (layers.SimpleRNN(3, name="a"), {"kernel": (5, 3), "recurrent_kernel": (3, 3)}),
        (layers.TimeDistributed(layers.Dense(3, name="in"), name="a"), {"kernel": (5, 3)}),
        (layers.Conv1D(3, 2, name="a"), {"kernel": (2, 5, 3)}),
        (layers.Conv1DTranspose(3, 2, name="a"), {"kernel": (2, 3, 5)}),
        (
            layers.SeparableConv1D(3, 2, name="a"),
            {"depthwise_kernel": (2, 5, 1), "pointwise_kernel": (1, 5, 3)},
        ),
    ],
)  # fmt: skip
def test_kernels_of_sequences(layer, expected):
    steps = keras.Input((4, 5))
    model = keras.Model(steps, layer(steps))
    found = {k.path.rpartition("/")[2]: k.shape for k in kernels.kernels(model)}
    assert found == expected
    assert kernels.left_out(model) == []
    assert cost.multiply_adds(model) > 0


def test_recurrent_kernels_are_used_at_each_step_and_in_both_directions():
    steps = keras.Input((4, 5))
    model = keras.Model(steps, layers.Bidirectional(layers.LSTM(3, name="lstm"))(steps))
    assert len(kernels.kernels(model)) == 4
    assert cost.multiply_adds(model) == 2 * 4 * (5 * 12 + 3 * 12)


@pytest.mark.parametrize("layer", [layers.Conv3D(3, 2), layers.ConvLSTM2D(3, 2, padding="same")])
def test_kernels_of_volumes(layer):
    volume = keras.Input((4, 4, 4, 2))
    model = keras.Model(volume, layer(volume))
    assert {k.kind for k in kernels.kernels(model)} == {"conv"}
    assert kernels.left_out(model) == []
    assert cost.multiply_adds(model) > 0


class Means:
    """The mean of each column in place of every weight of it: as long, but not of its shape."""

    def scores(self, evidence):
        columns = ((p, np.abs(evidence.weights[p])) for p in evidence.paths)
        return {path: weights.mean(axis=0, keepdims=True) for path, weights in columns}


class Infinite:
    def scores(self, evidence):
        return {path: 1 / (0 * evidence.weights[path]) for path in evidence.paths}


def test_a_wrong_score_is_refused_before_anything_is_stored(lab, monkeypatch):
    config = composed(*TINY, "mask.percentile=50", "rewind.epoch=0", "trainer.epochs=1")
    for score, words in (
        (Means, r"magnitude scores fc1/kernel in shape \(1, 30\), but .* have shape \(64, 30\)"),
        (Infinite, r"scores fc1/kernel with 1920 values that are not finite, out of 1920"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(choices.score.find("magnitude"), "scores", score.scores)
            with pytest.raises(ConfigError, match=words):
                experiment.find_ticket(config, lab)
    assert experiment.find_ticket(config, lab)["mask"]["density"] == 0.5  # the corrected command


class Logarithms:
    def scores(self, evidence):
        return {path: np.log(np.abs(evidence.weights[path])) for path in evidence.paths}


def test_a_score_of_what_is_pruned_already_may_be_anything(lab, monkeypatch):
    """Minus infinity for a weight that is zero: the same weights go as by magnitude."""
    config = composed(
        *TINY, "mask=iterative", "mask.rate=50", "mask.percentile=75", "rewind.epoch=0",
        "trainer.epochs=1", "seed=3",
    )  # fmt: skip
    monkeypatch.setattr(choices.score.find("magnitude"), "scores", Logarithms.scores)
    mask = experiment.find_ticket(config, lab)["mask"]
    assert mask["kept"] == mask["prunable"] - mask["prunable"] * 3 // 4


@pytest.fixture
def mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("name", "options"),
    [("MobileNet", {"width": 0.25}), ("lenet_300_100", {}), ("mobilenet_v2", {"width": 0.1})],
)
def test_logits_are_computed_in_float32(name, options, mixed_precision):
    model = models.build(name, (32, 32, 3), CLASSES, **options)
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    logits = model(image)
    assert logits.dtype == "float32"
    rounded = keras.ops.cast(keras.ops.cast(logits, "bfloat16"), "float32")
    assert (np.array(logits) != np.array(rounded)).any()  # they were no 16-bit numbers before
    assert "bfloat16" in {layer.compute_dtype for layer in kernels.flat_layers(model)}


@pytest.mark.parametrize("mask", ["block_1x4", "4_of_8"])
def test_a_pattern_of_matrices_refuses_kernels_of_other_axes(mask):
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2DTranspose(8, 2, name="up")(inputs)
    model = keras.Model(inputs, layers.EinsumDense("bhwc,cd->bhwd", (9, 9, 8), name="mix")(x))
    found = SimpleNamespace(kernels=kernels.kernels(model))
    with pytest.raises(ConfigError, match="and those of up/kernel, mix/kernel are not: choose"):
        prunable(composed(*TINY, f"mask={mask}", "mask.skip_first=false"), found)
    assert prunable(composed(*TINY, "mask=magnitude"), found) == ["up/kernel", "mix/kernel"]
