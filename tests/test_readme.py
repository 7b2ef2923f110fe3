"""What the README and the docs tell people to type works, in a clean clone too."""

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import h5py
import pytest
from conftest import REPOSITORY, TINY, environment, result_folder
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from test_cli import class_folders

from lottery import cli, studies, validation
from lottery.analysis import report_options
from lottery.config import typed
from lottery.export import job
from lottery.upkeep import job as upkeep

PAGES = ("README.md", "docs/results.md", "docs/store.md")
PREPARED = "data.dir=/scratch/imagenet_256"  # preprocess.py would have to write it first


def commands(script: str = "prune.py") -> list[tuple[str, ...]]:
    """The arguments of every command of a script on the pages, as a shell would split them."""
    found = []
    for page in PAGES:
        text = (REPOSITORY / page).read_text().replace("\\\n", " ")
        for name, value in re.findall(r'^ *(\w+)="(.*)"$', text, re.MULTILINE):
            text = text.replace(f"${name}", value)
        for line in re.findall(rf"^ *python {re.escape(script)}(.*)$", text, re.MULTILINE):
            found.append(tuple(shlex.split(line, comments=True)))
    return found


def test_benchmarks_import_what_there_is():
    """They are run by hand, so nothing else would tell that a name has gone."""
    gone = []
    for path in sorted(REPOSITORY.glob("benchmarks/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lottery"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names if not hasattr(module, alias.name)):
                    if importlib.util.find_spec(f"{node.module}.{name}") is None:
                        gone.append(f"{path.name}: {node.module}.{name}")
    assert gone == []


@pytest.mark.slow
def test_commands_are_valid(real_data, tmp_path, monkeypatch):
    """Composed and checked like a sweep's cells, with data of this machine."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(real_data / "tensorflow_datasets"))
    ours = {
        "data.root=/data/tfds": f"data.root={real_data / 'tensorflow_datasets'}",
        "data.dir=/data/birds": f"data.dir={class_folders(tmp_path, images=60)}",
        "model.weights=/data/pretrained.keras": f"model.weights={tmp_path / 'some.weights.h5'}",
    }
    with h5py.File(tmp_path / "some.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = [0.0]
    typed = commands()
    assert len(typed) >= 15
    assert set(ours) <= {a for arguments in typed for a in arguments}
    told = studies.find("prune").told_by(lambda config: None)
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for arguments in typed:
            overrides = [ours.get(a, a) for a in arguments if a != "-m"]
            master = loader.load_configuration("config", overrides, RunMode.MULTIRUN)
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=HydraContext(loader, Callbacks()),
                task_function=told, config=master,
            )  # fmt: skip
            cells = sweeper._cells(list(master.hydra.overrides.task))
            assert ("-m" in arguments) == (len(cells) > 1)
            with monkeypatch.context() as patch:
                if any(PREPARED in a for a in arguments):
                    checks = [
                        c
                        for c in validation.CHECKS
                        if c.__name__ not in ("_check_steps", "_check_mask")
                    ]
                    patch.setattr(validation, "CHECKS", checks)
                sweeper._checked(cells)  # raises if one is wrong


def test_commands_that_move_and_export_tickets_have_options_that_exist():
    job.register_schema()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        for script in ("transfer.py", "export.py"):
            typed_there = commands(script)
            assert typed_there
            for arguments in typed_there:
                named = [re.sub("<.*?>", "some", a).replace("$seed", "0") for a in arguments]
                overrides = [cli.as_hydra_takes_it(a, ("format", "precision")) for a in named]
                config = compose(script.removesuffix(".py"), [o for o in overrides if o != "-m"])
                assert typed(config)


def test_commands_that_report_have_options_that_exist():
    report_options.register_schema()
    told = commands("report.py")
    assert any(a.startswith("table=") for arguments in told for a in arguments)
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        for arguments in told:
            named = [re.sub("<.*?>", "some", a) for a in arguments]
            overrides = [cli.as_hydra_takes_it(a, ("table", "table.columns")) for a in named]
            assert report_options.typed(compose("report", overrides))


def test_commands_that_measure_stability_have_options_that_exist():
    typed_there = commands("stability.py")
    assert len(typed_there) >= 4
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for arguments in typed_there:
            overrides = [re.sub("<.*?>", "some", a) for a in arguments]
            master = loader.load_configuration("stability", overrides, RunMode.MULTIRUN)
            assert master.hydra.mode is RunMode.MULTIRUN
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=HydraContext(loader, Callbacks()),
                task_function=lambda config: None, config=master,
            )  # fmt: skip
            cells = sweeper._cells(list(master.hydra.overrides.task))
            assert len(cells) > 1
            assert all(typed(sweeper._composition(cell)) for cell in cells)


def test_commands_that_look_after_the_store_have_options_that_exist():
    upkeep.register_schema()
    typed_there = commands("store.py")
    done = set()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        for arguments in typed_there:
            overrides = cli._worded([re.sub("<.*?>", "some", a) for a in arguments], upkeep.WORDS)
            options = typed(compose("store", overrides))
            upkeep.check(options)
            done.add(options.action)
    assert done == {"ls", "show", "rm", "gc", "verify", "export", "import"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_clean_clone_runs(tmp_path):
    """Nothing that a run needs is missing from git; the lines on Python work on what it left."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not in a git repository")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    process = subprocess.run(
        [sys.executable, "prune.py", *TINY],
        cwd=clone, env=environment(PYTHONPATH=str(clone / "src")), capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    output = clone / result_folder(process.stdout)
    assert output.is_relative_to(clone / "outputs" / "prune")
    page = (REPOSITORY / "README.md").read_text()
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.S):
        found = re.search(r'load_(?:run|ticket)\("(outputs/prune/[^/"]*)', example)
        exec(
            example.replace(found[1] if found else "nothing", str(output))
            .replace("epochs=30", f"epochs=1, outputs={str(tmp_path / 'python')!r}")
            .replace("seed=[0, 1, 2]", "seed=[0]")
            .replace("weights(5)", "weights(1)")
            .replace("at=5", "at=1")
            .replace("2000it", "1it"),
            names,
        )
    assert names["ticket"].mask
    assert names["network"].output_shape == (None, 10)
