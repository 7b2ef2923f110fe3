"""A stranger's folder: choices of their own, with YAML, on the command line, in jobs and after."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import REPOSITORY, TINY, environment, result_folder, run
from slurm_cluster import Cluster
from test_choices import NETWORK
from test_choices import plug_in as plug_in

from lottery.files import read_json
from lottery.runs import Run
from lottery.tickets.ticket import plugins_of

PACKAGE = {
    "my_lab/__init__.py": "from my_lab import networks, patterns, rewindings, scores\n",
    "my_lab/scores.py": '''
        from dataclasses import dataclass

        import numpy as np

        from lottery import choices
        from lottery.options import option


        @choices.score("power")
        @dataclass(frozen=True)
        class Power:
            """A power of a weight, of either sign."""

            exponent: float = option(2.0, "of the magnitude", gt=0)

            def scores(self, evidence):
                return {p: np.abs(evidence.weights[p]) ** self.exponent for p in evidence.paths}
    ''',
    "my_lab/patterns.py": '''
        from dataclasses import dataclass

        import numpy as np

        from lottery import choices
        from lottery.options import option
        from lottery.pruning.units import UnitPattern, one_a_layer


        @choices.pattern("row")
        @dataclass(frozen=True)
        class Row(UnitPattern):
            """Inputs of a kernel, several at a time, with all that they feed."""

            height: int = option(1, "inputs in a unit", ge=1)

            def units(self, shapes, ties):
                return one_a_layer({path: self._rows(shape) for path, shape in shapes.items()})

            def _rows(self, shape):
                inputs = np.arange(np.prod(shape[:-1])) // self.height
                return np.broadcast_to(inputs.reshape(*shape[:-1], 1), shape)
    ''',
    "my_lab/rewindings.py": '''
        from dataclasses import dataclass

        from lottery import choices
        from lottery.rewinding import Rewinding, Start


        @choices.rewinding("again")
        @dataclass(frozen=True)
        class Again(Rewinding):
            """The dense network's state after the epoch, as it was."""

            def rewind(self, origin):
                return Start(origin.point, origin.dense(origin.point))
    ''',
    "my_lab/networks.py": '''
        from dataclasses import dataclass

        from lottery import choices
        from lottery.options import option


        @choices.model("two_layers")
        @dataclass(frozen=True)
        class TwoLayers:
            """A hidden layer and the logits."""

            hidden: int = option(12, "units", ge=1)

            def build(self, input_shape, classes):
                import keras

                image = keras.Input(input_shape, name="image")
                x = keras.layers.Flatten(name="flatten")(image)
                x = keras.layers.Dense(self.hidden, activation="relu", name="hidden")(x)
                return keras.Model(image, keras.layers.Dense(classes, name="classifier")(x))
    ''',
    "conf/mask/mine.yaml": """
        # Whole inputs go, by a power of their weights.
        defaults:
          - magnitude
          - override score: power
          - override pattern: row

        percentile: 40
    """,
    "conf/model/mine.yaml": """
        defaults: [/options/model/two_layers@_here_]

        hidden: 10
    """,
    "conf/experiment/mine.yaml": """
        # @package _global_
        defaults:
          - override /model: mine
          - override /rewind: again
          - override /logger: csv

        trainer: {epochs: 1, batch_size: 256}
        rewind: {epoch: 0}
    """,
}
PLUGIN = "plugins=[my_lab]"
OURS = ("--config-dir", "conf", PLUGIN)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with nothing of this repository in it."""
    made = tmp_path_factory.mktemp("stranger")
    write(made, PACKAGE)
    return made


@pytest.fixture
def there(folder: Path, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def ticket(folder: Path) -> Iterator[Path]:
    """The output folder of one run there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        process = run("prune.py", *OURS, "experiment=mine", "mask=mine", "mask.pattern.height=2")
        assert process.returncode == 0, process.stderr
        yield folder / result_folder(process.stdout)


def said(process) -> str:
    """The one line of an error."""
    assert process.returncode == 1, process.stdout + process.stderr
    (line,) = process.stderr.splitlines()
    return str(line).removeprefix("error: ")


def test_one_run_with_four_choices_of_ones_own(ticket):
    result = read_json(ticket / "result.json")
    assert result["mask"]["pattern"] == {"height": 2, "name": "row"}
    store = ticket.parents[1] / "store"
    found = Run(store / "ticket" / result["ticket"]["key"])
    assert found.config["model"] == {"hidden": 10, "name": "two_layers", "weights": None}
    assert found.config["plugins"] == ["my_lab"]
    about = read_json(found.path / "done.json")["identity"]
    assert set(about["code"]) == {"rewinding"}
    mask = found.mask["hidden/kernel"]
    assert (mask.all(1) | ~mask.any(1)).all()  # whole inputs
    assert (mask[::2] == mask[1::2]).all()  # two at a time


def test_help_typos_and_options_know_them(there):
    listed = run("prune.py", *OURS, "--help").stdout
    for part in (
        "mask/score: grasp, magnitude, movement, power, ", "row, weight\n", ", two_layers\n",
        "rewind: again, finetune", "lenet_fashion_mnist, mine, resnet20_cifar10\n",
    ):  # fmt: skip
        assert part in listed
    own = (*OURS, "experiment=mine", "mask=mine")
    assert said(run("prune.py", *own, "mask.score=pwer")).startswith(
        "mask/score=pwer is unknown; did you mean power"
    )
    assert said(run("prune.py", *own, "mask.pattern.hieght=2")).startswith(
        "option mask.pattern.hieght is unknown; did you mean mask.pattern.height"
    )
    assert said(run("prune.py", *own, "mask.score.exponent=0")) == (
        "mask.score.exponent=0.0 must be > 0"
    )
    without = said(run("prune.py", "--config-dir", "conf", "mask=mine"))
    assert without.startswith("mask/pattern=row is unknown")


def test_a_sweep_and_its_report_with_and_without_the_plug_in(ticket, there):
    swept = run("prune.py", "-m", *OURS, "experiment=mine", "mask=mine,magnitude",
                "mask.percentile=40", "mask.score=power")  # fmt: skip
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert "2 cells: 2 done" in swept.stdout
    sweep = max((there / "outputs" / "prune").iterdir())
    for what in (f"sweep={sweep}", "store=outputs/store"):
        report = run("report.py", what)
        assert report.returncode == 0, report.stderr
        assert "inning ticket" in report.stdout
    assert said(run("report.py", "sweep=nowhere", PLUGIN)) == "there is no folder nowhere"


def test_a_ticket_says_which_plug_in_it_needs(ticket, there):
    for script, more in (("transfer.py", ("logger=csv",)), ("export.py", ())):
        process = run(script, f"ticket={ticket}", *more)
        assert said(process) == (
            "the ticket has model=two_layers, which is unknown without the plug-in it came from: "
            "add plugins=[my_lab]"
        )
    own = (f"ticket={ticket}", PLUGIN)
    process = run("export.py", *own, "format=keras", "output=exported")
    assert process.returncode == 0, process.stderr
    options = ("trainer.epochs=1", "trainer.batch_size=128", "logger=csv")
    moved = run("transfer.py", *own, *options, "transfer.controls=[random]",
                "transfer.seen_images=report")  # fmt: skip
    assert moved.returncode == 0, moved.stderr


def test_a_broken_plug_in_is_named_before_anything_is_submitted(there):
    (there / "broken.py").write_text("import nowhere_at_all\n")
    process = run("prune.py", "-m", "plugins=[broken]", "seed=0,1", "paths.outputs=none",
                  "hydra/launcher=submitit_slurm")  # fmt: skip
    assert said(process) == (
        "plugins=[broken] cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"
    )
    assert not (there / "none").exists()


def test_an_installed_package_names_its_own(tmp_path, monkeypatch):
    """By an entry point; its folder is anywhere on the path."""
    write(tmp_path / "site", PACKAGE)
    about = tmp_path / "site" / "my_lab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[lottery.plugins]\nlab = my_lab\n")
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path / 'site'}:{environment()['PYTHONPATH']}"
    process = run("prune.py", "rewind=agian", PYTHONPATH=path, python=("-P",))
    assert said(process).startswith("rewind=agian is unknown; did you mean again")
    shutil.rmtree(tmp_path / "site" / "my_lab")
    process = run("prune.py", "rewind=weights", PYTHONPATH=path, python=("-P",))
    assert said(process) == (
        "the plugin lab of my-lab cannot be imported: ModuleNotFoundError: No module named 'my_lab'"
    )


def test_a_ticket_names_the_modules_of_what_an_installed_package_brought(plug_in):
    plug_in("my_lab.networks", NETWORK)
    config = {"plugins": [], "model": {"name": "mine"}, "data": {"source": "digits"}}
    assert plugins_of(config) == ["my_lab.networks"]
    assert plugins_of(config | {"plugins": ["my_lab"]}) == ["my_lab"]
    assert plugins_of(config | {"model": {"name": "resnet20"}}) == []
    assert plugins_of(config | {"model": {"name": "ResNet50"}}) == []


@pytest.mark.slow
def test_the_example_of_the_pages_works_from_an_empty_folder(tmp_path, monkeypatch):
    """Its two files as they stand in CONTRIBUTING.md, and all commands that name it."""
    contributing, readme = (
        (REPOSITORY / page).read_text() for page in ("CONTRIBUTING.md", "README.md")
    )
    (score,) = re.findall(r"```python\n(.*?)```", contributing, re.S)
    (mask,) = re.findall(r"```yaml\n(.*?)```", contributing, re.S)
    write(tmp_path, {"large_large.py": score, "conf/mask/large_large.yaml": mask})
    monkeypatch.chdir(tmp_path)
    typed = re.findall(r"^python \.\./lottery/(prune\.py .*)$", contributing + readme, re.M)
    assert len(typed) == 5
    for line in dict.fromkeys(typed):
        script, *arguments = shlex.split(line, comments=True)
        small = () if "--help" in arguments else (*TINY, "trainer.epochs=1", "rewind.epoch=0")
        process = run(script, *arguments, *small)
        assert process.returncode == 0, process.stderr
        assert small or "large_large" in process.stdout
    tickets = [Run(f) for f in (tmp_path / "outputs" / "store" / "ticket").iterdir()]
    scores = [run.config["mask"]["score"] for run in tickets]
    assert {s.get("alpha") for s in scores if s["name"] == "large_large"} == {2.0, 3.0}
    assert "magnitude" in {s["name"] for s in scores}


@pytest.mark.cluster
def test_a_sweep_on_a_cluster(cluster: Cluster, folder: Path, tmp_path, monkeypatch):
    """Submitted without waiting; the same command then follows it to its end."""
    write(tmp_path, PACKAGE)
    monkeypatch.chdir(tmp_path)
    typed = (
        "prune.py", "-m", *OURS, "experiment=mine", "mask=mine,magnitude", "mask.percentile=40",
        "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1",
    )  # fmt: skip
    detached = run(*typed, "sweep.detach=true", **cluster.environment)
    assert detached.returncode == 0, detached.stdout + detached.stderr
    process = run(*typed, **cluster.environment)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 cells: 2 done" in process.stdout
