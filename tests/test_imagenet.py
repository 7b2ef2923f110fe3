"""The reference study in miniature: from ImageNet's JPEGs to a ticket, as the README says it."""

from pathlib import Path

import pytest
from conftest import result_folder, run

from lottery.files import read_json

MINIATURE = (
    "experiment=imagenet_mobilenet_v2", "data.image_size=32", "data.validation=0.2",
    "model.width=0.1", "trainer.epochs=2", "trainer.batch_size=16", "trainer.precision=float32",
    "rewind.keep=[1]", "logger=csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def records(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two original JPEGs of each of forty classes, prepared."""
    folder = tmp_path_factory.mktemp("imagenet")
    photographs = sorted((real_data / "imagenet_sample" / "train").glob("*/*.JPEG"))[:80]
    for i, photograph in enumerate(photographs):
        target = folder / "images" / f"class{i % 40:02d}" / photograph.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(photograph)
    done = run("preprocess.py", f"source={folder / 'images'}", f"output={folder / 'records'}",
               "size=36", "preprocess=processes")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train 80 images of 40 classes" in done.stdout
    return folder / "records"


@pytest.mark.slow
def test_the_grid_is_planned(records, tmp_path):
    done = run("prune.py", "-m", "experiment=imagenet_mobilenet_v2", f"data.dir={records}",
               "data.image_size=32", "trainer.batch_size=16", "sweep.dry_run=true",
               f"paths.outputs={tmp_path / 'out'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "95: 0 done, 0 underway elsewhere, 95 to run in 95 jobs" in done.stdout
    # E + M x sum(E - k)
    assert f"epochs to train {100 + 19 * (95 + 90 + 85 + 80 + 75):,}, " in done.stdout


@pytest.mark.slow
def test_a_cell_runs_end_to_end(records, tmp_path):
    done = run("prune.py", *MINIATURE, f"data.dir={records}", "mask.percentile=88",
               "rewind.epoch=1", f"paths.outputs={tmp_path / 'out'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = read_json(result_folder(done.stdout) / "result.json")
    assert result["dense"]["epochs"] == 2
    assert result["ticket"]["epochs"] == 1
    assert result["mask"]["density"] == pytest.approx(0.12, abs=1e-4)
    assert result["dense"]["images_per_second"] > 0
