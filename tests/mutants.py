"""Small, plausible slips planted in the code one at a time: does a test notice?

    python tests/mutants.py                    all, each against the tests that name its module:
                                               those of `uv run pytest`, then those of CI
    python tests/mutants.py --part 0/2         every second of them, to run beside --part 1/2
    python tests/mutants.py "ranks dense" …    those whose names contain one of these
    python tests/mutants.py --suite …          against `uv run pytest`, up to the first failure
    python tests/mutants.py --ci …             against all that CI runs
    python tests/mutants.py --check            only whether each text is there, exactly once

Each is planted in a copy of the working tree, which may be edited meanwhile. The exit code is the
number of survivors.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "lottery"
SURVIVED = "SURVIVED"
ENDLESS = 3600  # seconds that the tests of a slip may take; some slips make a test wait for ever


@dataclass(frozen=True)
class Mutant:
    """``old`` occurs exactly once in ``file`` (below src/lottery) and becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...] = ()
    """Test files that see it although they do not name the module."""


MUTANTS = [
    # -- masks and rounds
    Mutant(
        "later rounds rank dense", "masking.py",
        "(ranked.weights(), None)", "(dense.weights(), None)",
        "right for a one-shot mask, where the two are one",
        ("test_laws.py",),
    ),
    Mutant(
        "later rounds start from dense", "experiment.py",
        "final=ranked.state,", "final=dense.state,",
        "right for a one-shot mask, and for every rewinding to weights",
        ("test_masks.py", "test_training.py"),
    ),
    Mutant(
        "what is pruned competes again", "pruning/patterns/weight.py",
        "if within is None else np.flatnonzero(within[path])", "if True else None",
        "right for magnitudes, wrong for scores that may be negative",
        ("test_laws.py", "test_pruning_masks.py"),
    ),
    Mutant(
        "a round forgets the mask before", "masking.py",
        "within = ranked.mask or None", "within = None",
        "magnitudes of what is pruned are zero, so they are lowest anyway",
        ("test_laws.py", "test_masks.py", "test_training.py"),
    ),
    Mutant(
        "grasp removes the lowest", "pruning/scores/grasp.py",
        "{path: weights[path] * curved[path]", "{path: -weights[path] * curved[path]",
        "the score of the paper, of which the highest go",
        ("test_pruning_scores.py",),
    ),
    Mutant(
        "snip by the mean gradient", "pruning/scores/snip.py",
        "total[path] += np.abs(weights[path] * gradients[path])",
        "total[path] = np.abs(total[path] + weights[path] * gradients[path])",
        "right for one batch",
        ("test_pruning_scores.py",),
    ),
    Mutant(
        "synflow in one round", "pruning/scores/synflow.py",
        "for i in range(1, self.rounds)]", "for i in range(0)]",
        "the last round's scores have the right form",
        ("test_pruning_scores.py",),
    ),
    Mutant(
        "erk clamps", "pruning/allocations/erk.py",
        "        low, high = 0.0, float((most / shares).max()) + 1",
        "        low = high = (size - goal) / shares.sum()",
        "right as long as no layer saturates, but for rounding",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "lamp without the sum", "pruning/allocations/lamp.py",
        "squares / np.where(rest > 0, rest, 1.0)", "squares",
        "layers are still made comparable, by their largest",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "half a rate of all that was", "pruning/allocations/rates.py",
        "floor(loss * (layer.size - layer.dead))", "floor(loss * layer.size)",
        "right in the first round",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "channels of a dense kernel go", "pruning/patterns/channel.py",
        "if path not in shapes]", "if path in ()]",
        "right where all that is tied is pruned",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "n of m along the outputs", "pruning/patterns/n_of_m.py",
        "_INPUTS = -2", "_INPUTS = -1",
        "counts are right, and square kernels divide alike",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "a unit is as large as it was", "pruning/units.py",
        "sizes = units.sums(alive)\n",
        "sizes = units.sums({p: a | True for p, a in alive.items()})\n",
        "right in the first round",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "ties without what must stay", "compaction/ties.py",
        "free = used[~fixed[used]]", "free = used",
        "the ties are right, and the head goes too",
    ),
    Mutant(
        "layers shuffled alike", "pruning/patterns/weight.py",
        "{path: generator.permutation(m.ravel())",
        "{path: np.random.Generator(np.random.PCG64(0)).permutation(m.ravel())",
        "counts are right, and each layer looks random",
        ("test_laws.py", "test_pruning_masks.py"),
    ),
    Mutant(
        "the last tie goes first", "pruning/layers.py",
        "marks[ties[: count -", "marks[ties[::-1][: count -",
        "the count is right",
        ("test_pruning_masks.py",),
    ),
    Mutant(
        "depthwise never pruned", "pruning/masks.py",
        'if depthwise or k.kind != "depthwise"', 'if k.kind != "depthwise"',
        "no default differs for networks without such layers",
    ),
    Mutant(
        "density of all counts kernels only", "pruning/masks.py",
        "(whole.parameters - size + kept) / whole.parameters", "kept / whole.parameters",
        "differs by the biases only, and those are few",
    ),
    Mutant(
        "a last round twice", "pruning/allocation.py",
        "(1 - survivors), DECIMALS)) < target", "(1 - survivors), DECIMALS)) <= target",
        "only targets that are a rung themselves tell",
    ),
    Mutant(
        "iterative with a binary rate", "pruning/allocation.py",
        "return Decimal(repr(float(value)))", "return Decimal(float(value))",
        "wrong by one weight in a few cases",
    ),
    # -- order and splits
    Mutant(
        "each epoch in the same order", "data/order.py",
        "tf.cast(epoch, tf.uint32)]", "tf.cast(0 * epoch, tf.uint32)]",
        "trains nearly as well",
        ("test_data.py",),
    ),
    Mutant(
        "batches overlap", "data/order.py",
        "first = (first_step % steps_per_epoch) * batch_size",
        "first = first_step % steps_per_epoch",
        "sizes and labels are right, examples repeat",
        ("test_data.py",),
    ),
    Mutant(
        "a padded example counts", "data/order.py",
        "return rows % count, rows < count", "return rows % count, rows <= count",
        "whole batches are right",
        ("test_data.py",),
    ),
    Mutant(
        "members depend on other classes", "data/splits.py",
        "rank < (quotas + rounded_up)[classes]",
        "rank < (quotas + rounded_up).sum() // len(quotas)",
        "sizes and shares are right",
    ),
    Mutant(
        "held out rounded down", "data/splits.py",
        "return min(floor(count * _exact(fraction) + Fraction(1, 2)),",
        "return min(floor(count * _exact(fraction)),",
        "one example less, in half of the cases",
    ),
    Mutant(
        "classes renumbered by value", "data/splits.py",
        "renumbered[list(classes)] = np.arange", "renumbered[sorted(classes)] = np.arange",
        "right for classes in ascending order",
    ),
    # -- sweeps and callbacks
    Mutant(
        "a dense network that is done has no job", "sweep/staged.py",
        "return not who(job.node)", "return not job.node.done and not who(job.node)",
        "then every cell replays the state that it lacks, or waits for the one that does",
    ),
    Mutant(
        "early tickets count once more", "sweep/plan.py",
        "if k not in counted", "if k not in ()",
        "right for every sweep without tickets that train beside their dense network",
    ),
    Mutant(
        "validation acts twice where a replay ends", "training/loop.py",
        "or tally.step == length.last_step:\n", "or False:\n",
        "right for all trainings but replays that end within an epoch",
        ("test_callbacks.py",),
    ),
    Mutant(
        "callbacks that act wait for a call's end", "training/run.py",
        "1 if stepping(config.callback) else trainer.steps_per_call", "trainer.steps_per_call",
        "right where a call has one step",
        ("test_callbacks.py",),
    ),
    Mutant(
        "a mask forgets how its state was replayed", "masking.py",
        'noted: dict[str, Any] = {"replayed": replayed} if replayed else {}', "noted = {}",
        "right for all states that were kept or replayed exactly",
        ("test_setting.py",),
    ),
    # -- lineage
    Mutant(
        "what starts afresh starts at the rewind epoch", "lineage.py",
        "first = START if rewind.afresh else rewind.point", "first = rewind.point",
        "the training itself is right; plans and tags are not",
        ("test_sweep.py",),
    ),
    Mutant(
        "fine-tuning waits for no dense network", "lineage.py",
        "== START and not rewind.takes_final", "== START",
        "its mask needs none, and it starts at epoch 0",
        ("test_sweep.py",),
    ),
    Mutant(
        "a cell is done without its dense network", "lineage.py",
        "rival = (self.dense,) if self.dense and self.parent else ()", "rival = ()",
        "its ticket is done; the verdict would be trained where the sweep was submitted",
        ("test_sweep.py",),
    ),
    Mutant(
        "scores of one point serve another", "lineage.py",
        'return {"ranked": ranked, **at, **about}', 'return {"ranked": ranked, **about}',
        "most masks are made at one point",
        ("test_points.py",),
    ),
    Mutant(
        "a mask without what was ranked", "lineage.py",
        '    return {"dense": dense, "ranked": ranked, **about}\n\n\n',
        '    return {"dense": dense, **about}\n\n\n',
        "percentile and dense network tell rounds apart until the rewinding differs",
        ("test_masks.py", "test_sweep.py", "test_config.py"),
    ),
    Mutant(
        "controls in every round", "lineage.py",
        "if rewind.control and not last:", "if False:",
        "right for one-shot masks",
        ("test_training.py", "test_sweep.py"),
    ),
    # -- children and the line between them
    Mutant(
        "both children in one order", "stability.py",
        "[seed, 2, order]", "[seed, 2]",
        "they are two nodes, of one network, without a barrier",
        ("test_stability.py",),
    ),
    Mutant(
        "a barrier above one end", "barriers.py",
        "(errors[0] + errors[-1]) / 2", "errors[0]",
        "right where both ends are as good",
        ("test_stability.py",),
    ),
    Mutant(
        "variances are averaged about nothing", "training/line.py",
        "np.maximum(square - mean**2, 0)", "square",
        "right where means are zero",
        ("test_stability.py",),
    ),
    Mutant(
        "half a line in single precision", "training/line.py",
        "share * b.astype(np.float64)", "share * b",
        "NumPy keeps float32 beside a Python number; both ends are right",
        ("test_stability.py",),
    ),
    Mutant(
        "callbacks forget what they saw before a kill", "training/run.py",
        "return deciding(recipe.config.callback), loop, memory",
        "return deciding(recipe.config.callback), loop, Memory()",
        "right for a training that nothing interrupts",
        ("test_early_stopping.py",),
    ),
    Mutant(
        "a stopped training keeps no last state", "training/checkpoints.py",
        "if step not in self.keep_steps and step != steps[-1]:",
        "if step not in self.keep_steps:",
        "right for one that ends with its schedule",
        ("test_early_stopping.py",),
    ),
    Mutant(
        "noise at positions among the training examples", "data/loading.py",
        'found["train"], left[wrong], keys', 'found["train"], np.flatnonzero(wrong), keys',
        "right where nothing is held out of the part",
        ("test_membership.py",),
    ),
    Mutant(
        "a class counts as much as another", "training/loop.py",
        "tf.linalg.matvec(targets, tf.constant(self.class_weights, losses.dtype))",
        "tf.reduce_mean(tf.constant(self.class_weights, losses.dtype))",
        "right where all weights are equal",
        ("test_class_weights.py",),
    ),
    Mutant(
        "masks of all first weights are one", "lineage.py",
        'for k in ("weights",) if k in about', 'for k in () if k in about',
        "right for fresh weights, which follow from the seed",
        ("test_pretrained.py",),
    ),
    Mutant(
        "what was trained elsewhere counts as untrained", "experiment.py",
        "pristine = initial and (state is None or not config.model.weights)",
        "pristine = initial",
        "right where a study begins with fresh weights",
        ("test_pretrained.py",),
    ),
    Mutant(
        "children find no state", "lineage.py",
        "frozenset((*own, *(branch.first for branch in self.branches)))", "frozenset(own)",
        "each cell replays the dense network up to its state, or waits for one that does",
        ("test_stability.py",),
    ),
    Mutant(
        "children train all epochs", "sweep/plan.py",
        "later += [(branch.node, branch.first) for branch in self.lineage.branches]", "pass",
        "right for children of the initialisation",
        ("test_stability.py",),
    ),
    # -- rewinding
    Mutant(
        "reset zeroes the step counter", "rewinding/__init__.py",
        'if not name.startswith("model/") and owner(name, paths)',
        'if not name.startswith("model/")',
        "slots are zero as asked; the schedule starts again",
        ("test_training.py",),
    ),
    Mutant(
        "fresh weights are the old ones", "rewinding/__init__.py",
        "return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])", "return seed",
        "a reinitialised ticket is the ticket of epoch 0",
        ("test_training.py", "test_transfer.py"),
    ),
    Mutant(
        "a learning rate that was not rewound", "rewinding/lr.py",
        "with_counters(origin.final(), of=origin.dense(origin.point))", "dict(origin.final())",
        "the state of the end has the counter of the end",
        ("test_training.py",),
    ),
    # -- passes for scores
    Mutant(
        "the mean constant in a Hessian", "training/pure.py",
        "with _twice_differentiable(), tf.GradientTape()", "with tf.GradientTape()",
        "gradients do not change, nor do networks without BatchNorm",
        ("test_passes.py",),
    ),
    Mutant(
        "batches of a Hessian count alike", "training/passes.py",
        "zip(found, map(len, group), strict=True)", "((g, 1) for g in found)",
        "right for batches of one size",
        ("test_passes.py",),
    ),
    Mutant(
        "the first process's batches", "training/pure.py",
        "batches[self._rank * own :]", "batches[:]",
        "right for one process",
        ("test_passes.py",),
    ),
    Mutant(
        "ReLU6 caps the flow", "training/flow.py",
        "layer.max_value = None", "pass",
        "right where the flow is small",
        ("test_flow.py",),
    ),
    # -- training
    Mutant(
        "nothing zeroed after a step", "training/update.py",
        "        if self._masking.zeroes:\n", "        if False:\n",
        "most optimizers of Keras leave zero where gradient and slots are",
        ("test_optimizers.py", "test_laws.py"),
    ),
    Mutant(
        "any optimizer is trusted to keep zeros", "training/optimizers/__init__.py",
        "kind.__name__ not in KEEP_ZEROS or kind is not getattr(keras.optimizers, kind.__name__)",
        "False",
        "right for all of Keras but Muon",
        ("test_update.py", "test_laws.py"),
    ),
    Mutant(
        "an activation makes nothing of zero", "compaction/levels.py",
        "            if name in self._lifted:\n", "            if False:\n",
        "right for every activation that leaves zero at zero", ("test_severance.py",),
    ),
    Mutant(
        "BatchNorm subtracts what padding made uneven", "compaction/levels.py",
        "            and is_unpadded(node)\n", "",
        "right for 1x1 convolutions", ("test_severance.py",),
    ),
    Mutant(
        "moving means keep what is cut off", "training/severance.py",
        "shifted = {**state, **self._shifted(state)}", "shifted = dict(state)",
        "training forgets it after a while", ("test_severance.py",),
    ),
    Mutant(
        "dropout draws for the channels that are left", "compaction/resizing.py",
        "isinstance(source, DROPOUTS)", "False",
        "as good a dropout, but another one", ("test_severance.py",),
    ),
    Mutant(
        "a channel that is pruned keeps its shift", "trainings.py",
        "whole_channels=prunes_channels(pattern)", "whole_channels=False",
        "its weights are zero all the same", ("test_channel_tickets.py",),
    ),
    Mutant(
        "a smaller network begins with weights of its own", "training/loop.py",
        "            self.load({**self.state(), **initial})\n", "            self._part_seeds()\n",
        "as good an initialisation, but another one", ("test_severance.py",),
    ),
    Mutant(
        "what is zero in a smaller network is not shown", "training/masking.py",
        "self._first = whole or {v.path: mask[v.path] for v, _ in self._pruned()}",
        "self._first = {v.path: mask[v.path] for v, _ in self._pruned()}",
        "shapes differ, and such arrays are taken for numbers of a whole variable",
        ("test_severance.py",),
    ),
    Mutant(
        "slots are not looked at", "training/masking.py",
        "names += [(v.path, path) for path, v in self._slots if path and path in self._first]",
        "pass",
        "weights are zero all the same", ("test_update.py",),
    ),
    Mutant(
        "a checkpoint that was not written is forgotten", "training/saving.py",
        "            writing.result()\n", "            writing.exception()\n",
        "nothing else stops: a later checkpoint may be written",
        ("test_saving.py",),
    ),
    Mutant(
        "a pass over a split begins where the last one ended", "training/evaluation.py",
        "-(-split.size // self._batch_size)", "split.size // self._batch_size",
        "right where batches divide the split",
    ),
    Mutant(
        "evaluated in training mode", "training/evaluation.py",
        "self._model(inputs, training=False)", "self._model(inputs, training=True)",
        "right for networks without dropout and normalisation",
        ("test_training.py", "test_peer_bugs.py"),
    ),
    Mutant(
        "images of one replica told as another's", "training/evaluation.py",
        "tf.one_hot(replica,", "tf.one_hot(self._feed.replicas - 1 - replica,",
        "right on one device, and the sums are right on any",
        ("test_strategies.py", "test_workers.py"),
    ),
    Mutant(
        "what fills up a batch is told too", "training/evaluation.py",
        "np.concatenate(correct)[: split.size]", "np.concatenate(correct)",
        "right where batches divide the split",
    ),
    Mutant(
        "images by what they are, not by their order", "data/loading.py",
        "[source.fingerprint, members.part, *code]", "[source.name, members.part, *code]",
        "right for one data set of that name",
        ("test_order.py", "test_membership.py"),
    ),
    Mutant(
        "no label smoothing", "training/loop.py",
        "label_smoothing=self.label_smoothing, reduction", "reduction",
        "the option is accepted and in the key",
        ("test_laws.py",),
    ),
    Mutant(
        "the next step's learning rate logged", "training/loop.py",
        "self.learning_rate(progress.step - 1)", "self.learning_rate(progress.step)",
        "off by one step of a smooth schedule",
        ("test_training.py",),
    ),
    Mutant(
        "a resumed run begins its epoch again", "training/loop.py",
        "else length.chunks(progress.step)",
        "else length.chunks(progress.step // length.steps_per_epoch * length.steps_per_epoch)",
        "right for runs that were stopped between epochs",
        ("test_training.py",),
    ),
    # -- store
    Mutant(
        "keys by order of writing", "store.py",
        "json.dumps([kind, identity], sort_keys=True,", "json.dumps([kind, identity],",
        "the same code writes the same order",
    ),
    Mutant(
        "published without the lease", "store.py",
        "with lease.exclusively():\n                    self._publish(work, node.path)",
        "if True:\n                    self._publish(work, node.path)",
        "the lease was held a moment ago",
        ("test_fencing.py", "test_leases.py"),
    ),
    Mutant(
        "a release deletes the successor's lease", "leases.py",
        "            if self.held():\n", "            if self.path.exists():\n",
        "right for whoever still has it",
        ("test_fencing.py",),
    ),
    Mutant(
        "zombies are alive", "leases.py",
        'None if fields[0] == "Z" else fields[19]', "fields[19]",
        "a zombie has a start time as well",
        ("test_store.py",),
    ),
    Mutant(
        "a waiter counts its own stall", "leases.py",
        "self._silence += min(now - self._seen_at, LOOK)", "self._silence += now - self._seen_at",
        "right for whoever is never stopped",
    ),
    Mutant(
        "collected though a child begins with it", "upkeep/collection.py",
        "        if step not in begun:\n", "        if True:\n",
        "it can be trained again, bit for bit on a CPU",
        ("test_store_tool.py",),
    ),
    Mutant(
        "collected though candidates of a search begin with it", "sweep/staged.py",
        "later=later if searching else {}", "later={}",
        "what is asked for now is promised all the same",
        ("test_store_tool.py",),
    ),
    Mutant(
        "collected though a longer training goes on from it", "upkeep/collection.py",
        "promised)} | going_on\n", "promised)}\n",
        "the last state stays",
        ("test_store_tool.py",),
    ),
    Mutant(
        "collected though a record cannot be read", "upkeep/collection.py",
        "            if not inventory.unreadable:\n", "            if True:\n",
        "verify tells of it",
        ("test_store_tool.py",),
    ),
    Mutant(
        "what is computed needs no parents", "store.py",
        "needs=sorted({node.key} | references(identity))", "needs=[node.key]",
        "a command names all that it needs besides",
        ("test_store_tool.py",),
    ),
    Mutant(
        "parents are removed first", "upkeep/removal.py",
        "list(reversed(inventory.ordered(keys)))", "list(inventory.ordered(keys))",
        "all of them go in the end",
        ("test_store_tool.py",),
    ),
    Mutant(
        "an import is not checked", "upkeep/transport.py",
        "if damage := check(folder, node.kind).damage:", "if damage := ():",
        "parts are seldom damaged",
        ("test_store_tool.py",),
    ),
    Mutant(
        "unfinished commands are forgotten", "upkeep/collection.py",
        "            promised.setdefault(dense, set()).update(points)", "            pass",
        "whoever goes on trains the state again",
        ("test_store_tool.py",),
    ),
    Mutant(
        "kept states are superseded", "training/checkpoints.py",
        "others = [s for s in self.steps() if s not in self.keep_steps]", "others = self.steps()",
        "a run resumes all the same, and an epoch that is missing is replayed",
        ("test_training.py", "test_masks.py"),
    ),
    Mutant(
        "resumed from the oldest state", "training/checkpoints.py",
        "for step in reversed(self.steps()):", "for step in self.steps():",
        "ends where the unbroken run ends, later",
        ("test_training.py", "test_kill.py"),
    ),
    # -- selection, transfer, telemetry
    Mutant(
        "a tie goes to the later epoch", "analysis/selection.py",
        "accuracy, -later[0], -later[1]", "accuracy, later[0], later[1]",
        "ties are rare",
        ("test_verdict.py",),
    ),
    Mutant(
        "the spread of all there could be", "analysis/paper_formats.py",
        "spread = statistics.stdev(value) if", "spread = statistics.pstdev(value) if",
        "smaller, and a table looks more certain than it is",
        ("test_paper_tables.py",),
    ),
    Mutant(
        "dense networks of several studies in one mean", "analysis/paper.py",
        "return bool(both or alike) and all(one[seed] == other[seed] for seed in both)",
        "return bool(both or alike)",
        "one row for two networks",
        ("test_paper_tables.py",),
    ),
    Mutant(
        "a report by another level in the place of the first", "analysis/report.py",
        'if _values(study, "level") != {level}:', "if False:",
        "the study's own report is lost",
        ("test_paper_tables.py",),
    ),
    Mutant(
        "text as long as it is", "analysis/canvas.py",
        "if width_of(longer, size) <= inches:", "if True:",
        "titles and legends are cut off",
        ("test_figures.py",),
    ),
    Mutant(
        "accuracy before density", "analysis/selection.py",
        "return -(j.share or 0.0), confirmed, accuracy,",
        "return confirmed, accuracy, -(j.share or 0.0),",
        "the best matching ticket, not the sparsest",
        ("test_verdict.py",),
    ),
    Mutant(
        "two-sided bound", "verdict/comparison.py",
        "square = special.ndtri(level / looks) ** 2",
        "square = special.ndtri(level / looks / 2) ** 2",
        "the usual confidence interval",
        ("test_rule.py",),
    ),
    Mutant(
        "whole examples are not told apart", "verdict/single.py",
        "share(ticket) <= points(tolerance)", "share(ticket) < points(tolerance)",
        "only a loss of exactly the tolerance tells",
    ),
    Mutant(
        "a dense control without its head's rate", "transfer.py",
        "trained_before, {}, head_only, head_rate, pristine=False)",
        "trained_before, {}, head_only, pristine=False)",
        "its key says that it has one",
    ),
    Mutant(
        "all trainings augment by one seed", "training/loop.py",
        "seed = tf.constant(self.seed, tf.int64)", "seed = tf.constant(0, tf.int64)",
        "right for the default seed", ("test_laws.py",),
    ),
    Mutant(
        "a ticket begins with all weights", "training/recipe.py",
        "{**masked(state, mask or {}), ", "{**state, ",
        "pruned weights are zero after the first step", ("test_training.py",),
    ),
    Mutant(
        "an attempt begins where the first one began", "training/recipe.py",
        "step = found[1].step", "step = checkpoints.steps()[0]",
        "ends where the unbroken run ends, later", ("test_training.py",),
    ),
    Mutant(
        "followers know no moved weights", "training/run.py",
        'recipe = Recipe.from_json(plan["recipe"])',
        'recipe = Recipe.from_json(plan["recipe"] | {"weights": None})',
        "right for whatever begins afresh or with a state", ("test_workers.py",),
    ),
    Mutant(
        "a stop is an error like others", "errors.py",
        "class StoppedError(BaseException)", "class StoppedError(LotteryError)",
        "logging goes on after errors of its handlers", ("test_ends.py",),
    ),
    Mutant(
        "power averaged", "training/telemetry.py",
        "sum(map(pynvml.nvmlDeviceGetPowerUsage, devices)) / 1000",
        "statistics.fmean(map(pynvml.nvmlDeviceGetPowerUsage, devices)) / 1000",
        "right for one GPU",
    ),
    # -- keys
    Mutant(
        "options without effect in keys", "options.py",
        " and _matters(f, config)", "",
        "the same network trained again: slow, not wrong",
        ("test_keys.py",),
    ),
    Mutant(
        "a rewinding by its name alone", "lineage.py",
        "about = identity(rewind)\n", 'about = {"name": rewind.name}\n',
        "right for the controls, a line above",
        ("test_keys.py",),
    ),
    Mutant(
        "what a score imports is not its code", "choices/code.py",
        'waiting += [".".join(parts[: i + 1]) for i in range(len(parts))]', "pass",
        "most scores import nothing of their own",
    ),
    Mutant(
        "a comment is another score", "choices/code.py",
        "ast.unparse(_WithoutDocstrings().visit(tree))", "path.read_text()",
        "the simplest hash of a source",
    ),
    Mutant(
        "contents known by their sizes", "data/contents.py",
        "{file.path}\\0{content}\\n", "{file.path}\\0{file.bytes}\\n",
        "equal sizes are rare among JPEGs",
    ),
    # -- transfer
    Mutant(
        "moved tickets count as untrained", "transfer.py",
        '== "rewound" and ticket.pristine', '== "rewound"',
        "right for a ticket that was never moved and is rewound to its initialisation",
        ("test_transfer.py",),
    ),
    Mutant(
        "images seen in selection are new", "data/overlap.py",
        'SEEN, HELD_OUT = ("train", "validation"),', 'SEEN, HELD_OUT = ("train",),',
        "no gradient was ever taken on them",
        ("test_seen_images.py",),
    ),
    Mutant(
        "a transfer to seen images goes on", "transfer.py",
        "if found.spoils and refused:", "if False:",
        "the count is in the result",
        ("test_seen_images.py",),
    ),
    Mutant(
        "what cannot be compared was not seen", "transfer.py",
        "            if refused:\n", "            if False:\n",
        "it is warned of, and in the result",
        ("test_seen_images.py",),
    ),
    Mutant(
        "another size is compared all the same", "data/overlap.py",
        "if sources[small] in prepared:", "if False:",
        "the smaller one may be the original",
        ("test_seen_images.py",),
    ),
    Mutant(
        "the threads of a processor do not matter", "training/devices.py",
        """{threads} thread{'' if threads == 1 else 's'}\"""", "some threads\"",
        "they change rounding only, but that bit for bit",
        ("test_setting.py",),
    ),
    # -- the search
    Mutant(
        "ties are looked at too", "sweep/proposers/_moves.py",
        "and _reached({**known, rung: True}) > best", "and _reached({**known, rung: True}) >= best",
        "the same winner, at a price",
        ("test_search.py",),
    ),
    Mutant(
        "a row ends at its first failure", "sweep/proposers/_moves.py",
        "and _reached({**known, rung: True}) > best",
        "and not any(r < rung and not ok for r, ok in known.items()) and rung > best",
        "right where accuracy is monotone",
        ("test_search.py",),
    ),
    Mutant(
        "the first seeds are a cell", "sweep/proposers/_evidence.py",
        "if len(own) == self.network.seeds\n        }", "if own\n        }",
        "cheaper, and right where seeds agree",
        ("test_search.py",),
    ),
    Mutant(
        "missing seeds are certain", "sweep/proposers/_evidence.py",
        "return mean + SURE * error < wanted", "return mean < wanted",
        "right for a cell that fails by far",
        ("test_search.py",),
    ),
    Mutant(
        "seeds that failed refute", "sweep/proposers/_search.py",
        "if confirmation.passed is False)", "if not confirmation.passed)",
        "None is not False: nothing was shown",
        ("test_search.py",),
    ),
    Mutant(
        "only the last winner can be refuted", "sweep/proposers/_search.py",
        "refuted = self._refuted(told)", "refuted = self._refuted(told)[-1:]",
        "right for a search whose first winner holds",
        ("test_search.py",),
    ),
    Mutant(
        "what crashed counts as having failed", "sweep/proposers/_search.py",
        "certified = not standing.hidden", "certified = True",
        "right where nothing crashes",
        ("test_search.py",),
    ),
    Mutant(
        "what a search gave up is not known", "analysis/selection.py",
        "if p.place in complete or any(cell.given_up for cell in p.cells)",
        "if p.place in complete",
        "right for a grid",
        ("test_verdict.py",),
    ),
    Mutant(
        "a requeued small job begins anew", "sweep/detached.py",
        "if self.waves is None or not begun:", "if True:",
        "right where no small job is stopped",
        ("test_search_sweeps.py",),
    ),
    Mutant(
        "a search asks again for what it lacks", "sweep/proposers/_evidence.py",
        "if place in lost:", "if place in lost and not own:",
        "right for cells all of whose seeds failed",
        ("test_search.py",),
    ),
    # -- the verdict
    Mutant(
        "data are where they lie", "analysis/selection.py",
        "if found := next(filter(None, told), None):", "if False:",
        "the options say which data they are",
    ),
    Mutant(
        "a network at chance is matched", "verdict/single.py",
        "return not at_chance(dense) and ", "return ",
        "right for dense networks that have learnt something",
    ),
    Mutant(
        "images are all there are", "verdict/comparison.py",
        "special.ndtri(level / looks) ** 2 * variance", "special.ndtri(level / looks) ** 2 * 0.0",
        "the usual paired t-test",
        ("test_rule.py",),
    ),
    Mutant(
        "each cell is tested alone", "verdict/rule.py",
        "return max(self.rows, 1) * max(min(self.rungs, halvings), 1)", "return 1",
        "right for one cell",
        ("test_rule.py",),
    ),
    Mutant(
        "what has collapsed says how far seeds spread", "verdict/rule.py",
        "if statistics.fmean(d.values()) >= -self.tolerance}", "if d}",
        "right where all cells have learnt as much",
        ("test_rule.py",),
    ),
    Mutant(
        "all seeds lose the same images", "verdict/images.py",
        "_alike(np.stack(found)) if same else 1.0", "1.0",
        "cautious, and right with one seed",
        ("test_rule.py",),
    ),
    Mutant(
        "one failure ends a row", "verdict/rule.py",
        "if failures == 2:", "if failures == 1:",
        "right for accuracy that falls steadily",
        ("test_rule.py",),
    ),
    Mutant(
        "fresh seeds change nothing", "analysis/selection.py",
        "return self.confirmation is not None and not self.confirmation.passes", "return False",
        "they are reported all the same",
        ("test_verdict.py",),
    ),
    Mutant(
        "what passes counts wherever it lies", "analysis/selection.py",
        "return bool(passes and self.counts and not self.refuted)",
        "return bool(passes and not self.refuted)",
        "right where accuracy falls steadily",
        ("test_verdict.py",),
    ),
    Mutant(
        "a control sets the number of seeds", "analysis/selection.py",
        "for point in candidates or finished)", "for point in finished)",
        "right where all cells have the same seeds",
        ("test_verdict.py",),
    ),
    Mutant(
        "the worst dense network is the best", "analysis/selection.py",
        "mean > best[data].top1", "mean < best[data].top1",
        "right for a sweep with one dense network",
        ("test_verdict.py",),
    ),
    # -- sweeps
    Mutant(
        "an ellipsis gives its end twice", "sweep/progression.py",
        "while (end - at) * step > 0:", "while (end - at) * step >= 0:",
        "right where the end is between two steps",
        ("test_config.py",),
    ),
    Mutant(
        "every ticket costs all epochs", "sweep/plan.py",
        "= whole - behind", "= whole",
        "right for tickets rewound to 0",
        ("test_sweep.py",),
    ),
    Mutant(
        "each array runs as many as all", "sweep/arrays.py",
        "share = max(1, self.spare // (arrays + later))", "share = self.spare",
        "right for a sweep of one array",
        ("test_sweep.py", "test_detached.py"),
    ),
    Mutant(
        "each wave is numbered from zero", "sweep/plan.py",
        "enumerate(cells, start=first)", "enumerate(cells)",
        "right for a sweep of one wave, as the grid is",
        ("test_proposers.py",),
    ),
    Mutant(
        "an older result is read", "results.py",
        "if version != cls.version:", "if version > cls.version:",
        "it is the newer ones that nobody can know",
        ("test_studies.py",),
    ),
    Mutant(
        "sparse tickets that fail are best", "objectives.py",
        "density if missing <= 0 else float(1 + missing)", "density",
        "right for each ticket that matches",
    ),
    # -- prices
    Mutant(
        "the image has a gradient", "models/cost.py",
        "+ (i > first)) * work", "+ (i >= first)) * work",
        "the convention counts three times the forward pass",
        ("test_models.py",),
    ),
    Mutant(
        "energy of the last attempt", "training/tally.py",
        "else before + joules", "else joules",
        "right for a run that was never interrupted",
        ("test_price.py",),
    ),
    Mutant(
        "a network is timed by itself", "training/roles.py",
        "sparse = recipe.mask is not None or recipe.course is not None", "sparse = True",
        "a dense network takes as long as itself",
        ("test_price.py",),
    ),
    Mutant(
        "what cells share costs each of them", "analysis/price.py",
        "return Cost.once(shared),",
        "return Cost.of(r for runs in by_cell for r in runs.values()),",
        "right for a single ticket",
        ("test_report_price.py", "test_price.py"),
    ),
    Mutant(
        "arrays are known without their labels", "data/sources/arrays.py",
        "for array in arrays:", "for array in arrays[:1]:",
        "the examples are what there is",
        ("test_study_api.py",),
    ),
    Mutant(
        "given validation examples are drawn anew", "data/loading.py",
        "        if name in source.sizes:\n            continue",
        "        if name == \"test\" and name in source.sizes:\n            continue",
        "sources have a test split or none",
        ("test_study_api.py",),
    ),
    Mutant(
        "states that must be kept are passed over", "beginnings.py",
        "first < s and s < max(lacking, first)", "first < s",
        "right wherever the shorter training kept the same states",
        ("test_longer.py",),
    ),
    Mutant(
        "rates that part are gone on from", "beginnings.py",
        "min(lengths) if part is None else min(part, *lengths)", "min(lengths)",
        "right for every schedule that does not know its end",
        ("test_longer.py",),
    ),
    Mutant(
        "a changing mask goes on as if it had not changed", "beginnings.py",
        "kept = {step for step in kept if step < change}", "pass",
        "right wherever the shorter training ends between two changes",
        ("test_longer.py",),
    ),
    Mutant(
        "restored weights are those of the stop", "replay.py",
        "if others and point", "if False and point",
        "right wherever no callback goes back to other weights",
        ("test_early_stopping.py",),
    ),
    Mutant(
        "a stop that nobody tells of is forgotten", "training/deciding.py",
        '"stopped_epoch": self._last_epoch} if self.stopped else {}',
        '"stopped_epoch": self._last_epoch} if False else {}',
        "right for early stopping, which tells of it",
        ("test_callbacks.py",),
    ),
    Mutant(
        "any state will do to begin with", "going_on.py",
        "if not equal(run.state(first), state):", "if False:",
        "right for every rewinding to a state of the dense network",
        ("test_longer.py",),
    ),
    Mutant(
        "rows of another training are sent", "going_on.py",
        'row["epoch"] <= point.epochs', "True",
        "right wherever all of the other training was gone on from",
        ("test_longer.py",),
    ),
    Mutant(
        "what was stopped is gone on from", "beginnings.py",
        'decides = hasattr(kind, "remembers")', 'decides = bool(getattr(kind, "remembers", ()))',
        "right for early stopping, which remembers something",
        ("test_longer.py",),
    ),
    Mutant(
        "what was gone on from costs twice", "analysis/price.py",
        "twice += parts if key in results else parts[:-1]", "pass",
        "right for a study that never got longer",
        ("test_longer.py",),
    ),
    Mutant(
        "channels lose outputs alone", "sweep/shares.py",
        "left**2 if", "left if",
        "density is the price",
        ("test_sweep.py",),
    ),
    Mutant(
        "a fresh seed computes all", "sweep/proposers/_search.py",
        "seed=seed, epochs=epochs, shares=shares)", "seed=seed, epochs=epochs)",
        "the keys of its runs are others",
        ("test_sweep.py",),
    ),
    # -- input and optimizers
    Mutant(
        "each step draws the same crops", "data/preprocessing.py",
        "tf.cast(step, tf.int64)]),", "tf.cast(0 * step, tf.int64)]),",
        "each example of a batch has a crop of its own",
        ("test_data.py",),
    ),
    Mutant(
        "a mean that is not scaled", "data/preprocessing.py",
        "scale, shift = 1 / (255 * std), -mean / std", "scale, shift = 1 / (255 * std), -mean",
        "right for a standard deviation of 1",
        ("test_data.py",),
    ),
    Mutant(
        "evaluated on a corner", "data/preprocessing.py",
        "(images.shape[1] - height) // 2, (images.shape[2] - width) // 2", "0, 0",
        "right without a crop",
        ("test_data.py",),
    ),
    Mutant(
        "a milestone one step late", "training/schedules/step.py",
        "- warmup - 1 for m in", "- warmup for m in",
        "Keras's boundaries read as if they were exclusive",
        ("test_optimizers.py",),
    ),
    Mutant(
        "biases decay", "training/optimizers/__init__.py",
        'SPARED = ("bias", "gamma", "beta")', 'SPARED = ("gamma", "beta")',
        "a part of the networks have no biases to speak of",
        ("test_optimizers.py",),
    ),
    Mutant(
        "equal logits are hits", "training/metrics.py",
        "(logits > own) | ((logits == own) & (classes < labels[:, None]))", "logits > own",
        "ties are rare in networks that have learnt",
        ("test_training.py", "test_peer_bugs.py"),
    ),
    Mutant(
        "seconds of the last attempt", "training/tally.py",
        "seconds=self._start.seconds + time.perf_counter()", "seconds=time.perf_counter()",
        "right for a run that was never interrupted",
        ("test_training.py",),
    ),
    Mutant(
        "another kind of device repeats exactly", "training/setting.py",
        "if was != now:", 'if was != now and name == "replicas":',
        "the number of devices is what matters most",
    ),
    # -- images and files
    Mutant(
        "photographs lie on their side", "data/images.py",
        "ImageOps.exif_transpose(image, in_place=True)", "pass",
        "most files have no orientation",
        ("test_data.py", "test_preprocess.py"),
    ),
    Mutant(
        "shrunk without averaging", "data/images.py",
        "interpolation=area if short >= side else linear", "interpolation=linear",
        "sizes are right",
        ("test_data.py", "test_preprocess.py"),
    ),
    Mutant(
        "folded without epsilon", "compaction/folding.py",
        'arrays["moving_variance"] + node.config["epsilon"]', 'arrays["moving_variance"]',
        "small beside most variances",
        ("test_compaction.py",),
    ),
    Mutant(
        "empty rows at the end are lost", "export/sparsity.py",
        "np.bincount(row, minlength=len(rows))", "np.bincount(row)",
        "right where the last row has a weight",
        ("test_litert.py",),
    ),
    Mutant(
        "a part of an image by its side", "data/summary.py",
        "(self.cropped / self.stored) ** 2", "self.cropped / self.stored",
        "a crop of half the side leaves a quarter of the image",
    ),
    Mutant(
        "a side of the enlarged image", "preprocess/shards.py",
        "min(whole.shape[:2])", "min(pixels.shape[:2])",
        "the original size is that before it was resized",
        ("test_data_summary.py",),
    ),
    Mutant(
        "exported paths hold in one folder alone", "export/accuracy.py",
        "path.relative_to(folder).as_posix()", "str(path)",
        "right until the folder is moved",
        ("test_export.py",),
    ),
    # -- masks that change
    Mutant(
        "rigl grows where it is flat", "pruning/dynamics/rigl.py",
        "slopes = {path: np.abs(moment.gradients[path])",
        "slopes = {path: -np.abs(moment.gradients[path])",
        "counts and zeros are right",
        ("test_dynamics.py", "test_changing_masks.py"),
    ),
    Mutant(
        "what was dropped may not come back", "pruning/dynamics/_regrowth.py",
        "free = np.flatnonzero(~kept)", "free = np.flatnonzero(~mask.ravel())",
        "right where few weights are active",
        ("test_dynamics.py", "test_changing_masks.py"),
    ),
    Mutant(
        "cubic in the wrong end", "pruning/dynamics/gradual.py",
        "final + (self.initial - final) * (1 - done / n) ** 3",
        "self.initial + (final - self.initial) * (done / n) ** 3",
        "begins and ends as it should",
        ("test_dynamics.py",),
    ),
    Mutant(
        "the same lots at every change", "pruning/dynamics/__init__.py",
        "np.random.PCG64([self.seed, done, 0xD15])", "np.random.PCG64([self.seed, 0xD15])",
        "exact counts, and the same after a resumption",
        ("test_dynamics.py",),
    ),
    Mutant(
        "slots of the pruned stay", "training/masking.py",
        "(v, *(slot for path, slot in self._slots if path == v.path))", "(v,)",
        "weights are zero, and gradients are masked from then on",
        ("test_changing_masks.py",),
    ),
    Mutant(
        "a resumed mask is the first one", "training/masking.py",
        "        if self.course:\n            for v, m",
        "        if not self.course:\n            for v, m",
        "pruned weights of the state are zero all the same",
        ("test_changing_masks.py",),
    ),
    Mutant(
        "the schedule waits where a gradient is measured", "training/loop.py",
        "self._optimizer.iterations.assign_add(1)", "pass",
        "no weight has changed", ("test_changing_masks.py",),
    ),
    Mutant(
        "rigl measures what is left", "training/loop.py",
        "return sums, self.masking.of_masked(gradients)",
        "return sums, self.masking.of_masked(self.masking.survivors(gradients))",
        "those are the gradients that train", ("test_changing_masks.py",),
    ),
    Mutant(
        "a mask changes a step too soon", "training/length.py",
        "change - 1 if self.measures and change - 1 > step else change",
        "change",
        "right with one step a call", ("test_length.py", "test_changing_masks.py"),
    ),
    Mutant(
        "a run leaves the mask it began with", "training/roles.py",
        "            masks.write(mask, self.work / MASK)\n", "",
        "right for a mask that does not change", ("test_changing_masks.py",),
    ),
    Mutant(
        "a ticket's digest without its mask", "tickets/ticket.py",
        'for name in ("mask", *WEIGHTS):', "for name in WEIGHTS:",
        "pruned weights are zero, so the weights tell the mask",
        ("test_tickets.py",),
    ),
    # -- the report
    Mutant(
        "a script of the page is not escaped", "analysis/page.py",
        'for c in "<>&"})', 'for c in ""})',
        "JSON is JavaScript, nearly",
        ("test_verdict.py", "test_report.py"),
    ),
]  # fmt: skip


def misfits(mutants: Iterable[Mutant]) -> list[str]:
    """What is wrong with the texts of those that cannot be planted."""
    counts = {m: (SOURCE / m.file).read_text().count(m.old) for m in mutants}
    return [
        f"{m.name}: {m.file} has this {count} times, not once: {m.old!r}"
        for m, count in counts.items()
        if count != 1
    ]


def tests_of(mutant: Mutant) -> list[str]:
    """Test files that name the module of a mutant, or that it names: who says it most, first."""
    module = Path(mutant.file).with_suffix("")
    name = module.parent.name if module.name == "__init__" else module.name
    named = re.compile(
        rf"lottery[.\w]*\.{name}\b|^ *from lottery[.\w]* import (\([^)]*|.*)\b{name}\b", re.M
    )
    tests = {t.name: t.read_text() for t in sorted((REPOSITORY / "tests").glob("test_*.py"))}
    found = [t for t, text in tests.items() if named.search(text) or t in mutant.tests]
    found.sort(key=lambda t: -len(re.findall(rf"\b{name}\b", tests[t])))
    return [f"tests/{t}" for t in found]


def copied(folder: Path) -> Path:
    """A copy of the working tree: what git tracks or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


def verdict(mutant: Mutant, tree: Path, selected: Sequence[str]) -> str:
    """What becomes of a mutant that is planted in a tree while some tests run."""
    file = tree / "src" / "lottery" / mutant.file
    original = file.read_text()
    file.write_text(original.replace(mutant.old, mutant.new))
    data = os.environ.get("LOTTERY_DATA", str(REPOSITORY.parent / "shared" / "data"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *selected],
            cwd=tree, env=os.environ | {"PYTHONPATH": str(tree / "src"), "LOTTERY_DATA": data},
            capture_output=True, text=True, check=False, timeout=ENDLESS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "caught: the tests do not end"
    finally:
        file.write_text(original)
    if done.returncode in (0, 5):  # 5: all of them are left to CI
        return SURVIVED
    if done.returncode != 1 and not (done.returncode == 2 and "FAILED" in done.stdout):
        return f"no verdict, exit code {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return f"caught by {failed[1] if failed else 'pytest'}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of names")
    how = parser.add_mutually_exclusive_group()
    for option in "suite", "ci", "check":
        how.add_argument(f"--{option}", action="store_true")
    parser.add_argument("--part", default="0/1", help="one of several equal parts")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    chosen = [m for m in MUTANTS if not options.names or any(n in m.name for n in options.names)]
    chosen = chosen[part::parts]
    for problem in (problems := misfits(chosen)):
        print(problem)
    if problems or options.check:
        return len(problems)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for mutant in chosen:
            started = time.monotonic()
            if options.suite or options.ci:
                said = verdict(mutant, tree, ["-m", ""] if options.ci else [])
            else:
                said = verdict(mutant, tree, tests_of(mutant))
                if said == SURVIVED:
                    marked = ["-m", "slow or zoo or launchers or spark or browser"]
                    said = f"in CI {verdict(mutant, tree, [*marked, *tests_of(mutant)])}"
            survivors += "caught" not in said
            print(f"{mutant.name}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
