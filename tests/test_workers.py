"""Two processes do what one does, and the second writes nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, composed, laboratory, together

from lottery import experiment, replay, stability, tensors, tickets, transfer
from lottery.barriers import barriers
from lottery.points import Point
from lottery.runs import Run, runs_of
from lottery.store import Store

STUDY = (
    *TINY, "trainer.batch_size=128", "trainer.eval_batch_size=50", "rewind.epoch=2",
    "mask.percentile=80",
)  # fmt: skip
MOVED = ("data.classes=[6,7,8,9]", "trainer.epochs=1", "trainer.batch_size=64", "logger=csv")

SCRIPT = """
import sys
from pathlib import Path

import test_workers
from lottery import experiment, replay, trainings

if not trainings.follow():
    trainings.lead()
    test_workers.story(*map(Path, sys.argv[1:]))
"""


def story(folder: Path, file: Path) -> None:
    """A dense run, a replay of its first epoch, tickets with a mask that changes and with one that
    does not, which begins with a state, transfers, and two children.

    Moved is the ticket in ``file``, which is written if it is not there.
    """
    lab = laboratory(folder)
    dense = experiment.train_dense(composed(*STUDY), lab)
    config = composed(*STUDY, "rewind.epoch=1", "rewind=finetune", "rewind.optimizer=reset")
    replay.dense_state(config, lab, dense, Point(1))
    experiment.find_ticket(composed(*STUDY, "mask=rigl", "mask.during.frequency=3"), lab)
    experiment.find_ticket(composed(*STUDY, "mask=snip", "mask.score.per_class=2"), lab)
    ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
    if not file.exists():
        tickets.write(tickets.of_run(ticket), file)
    for train in ("all", "head"):
        own = (f"ticket={file}", f"paths.store={lab.store.root}", f"transfer.train={train}")
        transfer.transfer(composed(*own, *MOVED, name="transfer"), lab)
    children = ("mask.percentile=0", "stability.points=3")
    stability.stability(composed(*STUDY, "rewind.epoch=1", *children, name="stability"), lab)


@pytest.mark.slow
def test_two_processes_do_what_one_does_and_one_of_them_writes(tmp_path):
    file = tmp_path / tickets.FILE
    story(tmp_path / "one", file)
    script = [sys.executable, "-c", SCRIPT, str(tmp_path / "two"), str(file)]
    first, second = together(script, script, folders=2 * [Path(__file__).parent])
    try:
        said = [process.communicate(timeout=300)[1] for process in (first, second)]
    finally:
        first.kill()
        second.kill()
    assert [first.returncode, second.returncode] == [0, 0], said
    nodes = {p.relative_to(tmp_path / "one") for p in tmp_path.glob("one/store/[dst]*/*")}
    assert {p.parent.name for p in nodes} == {"dense", "score", "state", "ticket", "transfer"}
    for node in nodes:
        one, two = (tmp_path / number / node for number in ("one", "two"))
        assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))
        if node.parent.name == "state":
            continue
        if node.parent.name == "score":
            file = "scores.safetensors"
            for name, array in tensors.read(one / file)[0].items():
                atol = 1e-5 * np.abs(array).max()
                np.testing.assert_allclose(tensors.read(two / file)[0][name], array, atol=atol)
            continue
        for name, array in Run(one).state().items():
            np.testing.assert_allclose(Run(two).state()[name], array, atol=1e-5, err_msg=name)
        assert [r["epoch"] for r in Run(two).metrics] == [r["epoch"] for r in Run(one).metrics]
        assert Run(two).result["replicas"] == 2
        for split, top1 in ("validation", "val_top1"), ("test", "test_top1"):
            first, second = (Run(node).correct(split) for node in (one, two))
            assert second.mean() == Run(two).result[top1]
            assert 0 < second.mean() < 1
            assert np.count_nonzero(first != second) <= 1  # which rounding may decide
    (one,), (two,) = (barriers(Store(tmp_path / number / "store")) for number in ("one", "two"))
    assert (two.children, two.shares) == (one.children, one.shares)
    for split, errors in one.errors["interpolated"].items():
        np.testing.assert_allclose(two.errors["interpolated"][split], errors, atol=0.5)
