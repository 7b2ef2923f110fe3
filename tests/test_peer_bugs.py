"""Bugs found in peers: each as a check that our code passes and a mutant with the bug does not.

A check looks at what a user gets: masks, stored states, metrics, the verdict. A mutation patches
the peer's bug into our code, and the check must then fail, or it would not notice the bug.
"""

import dataclasses
import functools
import itertools
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed, laboratory, pruned

from lottery import choices, experiment, files, lineage, models, rewinding, trainings
from lottery.data.arrays import ArraySplit
from lottery.models import kernels
from lottery.models.networks import _mobilenet_v2
from lottery.points import Point
from lottery.pruning import layers, masks
from lottery.rewinding import Start, with_counters
from lottery.runs import Run
from lottery.training import run as training
from lottery.training import severance
from lottery.training.checkpoints import CheckpointFolder
from lottery.training.loop import Loop
from lottery.training.masking import Masking
from lottery.training.recipe import from_scratch
from lottery.verdict import single

pytestmark = pytest.mark.slow

# Rewound to its last epoch a ticket trains nothing: enough, and quick, where only masks matter.
UNTRAINED = (*TINY, "rewind.epoch=2")
BATCH_NORM = (
    "model=resnet20", "model.width=0.25", "model.batch_norm_momentum=0.9", "data.classes=[0,1]",
    "trainer.batch_size=128", "trainer.epochs=2", "rewind.epoch=1", "logger=csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def dense_runs(tmp_path_factory, shallow):
    """A store with the dense runs that most checks start from, trained by our own code."""
    lab = laboratory(tmp_path_factory.mktemp("dense"))
    for overrides in (TINY, BATCH_NORM):
        experiment.train_dense(composed(*overrides), lab)
    return lab.store.root


@pytest.fixture(scope="module")
def shared_lab(dense_runs, tmp_path_factory):
    """Where our own code is checked: what one check has trained serves the next."""
    folder = tmp_path_factory.mktemp("ours")
    shutil.copytree(dense_runs, folder / "store")
    return laboratory(folder)


@pytest.fixture
def mutant_lab(dense_runs, tmp_path):
    """Where a mutant is checked: it must find nothing else that our own code has made."""
    shutil.copytree(dense_runs, tmp_path / "store")
    return laboratory(tmp_path)


def dense_and_ticket(lab, *overrides):
    result = experiment.find_ticket(composed(*overrides), lab)
    ticket = Run(lab.store.root / "ticket" / result["ticket"]["key"])
    return ticket.parent, ticket


def magnitude_mask(lab, percentile):
    config = composed(*TINY, f"mask.percentile={percentile}")
    dense = experiment.train_dense(config, lab)
    experiment.prepare(config, lab, [config])
    (only,) = lineage.lineage(config, lab.store).rounds
    return dense, masks.read(only.mask.path / "mask.safetensors")


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


# -- checks ------------------------------------------------------------------------------------


def depthwise_convolutions_have_nine_weights_a_channel(lab):
    model = models.build("mobilenet_v2", (8, 8, 1), 10, width=0.35)
    found = [layer for layer in model.layers if layer.name.endswith("_depthwise_conv")]
    assert len(found) == 17
    for layer in found:
        assert layer.count_params() == 9 * layer.output.shape[-1]


def a_kept_epoch_has_taken_as_many_steps(lab):
    config = composed(*TINY, "seed=1")  # no dense run to start from: the mutant trains its own
    dense = experiment.train_dense(config, lab)
    steps = trainings.load_data(config.data).train.size // config.trainer.batch_size
    assert dense.points == [Point(0), Point(1), Point(2)]
    for epoch in range(3):
        assert dense.state(epoch)["optimizer/iteration"] == epoch * steps


def a_ticket_trains_the_rest_of_the_schedule(lab):
    dense, ticket = dense_and_ticket(lab, *TINY)
    rest = [(2, dense.metrics[1]["learning_rate"])]
    assert [(r["epoch"], r["learning_rate"]) for r in ticket.metrics] == rest
    assert ticket.result["epochs"] == 1


def the_floor_of_the_percentile_is_removed(lab):
    for percentile in (10, 50, 88):
        kept = flat(magnitude_mask(lab, percentile)[1].values())
        assert (~kept).sum() == percentile * kept.size // 100


def ties_are_split_to_meet_the_percentile(lab):
    scores = {"kernel": np.repeat([1.0, 2.0, 3.0], 100).reshape(30, 10)}
    for percentile, expected in ((20, 60), (50, 150)):
        assert (~pruned(scores, percentile)["kernel"]).sum() == expected


def each_round_removes_its_share_of_the_survivors(lab):
    _, ticket = dense_and_ticket(lab, *UNTRAINED, "mask.rate=20", "mask.percentile=36")
    kept = flat(ticket.mask.values())
    assert kept.sum() == kept.size - 36 * kept.size // 100


def a_shuffled_mask_is_elsewhere(lab):
    _, ticket = dense_and_ticket(lab, *UNTRAINED, "mask.percentile=50")
    _, control = dense_and_ticket(lab, *UNTRAINED, "mask.percentile=50", "mask.shuffle=true")
    counts = [{path: m.sum() for path, m in run.mask.items()} for run in (ticket, control)]
    assert counts[0] == counts[1]
    agreement = (flat(ticket.mask.values()) == flat(control.mask.values())).mean()
    assert 0.45 < agreement < 0.6


def large_weights_survive_whatever_their_sign(lab):
    dense, mask = magnitude_mask(lab, 50)
    kept, trained = flat(mask.values()), flat(dense.weights()[path] for path in mask)
    assert abs(trained[kept]).min() >= abs(trained[~kept]).max()


def negative_survivors_learn_as_positive_ones_do(lab):
    _, ticket = dense_and_ticket(lab, *TINY, "rewind.optimizer=reset")
    before, after = ticket.weights(1), ticket.weights(2)
    kept = flat(ticket.mask.values())
    start = flat(before[path] for path in ticket.mask)[kept]
    moved = abs(flat(after[path] for path in ticket.mask)[kept] - start)
    assert moved[start < 0].mean() > moved[start > 0].mean() / 10


def nothing_of_batch_norm_is_prunable(lab):
    for name in ("resnet20", "mobilenet_v2"):
        model = models.build(name, (8, 8, 1), 10, width=0.25)
        norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        paths = masks.prunable(
            kernels.kernels(model), depthwise=True, skip_first=False, skip_last=False
        )
        assert norms
        assert not {v.path for layer in norms for v in layer.variables} & set(paths)


def the_verdict_follows_validation_whatever_the_test(lab):
    config = composed(*UNTRAINED)
    dense, ticket = dense_and_ticket(lab, *UNTRAINED)
    for val_top1, test_top1 in itertools.product((0.0, 1.0), repeat=2):
        figures = {"val_top1": val_top1, "test_top1": test_top1}
        altered = lab.store.root / f"altered-{val_top1}-{test_top1}"
        shutil.copytree(ticket.path, altered)
        files.write_json(altered / "result.json", ticket.result | figures)
        report = experiment.report(config, lab, dense, Run(altered))
        assert report["matched"] == (val_top1 == 1)


def every_example_is_evaluated(lab):
    config = composed(*TINY, "trainer.eval_batch_size=100")
    data = trainings.load_data(config.data)
    loop, _ = training.build(from_scratch(config, 1), data, {})
    for split in (data.validation, data.test):
        assert split.size % 100
        assert loop.evaluate(split).examples == split.size


def batch_norm_statistics_are_rewound(lab):
    dense, ticket = dense_and_ticket(lab, *BATCH_NORM)
    start, origin, final = ticket.state(1), dense.state(1), dense.state()
    statistics = [n for n in final if n.endswith(("/moving_mean", "/moving_variance"))]
    assert len(statistics) == 2 * 3
    for name in statistics:
        assert not np.array_equal(origin[name], final[name])
        assert np.array_equal(start[name], origin[name])


def pruned_weights_are_zero_in_every_checkpoint(lab):
    _, ticket = dense_and_ticket(lab, *TINY)
    for epoch, (path, mask) in itertools.product(ticket.points, ticket.mask.items()):
        assert not ticket.weights(epoch)[path][~mask].any()


def pruned_momentum_is_zero_in_every_checkpoint(lab):
    _, ticket = dense_and_ticket(lab, *TINY)
    for epoch, (path, mask) in itertools.product(ticket.points, ticket.mask.items()):
        momentum = ticket.state(epoch)[f"optimizer/{path.replace('/', '_')}_momentum"]
        assert momentum[mask].any()
        assert not momentum[~mask].any()


# -- mutations ---------------------------------------------------------------------------------


def lose_groups(patch):
    def convolution(size, strides, padding, *, depthwise_initializer, **options):
        return lambda x: keras.layers.Conv2D(
            x.shape[-1], size, strides, padding,
            kernel_initializer=depthwise_initializer, **options,
        )(x)  # fmt: skip

    layers = vars(keras.layers) | {"DepthwiseConv2D": convolution}
    patch.setattr(_mobilenet_v2, "layers", SimpleNamespace(**layers))


def save_an_epoch_late(patch):
    original = CheckpointFolder.save

    def save(self, state, progress, memory=None):
        original(self, state, progress, memory)
        kept = sorted(self.keep_steps)  # here 0, 1 and 2 epochs
        if progress.step == kept[2]:
            original(self, state, dataclasses.replace(progress, step=kept[1]))

    patch.setattr(CheckpointFolder, "save", save)


def restart_the_schedule(patch):
    patch.setattr(
        choices.rewinding.find("weights"),
        "rewind",
        lambda self, origin: Start(
            state=with_counters(origin.dense(origin.point), of=origin.dense(0))
        ),
    )


def remove_scores(below):
    """A mutation that removes what ``below(scores, sorted scores, count)`` says."""

    def mutate(patch):
        patch.setattr(layers, "lowest", lambda s, sizes, count: below(s, np.sort(s), count))

    return mutate


def count_zeros_in_every_round(patch):
    original = lineage.rounds
    patch.setattr(lineage, "rounds", lambda p, rate: [float(rate)] * len(original(p, rate)))


def shuffle_nothing(patch):
    patch.setattr(masks, "shuffle", lambda mask, seed, **options: dict(mask))


def forget_the_absolute_value(patch):
    patch.setattr(
        choices.score.find("magnitude"),
        "scores",
        lambda self, evidence: {path: evidence.weights[path] for path in evidence.paths},
    )


def freeze_weights_below_a_threshold(patch):
    original = Loop._gradients

    def gradients(self, inputs, labels):
        found, losses, logits = original(self, inputs, labels)
        pairs = zip(found, self.model.trainable_variables, strict=True)
        frozen = [g * tf.cast(v.value > 1e-6, g.dtype) if v.path in self.mask else g
                  for g, v in pairs]  # fmt: skip
        return frozen, losses, logits

    patch.setattr(Loop, "_gradients", gradients)


def find_kernels_by_name(patch):
    def found(layer):
        return [(v, "conv") for v in layer.trainable_variables if v.name in ("kernel", "gamma")]

    patch.setattr(kernels, "layer_kernels", found)


def judge_by_test(patch):
    patch.setattr(single, "share", lambda result: Fraction(result["test_top1"]))


def drop_the_last_batch(patch):
    original = ArraySplit.evaluation

    def evaluation(self, size, share):
        return original(self, size, share).take(self.size // size)

    patch.setattr(ArraySplit, "evaluation", evaluation)


def keep_trained_statistics(patch):
    kind = choices.rewinding.find("weights")
    original = kind.rewind

    def rewind(self, origin):
        start, final = original(self, origin), origin.final()
        kept = {n: a for n, a in final.items() if n.endswith(("/moving_mean", "/moving_variance"))}
        return dataclasses.replace(start, state={**start.state, **kept})

    patch.setattr(kind, "rewind", rewind)


def mask_only_weights(when):
    """A mutation that leaves gradients dense and zeroes weights ``before`` or ``after`` a step."""

    def mutate(patch):
        original, zero_pruned = Loop._step, Masking.zero_pruned

        def zero(loop):
            merge = tf.__internal__.distribute.interim.maybe_merge_call
            merge(functools.partial(zero_pruned, loop.masking), loop.strategy)

        def step(self, images, labels, step):
            if when == "before":
                zero(self)
            sums = original(self, images, labels, step)
            if when == "after":
                zero(self)
            return sums

        unchecked(patch)
        patch.setattr(Loop, "_step", step)
        patch.setattr(Masking, "survivors", lambda self, gradients: gradients)
        patch.setattr(Masking, "zero_pruned", lambda self, strategy: None)

    return mutate


def unchecked(patch):
    """Such a state is not saved otherwise, so no check here would come to see it."""
    patch.setattr(Masking, "check", lambda self, state, step: None)


def leave_old_momentum(patch):
    unchecked(patch)
    patch.setattr(severance.Severance, "closed", lambda self, state: state)
    original = rewinding.owner
    patch.setattr(
        rewinding, "owner", lambda n, paths: original(n, paths) if n.startswith("model/") else None
    )


def mask_only_gradients(patch):
    leave_old_momentum(patch)
    patch.setattr(Masking, "zero_pruned", lambda self, strategy: None)


# -- the table ---------------------------------------------------------------------------------

BUGS = [
    # TurboPrune: its masked convolution is built without ``groups``.
    ("groups lost", depthwise_convolutions_have_nine_weights_a_channel, lose_groups),
    # TurboPrune: the rewind checkpoint of epoch k is written after epoch k, counted from 0.
    ("saved after k+1 epochs", a_kept_epoch_has_taken_as_many_steps, save_an_epoch_late),
    # TurboPrune, CV_LTH: rewound weights get all epochs of the schedule again.
    ("k extra epochs", a_ticket_trains_the_rest_of_the_schedule, restart_the_schedule),
    # open_lth, SynFlow, TFMOT: the weight at the threshold is on the wrong side of it.
    ("one weight too few", the_floor_of_the_percentile_is_removed,
     remove_scores(lambda s, ranked, count: s < ranked[count - 1])),
    ("one weight too many", the_floor_of_the_percentile_is_removed,
     remove_scores(lambda s, ranked, count: s <= ranked[count])),
    # open_lth, SynFlow, TFMOT: all weights that equal the threshold share its fate.
    ("ties all kept", ties_are_split_to_meet_the_percentile,
     remove_scores(lambda s, ranked, count: s < ranked[count - 1])),
    ("ties all dropped", ties_are_split_to_meet_the_percentile,
     remove_scores(lambda s, ranked, count: s <= ranked[count - 1])),
    # Several: every round's percentile is taken over all weights, zeros included.
    ("zeros counted", each_round_removes_its_share_of_the_survivors, count_zeros_in_every_round),
    # SynFlow: the permuted mask is bound to a local name and never stored.
    ("shuffles nothing", a_shuffled_mask_is_elsewhere, shuffle_nothing),
    # rahulvigneswaran: weights below a threshold count as pruned, without an absolute value.
    ("negative weights pruned", large_weights_survive_whatever_their_sign,
     forget_the_absolute_value),
    ("negative weights frozen", negative_survivors_learn_as_positive_ones_do,
     freeze_weights_below_a_threshold),
    # Several in PyTorch: kernels are what is called "weight", as the scales of BatchNorm are.
    ("batch norm pruned", nothing_of_batch_norm_is_prunable, find_kernels_by_name),
    # Several: tickets are chosen by test accuracy …
    ("judged by test", the_verdict_follows_validation_whatever_the_test, judge_by_test),
    # … and that is measured with ``drop_last``.
    ("last batch dropped", every_example_is_evaluated, drop_the_last_batch),
    # Several: parameters are rewound, BatchNorm's moving statistics are not.
    ("statistics not rewound", batch_norm_statistics_are_rewound, keep_trained_statistics),
    # open_lth, TFMOT: masked before the forward pass only, so weights regrow in every step.
    ("weights regrow", pruned_weights_are_zero_in_every_checkpoint, mask_only_weights("before")),
    # jaxpruner: masked after the step only, so momentum is that of a dense network.
    ("momentum regrows", pruned_momentum_is_zero_in_every_checkpoint, mask_only_weights("after")),
    # rigl: only gradients are masked, and the momentum of before moves what is pruned.
    ("momentum moves the pruned", pruned_weights_are_zero_in_every_checkpoint,
     mask_only_gradients),
    # … and where weights are zeroed again after the step, that momentum stays all the same.
    ("momentum not zeroed", pruned_momentum_is_zero_in_every_checkpoint, leave_old_momentum),
]  # fmt: skip


@pytest.mark.parametrize("check", dict.fromkeys(c for _, c, _ in BUGS), ids=lambda c: c.__name__)
def test_ours_is_free_of_it(shared_lab, check):
    check(shared_lab)


@pytest.mark.parametrize(("check", "mutate"), [pytest.param(c, m, id=n) for n, c, m in BUGS])
def test_the_check_notices_it(mutant_lab, monkeypatch, check, mutate):
    mutate(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        check(mutant_lab)
    assert Path(caught.traceback[-1].path) == Path(__file__)  # not an assertion of the mutant's own
