"""Scores, against finite differences of a network in numpy whose passes are known exactly."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lottery import choices
from lottery.errors import ConfigError
from lottery.pruning import masks
from lottery.pruning.evidence import Evidence, Examples
from lottery.pruning.scores import needs, scored
from lottery.pruning.units import Ties

SIZES = {"a/kernel": (5, 6), "b/kernel": (6, 7), "c/kernel": (7, 3)}
PATHS = tuple(SIZES)
SCORES = ("grasp", "magnitude", "movement", "random", "snip", "synflow", "taylor")


def glorot(seed, sizes=SIZES):
    generator = np.random.default_rng(seed)
    return {p: generator.normal(size=s) / np.sqrt(s[0]) for p, s in sizes.items()}


class Network:
    """Dense layers with ReLU between them, three classes; remembers which passes were asked for."""

    def __init__(self, examples=24, batch=6):
        generator = np.random.default_rng(7)
        self.images = generator.normal(size=(examples, 5))
        self.labels = np.arange(examples) % 3
        self.batch = batch
        self.asked = Counter()

    def rows(self, examples):
        chosen = np.concatenate(
            [np.flatnonzero(self.labels == c)[: examples.per_class] for c in range(3)]
        )
        if examples.half is not None:
            chosen = chosen[examples.half :: 2]
        return chosen

    def loss(self, weights, rows, temperature=1.0):
        logits = self.images[rows]
        for path in weights:
            logits = logits @ weights[path]
            if path != list(weights)[-1]:
                logits = np.maximum(logits, 0)
        logits = logits / temperature
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -logits[np.arange(len(rows)), self.labels[rows]].mean()

    def gradient(self, weights, rows, temperature=1.0):
        inputs, paths = [self.images[rows]], list(weights)
        for path in paths[:-1]:
            inputs.append(np.maximum(inputs[-1] @ weights[path], 0))
        logits = inputs[-1] @ weights[paths[-1]] / temperature
        error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error[np.arange(len(rows)), self.labels[rows]] -= 1
        error /= len(rows) * temperature
        found = {}
        for path, x in zip(reversed(paths), reversed(inputs), strict=True):
            found[path] = x.T @ error
            error = (error @ weights[path].T) * (x > 0)
        return found

    def gradients(self, weights, examples, *, temperature=1.0):
        self.asked["gradients"] += 1
        rows = self.rows(examples)
        for first in range(0, len(rows), self.batch):
            yield self.gradient(weights, rows[first : first + self.batch], temperature)

    def hessian_product(self, weights, direction, examples, *, temperature=1.0):
        self.asked["hessian_product"] += 1
        step, rows = 1e-5, self.rows(examples)
        ahead, back = (
            self.gradient(moved(weights, direction, sign * step), rows, temperature)
            for sign in (1, -1)
        )
        return {p: (ahead[p] - back[p]) / (2 * step) for p in weights}

    def flow(self, weights):
        self.asked["flow"] += 1
        assert all(w.dtype == np.float64 for w in weights.values())
        matrices = [np.abs(w) for w in weights.values()]
        forth = [np.ones(matrices[0].shape[0])]
        for matrix in matrices[:-1]:
            forth.append(forth[-1] @ matrix)
        back = [np.ones(matrices[-1].shape[1])]
        for matrix in reversed(matrices[1:]):
            back.insert(0, matrix @ back[0])
        return {p: np.outer(f, b) for p, f, b in zip(weights, forth, back, strict=True)}


def moved(weights, direction, step):
    return {p: w + step * direction.get(p, 0) for p, w in weights.items()}


def evidence(network=None, *, allocation="global", pattern="weight", percentile=50.0, **more):
    weights = more.pop("weights", None) or glorot(0)
    mask = more.get("mask")
    if mask is not None:
        weights = {p: w * mask[p] for p, w in weights.items()}
    pruned = partial(
        masks.make,
        allocation=choices.allocation.find(allocation)(),
        pattern=choices.pattern.find(pattern)(),
        within=mask,
    )
    return Evidence(weights, tuple(weights), percentile, offered=network, pruned=pruned, **more)


def score(name, known, **options):
    return scored(choices.score.find(name)(**options), known)


def differences(function, weights, relative=1e-6):
    """Change of a function of the weights as one shrinks, over the share by which it does."""
    found = {}
    for path, w in weights.items():
        found[path] = np.zeros(w.shape)
        for at in np.ndindex(w.shape):
            ahead, back = dict(weights), dict(weights)
            for other, sign in ((ahead, 1), (back, -1)):
                other[path] = w.copy()
                other[path][at] *= 1 - sign * relative
            found[path][at] = (function(ahead) - function(back)) / (2 * relative)
    return found


def assert_close(given, expected, rtol=1e-5):
    scale = max(np.abs(e).max() for e in expected.values())
    for path in expected:
        np.testing.assert_allclose(given[path], expected[path], rtol=rtol, atol=1e-6 * scale)


def batches(network, per_class):
    rows = network.rows(Examples(per_class))
    return [rows[i : i + network.batch] for i in range(0, len(rows), network.batch)]


def test_snip_is_what_the_loss_of_each_batch_would_change_by():
    network, known = Network(), evidence(Network())
    changes = [
        differences(partial(network.loss, rows=rows), known.weights) for rows in batches(network, 6)
    ]
    assert len(changes) == 3
    expected = {p: sum(np.abs(c[p]) for c in changes) for p in PATHS}
    assert_close(score("snip", known, per_class=6), expected)


def test_gradients_of_opposite_sign_do_not_cancel_out():
    class Opposite(Network):
        def gradients(self, weights, examples, *, temperature=1.0):
            for sign in (1.0, -1.0):
                yield {p: np.full(w.shape, sign) for p, w in weights.items()}

    known = evidence(Opposite())
    weights = known.weights
    assert_close(score("snip", known), {p: 2 * np.abs(w) for p, w in weights.items()})
    assert_close(score("taylor", known), {p: w**2 for p, w in weights.items()})


def test_taylor_is_the_mean_square_of_what_the_loss_would_change_by():
    network, known = Network(), evidence(Network())
    changes = [
        differences(partial(network.loss, rows=rows), known.weights) for rows in batches(network, 6)
    ]
    expected = {p: sum(c[p] ** 2 for c in changes) / len(changes) for p in PATHS}
    assert_close(score("taylor", known, per_class=6), expected)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_removes_what_makes_the_gradient_larger(temperature):
    """The score is minus half of what the squared norm of the gradient would grow by."""
    network = Network(batch=12)
    known = evidence(network)

    def gradient(weights):
        halves = [
            network.gradient(weights, network.rows(Examples(8, half)), temperature)
            for half in (0, 1)
        ]
        return {p: (halves[0][p] + halves[1][p]) / 2 for p in weights}

    def squared_norm(weights):
        return sum((g**2).sum() for g in gradient(weights).values())

    growth = differences(squared_norm, known.weights, relative=1e-5)
    found = score("grasp", known, per_class=8, temperature=temperature)
    assert_close(found, {p: -g / 2 for p, g in growth.items()}, rtol=1e-3)
    mask = known.prune(found, 30)
    lost = np.concatenate([growth[p][~mask[p]] for p in PATHS])
    kept = np.concatenate([growth[p][mask[p]] for p in PATHS])
    assert lost.min() >= kept.max() - 1e-6 * abs(lost).max()


def test_grasp_looks_at_two_disjoint_halves_and_survivors_alone():
    seen = []

    class Watching(Network):
        def hessian_product(self, weights, direction, examples, *, temperature=1.0):
            seen.append((set(self.rows(examples)), direction, temperature))
            return super().hessian_product(weights, direction, examples, temperature=temperature)

    mask = {p: np.random.default_rng(1).random(s) < 0.5 for p, s in SIZES.items()}
    found = score("grasp", evidence(Watching(), mask=mask))
    first, second = (rows for rows, _, _ in seen)
    assert first
    assert second
    assert not first & second
    for _, direction, temperature in seen:
        assert temperature == 200
        assert all((direction[p][~mask[p]] == 0).all() for p in PATHS)
        assert any((direction[p] != 0).any() for p in PATHS)
    assert all((found[p][~mask[p]] == 0).all() for p in PATHS)


def test_synaptic_flow_is_conserved():
    """Every layer passes on all of it (Tanaka et al. 2020, theorem 2)."""
    network = Network()
    for rounds in (1, 30):
        known = evidence(network, percentile=80.0)
        found = score("synflow", known, rounds=rounds)
        sums = [s[s > 0].sum() for s in found.values()]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-12)
        assert sums[0] > 0


def rounds_by_hand(known, rounds):
    """SynFlow as its algorithm says it, with sorting of its own; global, by weight."""
    kept = {p: np.ones(s, bool) for p, s in SIZES.items()}
    size = sum(k.size for k in kept.values())
    for i in range(1, rounds + 1):
        masked = {p: known.weights[p] * kept[p] for p in PATHS}
        flow = Network().flow(masked)
        flat = np.concatenate([(np.abs(masked[p]) * flow[p]).ravel() for p in PATHS])
        flat[~np.concatenate([kept[p].ravel() for p in PATHS])] = -1
        density = (1 - known.percentile / 100) ** (i / rounds)
        order = np.argsort(flat, kind="stable")[: int(size * (1 - density) + 1e-9)]
        alive = np.ones(size, bool)
        alive[order] = False
        ends = np.cumsum([k.size for k in kept.values()])[:-1]
        parts = np.split(alive, ends)
        kept = {p: part.reshape(SIZES[p]) for p, part in zip(PATHS, parts, strict=True)}
    return kept


@pytest.mark.parametrize("percentile", [50.0, 80.0, 95.0])
def test_one_set_of_scores_ends_at_the_mask_of_the_last_round(percentile):
    known = evidence(Network(), percentile=percentile)
    mask = known.prune(score("synflow", known), percentile)
    expected = rounds_by_hand(known, 100)
    assert all((mask[p] == expected[p]).all() for p in PATHS)
    assert known.offered.asked["flow"] == 100


def test_the_density_falls_exponentially_from_what_is_left():
    asked, left = [], {"k": np.arange(1000).reshape(10, 100) < 800}

    class Even:
        def flow(self, weights):
            return {"k": np.ones((10, 100))}

    def pruned(scores, percentile):
        asked.append(percentile)
        return masks.make({"k": scores["k"]}, percentile, within=left, **options)

    options = {
        "allocation": choices.allocation.find("global")(),
        "pattern": choices.pattern.find("weight")(),
    }
    weights = {"k": np.where(left["k"], np.arange(1.0, 1001).reshape(10, 100), 0)}
    known = Evidence(weights, ("k",), 90.0, mask=left, offered=Even(), pruned=pruned)
    found = score("synflow", known, rounds=3)["k"]
    np.testing.assert_allclose(asked, [60, 80])  # 0.8 -> 0.4 -> 0.2 -> 0.1
    first, second, last = np.split(found.ravel()[:800], [400, 600])
    assert first.max() < second.min()
    assert second.max() < 0 < last.min()


def test_rounds_keep_layers_alive_that_one_shot_removes():
    sizes = {"wide": (40, 60), "neck": (60, 50), "out": (50, 3)}
    weights = {p: np.abs(w) for p, w in glorot(3, sizes).items()}
    left = {}
    for rounds in (1, 100):
        known = evidence(Network(), percentile=99.7, weights=weights)
        mask = known.prune(score("synflow", known, rounds=rounds), 99.7)
        left[rounds] = min(int(m.sum()) for m in mask.values())
    assert left[1] == 0
    assert left[100] > 0


@pytest.mark.parametrize("allocation", ["erk", "global", "layer", "rates"])
@pytest.mark.parametrize("pattern", ["block", "weight"])
def test_synflow_in_rounds_nests_with_every_allocation(allocation, pattern):
    first = evidence(Network(), allocation=allocation, pattern=pattern, percentile=30.0)
    mask = first.prune(score("synflow", first, rounds=5), 30)
    second = evidence(Network(), allocation=allocation, pattern=pattern, percentile=70.0, mask=mask)
    found = score("synflow", second, rounds=5)
    sparse = second.prune(found, 70)
    assert all((mask[p] | ~sparse[p]).all() for p in PATHS)
    removed = sum(int((~m).sum()) for m in sparse.values())
    assert 0.5 < removed / sum(m.size for m in sparse.values()) <= 0.7


def test_synflow_says_where_rounds_do_not_fit():
    known = evidence(Network(), allocation="lamp")
    with pytest.raises(ConfigError, match=r"mask\.score=synflow: .*lamp.*mask\.score\.rounds=100"):
        score("synflow", known)
    assert score("synflow", known, rounds=1)


def test_scores_of_weights_alone():
    weights = {"k": np.array([[-3.0, 0.1], [2.0, -0.2]])}
    start = {"k": np.array([[-2.5, -1.0], [2.0, 0.2]])}
    known = Evidence(weights, ("k",), 50.0, start=lambda: start)
    assert score("magnitude", known)["k"].tolist() == [[3, 0.1], [2, 0.2]]
    np.testing.assert_allclose(score("movement", known)["k"], [[0.5, -0.9], [0, 0]])
    by_weight = score("movement", known, of="weight")["k"]
    np.testing.assert_allclose(by_weight, [[0.5, 1.1], [0, 0.4]])


def test_random_goes_by_the_seed():
    zero, one = (score("random", evidence(seed=s)) for s in (0, 1))
    again = score("random", evidence(seed=0))
    assert all((zero[p] == again[p]).all() and (zero[p] != one[p]).any() for p in PATHS)
    flat = np.concatenate([s.ravel() for s in zero.values()])
    assert len(set(flat)) == flat.size


def test_random_gives_units_of_all_sizes_the_same_chance():
    sizes = {"small": (9, 40), "large": (900, 40)}
    ties = Ties({"small": list(range(40)), "large": list(range(40, 80))})
    shares = {path: [] for path in sizes}
    for seed in range(20):
        found = score("random", evidence(weights=glorot(0, sizes), seed=seed))
        mask = masks.make(
            found, 80.0, allocation=choices.allocation.find("global")(),
            pattern=choices.pattern.find("channel")(), ties=ties,
        )  # fmt: skip
        for path, kept in mask.items():
            shares[path].append(1 - kept.mean())
    assert [np.mean(s) for s in shares.values()] == pytest.approx([0.8, 0.8], abs=0.05)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_asks_for_what_it_says_and_for_nothing_else(name):
    network, loaded = Network(), []

    def start():
        loaded.append(1)
        return glorot(9)

    chosen = choices.score.find(name)()
    known = evidence(network, start=start)
    found = scored(chosen, known)
    assert list(found) == list(PATHS)
    assert ("initial" in needs(chosen)) == bool(loaded)
    assert ("network" in needs(chosen)) == bool(network.asked["flow"])
    assert ("labels" in needs(chosen)) == bool(network.asked["gradients"])
    assert len(loaded) <= 1
    without = replace(known, start=None, offered=None)
    if needs(chosen):
        (need,) = needs(chosen)
        said = "the weights at" if need == "initial" else "passes .*: add 'labels' to its needs"
        with pytest.raises(ConfigError, match=rf"mask\.score={name}: needs {said}"):
            scored(chosen, without)
    else:
        scored(chosen, without)


class Given:
    name = "mine"

    def __init__(self, found):
        self.found = found

    def scores(self, evidence):
        return self.found(evidence.weights)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda w: {"k": w["k"][0]}, r"scores k in shape \(2,\), but its weights have shape"),
        (lambda w: {"k": w["k"] * 1j}, "scores k by complex128 values, which have no order"),
        (lambda w: {"k": np.log(w["k"])}, "scores k with 1 values that are not finite, out of 4"),
        (lambda w: {}, "gives no scores of k"),
    ],
)
def test_what_is_no_score_is_said(found, said):
    known = Evidence({"k": np.array([[1.0, 2.0], [0.0, 3.0]])}, ("k",), 50.0)
    with pytest.raises(ConfigError, match=rf"mask\.score=mine {said}"):
        scored(Given(found), known)


def test_what_is_pruned_may_score_anything():
    mask = {"k": np.array([[True, True], [False, True]])}
    weights = {"k": np.array([[1.0, 2.0], [0.0, 3.0]])}
    known = Evidence(weights, ("k",), 50.0, mask=mask)
    found = scored(Given(lambda w: {"k": np.log(w["k"])}), known)["k"]
    assert found[1, 0] == 0
    assert np.isfinite(found).all()


def test_scores_are_found_by_name():
    assert choices.score.names() == SCORES
