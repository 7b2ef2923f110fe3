"""Other Hydra programs in the same environment do not notice that this package is installed."""

import pytest
from conftest import REPOSITORY
from hydra import compose, initialize_config_dir

PRESETS = ("submitit_slurm", "submitit_local")


def launcher_and_sweeper(conf, config, preset) -> tuple[str, str]:
    """The targets that a program gets whose configs lie in ``conf``."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        composed = compose(config, [f"hydra/launcher={preset}"], return_hydra_config=True)
    return composed.hydra.launcher._target_, composed.hydra.sweeper._target_


@pytest.mark.parametrize("preset", PRESETS)
def test_they_keep_the_launchers_and_the_sweeper(tmp_path, preset):
    """Before a program of ours in the same process, and after it."""
    (tmp_path / "app.yaml").write_text("size: 3\n")
    kind = preset.removeprefix("submitit_").capitalize()
    theirs = (
        f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{kind}Launcher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    )
    assert launcher_and_sweeper(tmp_path, "app", preset) == theirs
    ours = launcher_and_sweeper(REPOSITORY / "conf", "config", preset)
    assert ours[0] == f"hydra_plugins.lottery_launcher.{kind}Launcher"
    assert launcher_and_sweeper(tmp_path, "app", preset) == theirs


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_theirs_stays_theirs(tmp_path, preset):
    """A file of the same name, which does not build on our schema."""
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    mine = tmp_path / "hydra" / "launcher" / "mine.yaml"
    mine.write_text(f"defaults: [{preset}]\ntimeout_min: 7\n")
    (tmp_path / "app.yaml").write_text("size: 3\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        made = compose("app", ["hydra/launcher=mine"], return_hydra_config=True).hydra.launcher
    assert made.timeout_min == 7
    assert "lottery" not in made._target_
