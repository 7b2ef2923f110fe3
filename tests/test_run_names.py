"""What people call the runs of W&B; their ids are the keys."""

import pytest
from conftest import TINY, composed

from lottery.experiment import _told_apart
from lottery.trainings import name_of


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "ticket lenet_300_100 digits percentile=80 rewind=1 seed=0"),
        (
            ("data.classes=[5,6]", "seed=3", "trainer.batch_size=16"),
            "ticket lenet_300_100 digits classes=5,6 percentile=80 rewind=1 seed=3",
        ),
    ],
)
def test_network_data_percentile_rewind_point_and_seed(overrides, name):
    config = composed(*TINY, *overrides)
    assert name_of(config, "ticket", ("percentile=80", "rewind=1")) == name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("mask.percentile=80",), ()),
        (("mask=snip",), ("score=snip",)),
        (("mask=channel", "mask.scope=lamp"), ("scope=lamp", "pattern=channel")),
        (("mask.shuffle=true",), ("shuffled",)),
    ],
)
def test_what_is_unusual_of_a_mask_is_told(overrides, words):
    assert _told_apart(composed(*TINY, *overrides).mask) == words
