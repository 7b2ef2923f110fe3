"""What a sweeper that optimises is told, and that it leads the right way."""

import re
import shlex
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, composed, run
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices, objectives, studies, validation
from lottery.config import typed
from lottery.errors import ConfigError

EXAMPLES = 200
hits = st.integers(0, EXAMPLES)
densities = st.floats(0.001, 1)


def network(correct: int) -> dict[str, float]:
    return {"val_top1": correct / EXAMPLES, "val_examples": EXAMPLES, "val_majority": 20}


@given(st.integers(100, EXAMPLES), hits, hits, densities, densities)
def test_what_matches_is_better_than_what_does_not_and_the_nearer_is_better(
    dense, one, other, sparse, sparser
):
    """Whatever the densities: so it is no use to prune all."""
    tolerance = 1.0
    first, second = (
        objectives.at_tolerance(density, network(dense), network(correct), tolerance)
        for density, correct in ((sparse, one), (sparser, other))
    )
    matched = [dense - correct <= 2 for correct in (one, other)]
    if matched == [True, True]:
        assert (first, second) == (sparse, sparser)
    elif matched == [True, False]:
        assert first <= 1 < second
    elif matched == [False, False]:
        assert (first < second) == (one > other)
        assert 1 < first <= 2


def test_exactly_the_tolerance_still_matches_and_an_image_more_does_not():
    assert objectives.at_tolerance(0.1, network(180), network(178), 1.0) == 0.1
    assert objectives.at_tolerance(0.1, network(180), network(177), 1.0) == 1 + 1 / EXAMPLES


def test_nothing_matches_a_dense_network_at_chance():
    """Or the best trial would be one whose learning rate is zero."""
    assert objectives.at_tolerance(0.01, network(22), network(22), 1.0) == 2


def test_values_are_those_of_the_result(ticket_study):
    result = studies.read(ticket_study.result)
    mask, top1 = ticket_study.result["mask"], ticket_study.run.result["val_top1"]
    assert objectives.value("val_top1", result) == objectives.value(["val_top1"], result) == top1
    both = objectives.value(["density_of_kernels", "val_top1"], result)
    assert both == (mask["density_of_kernels"], top1)
    alone = objectives.value("density", result)
    dense, ticket = ticket_study.result["dense"], ticket_study.result["ticket"]
    assert alone == objectives.at_tolerance(mask["density"], dense, ticket, 1.0)
    assert isinstance(objectives.value("val_top1", result), float)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("val_top", r"sweep.objective=val_top is unknown; did you mean val_top1\?"),
        ("[val_top1,size]", r"sweep.objective=\[val_top1,size\] is unknown \(known: val_top1, "),
        ("[density,density]", "names one twice"),
        ("[]", r"names nothing \(known: val_top1, density"),
        ("null", "is unknown"),
    ],
)
def test_unknown_objectives_are_one_line(objective, message):
    (error,) = validation.range_errors(composed(f"sweep.objective={objective}"))
    assert re.search(message, error)


def optuna(direction):
    return SimpleNamespace(_target_="hydra_plugins.OptunaSweeper", direction=direction)


@pytest.mark.parametrize(
    ("objective", "direction", "wanted"),
    [
        ("val_top1", "minimize", "maximize"),
        ("density", "maximize", "minimize"),
        (["val_top1", "density"], ["minimize", "maximize"], r"\[maximize,minimize\]"),
        (["val_top1", "density"], "maximize", r"\[maximize,minimize\]"),
    ],
)
def test_the_wrong_direction_is_refused(objective, direction, wanted):
    with pytest.raises(ConfigError, match=f"needs hydra.sweeper.direction={wanted}"):
        objectives.check(objective, "prune", optuna(direction))


def test_only_prune_finds_densities():
    with pytest.raises(ConfigError, match=r"with train.py leave it out"):
        objectives.check("density", "train", optuna("minimize"))
    objectives.check("val_top1", "train", optuna("maximize"))


def test_a_sweeper_that_would_be_led_astray_trains_nothing(tmp_path):
    process = run("prune.py", "-m", "hydra/sweeper=optuna", "mask.percentile=interval(50,90)",
                  f"paths.outputs={tmp_path}")  # fmt: skip
    assert process.returncode == 1
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: sweep.objective=val_top1 needs hydra.sweeper.direction=maximize")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "store").exists()


def test_commands_on_the_page_lead_the_right_way():
    page = (REPOSITORY / "docs" / "optuna.md").read_text().replace("\\\n", " ")
    commands = [shlex.split(line) for line in re.findall("^python prune.py -m(.*)$", page, re.M)]
    assert len(commands) == 3
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for arguments in commands:
            ours = [a for a in arguments if a.startswith(("hydra", "sweep."))]
            config = loader.load_configuration("config", ours, RunMode.MULTIRUN)
            objective = typed(config).sweep.objective
            objectives.check(objective, "prune", config.hydra.sweeper)
            swept = [a for a in arguments if a not in ours]
            one = [re.sub(r"interval\(([\d.]+),.*", r"\1", a) for a in swept]
            chosen = [choices.as_group(a.partition(",")[0]) for a in one]
            assert typed(loader.load_configuration("config", chosen, RunMode.RUN))
