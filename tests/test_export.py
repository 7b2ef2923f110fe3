"""export.py: the files, their own accuracy, what is measured against dense, and what is refused."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY, SMALL, composed, dataset, run
from omegaconf import OmegaConf

import lottery
from lottery.data import load
from lottery.data.summary import Sides
from lottery.errors import BrowserError, ConfigError, ExportError, TicketError
from lottery.export import browser, description, interpreter, job, metadata, summary
from lottery.files import read_json, write_json

job.register_schema()


@pytest.fixture(scope="module")
def study(ticket_study, shallow):
    """Laboratory, result, ticket file and data."""
    data = load(ticket_study.config.data)
    return ticket_study.lab, ticket_study.result, ticket_study.file, data


def options(study, *overrides):
    lab, _, file, _ = study
    own = f"ticket={file}", f"paths.store={lab.store.root}"
    return job.checked(composed(*own, *overrides, name="export"))


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    chosen = options(study, "format=[keras,litert,savedmodel]", "precision=[float32,float16,int8]")
    return job.export(lottery.load_ticket(study[2]), chosen, folder), folder


def test_every_file_is_written_and_says_what_it_takes(exported):
    about, folder = exported
    assert {p.name for p in folder.iterdir()} == {
        "export.json", "model.keras", "savedmodel", "model-float32.tflite",
        "model-float16.tflite", "model-int8.tflite",
    }  # fmt: skip
    assert about == read_json(folder / "export.json")
    assert about["input"]["shape"] == [8, 8, 1]
    assert about["input"]["values"] == "pixels from 0 to 255"
    assert about["output"]["classes"] == list("012345")
    assert about["largest_difference"] < 1e-4


def test_files_are_found_after_the_folder_has_moved(exported, tmp_path, monkeypatch):
    _, folder = exported
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    about = read_json(moved / "export.json")
    assert {p.name for p in moved.iterdir()} == {
        "export.json", *(file["path"] for file in about["files"].values())
    }  # fmt: skip
    assert Path(about["ticket"]["file"]).is_absolute()


def test_litert_files_say_what_they_are(study, exported):
    about, folder = exported
    ticket = lottery.load_ticket(study[2])
    for name in ("litert-float32", "litert-float16", "litert-int8"):
        told = metadata.read(folder / about["files"][name]["path"])
        assert told["output"]["classes"] == list(ticket.classes)
        assert told["input"] == about["input"]
        assert told["input"]["before"] == "take an image of 8x8 pixels"
        assert told["ticket"] == ticket.key


def test_a_file_of_integers_is_warned_of(exported):
    about, folder = exported
    takes, gives = (about["files"]["litert-int8"][name] for name in ("takes", "gives"))
    assert (takes["type"], gives["type"]) == ("uint8", "uint8")
    (warning,) = summary.integers(about)
    assert warning.startswith("model-int8.tflite takes uint8 and gives uint8, not float32: a logit")
    file = interpreter.Interpreter(folder / "model-int8.tflite")
    assert (gives["scale"], gives["zero_point"]) == (file.output.scale, file.output.zero_point)
    assert about["files"]["litert-float16"]["gives"] == {"type": "float32"}


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (Sides(500, 256, 224, 224), "resize the centre square of the image to 256x256 pixels, "
         "averaging over areas where it shrinks; cut out the centre of 224x224"),
        (Sides(28, 28, 28, 8), "take an image of 28x28 pixels; resize that to 8x8"),
    ],
)  # fmt: skip
def test_what_comes_before_an_image_is_in_the_file(study, sides, words):
    ticket, data = lottery.load_ticket(study[2]), study[3]
    splits = replace(data, summary=replace(data.summary, sides=sides))
    about = description.of_ticket(ticket, None, SimpleNamespace(splits=splits), pixels=False)
    assert about.before == about.details["input"]["before"] == words
    mean, std = ticket.statistics
    assert (about.mean, about.std) == ([255 * mean[0]], [255 * std[0]])


def test_of_data_that_are_gone_it_says_what_the_options_do(study):
    ticket = lottery.load_ticket(study[2])
    options_of_data = dataset(source="folder", dir="gone", stored_size=64, image_size=32)
    about = description.of_ticket(ticket, options_of_data, None, pixels=True)
    assert about.before.startswith("resize the centre square of the image to 64x64 pixels")
    assert about.before.endswith("; cut out the centre of 32x32; resize that to 8x8")
    unknown = description.of_ticket(ticket, None, None, pixels=True)
    assert unknown.before == "take the centre square of the image; resize that to 8x8"


def test_accuracy_is_that_of_the_files_and_float32_loses_nothing(study, exported):
    about, folder = exported
    expected = study[1]["ticket"]["test_top1"]
    assert about["ticket_accuracy"]["test_top1"] == pytest.approx(expected)
    for name in ("keras", "savedmodel", "litert-float32"):
        assert about["files"][name]["accuracy"]["test_top1"] == pytest.approx(expected)
    for name in ("litert-float16", "litert-int8"):
        assert about["files"][name]["accuracy"]["test_top1"] == pytest.approx(expected, abs=0.05)
    # A file that was damaged after it was written would be found out: its outputs are its own.
    images = study[3].test.images.astype(np.float32)
    logits = interpreter.predict(folder / "model-float32.tflite", images)
    assert np.mean(logits.argmax(1) == study[3].test.labels) == pytest.approx(expected)


def test_the_table_has_top_5_only_where_it_says_something(exported, capsys):
    about, folder = exported
    for classes, shown in ((6, True), (5, False)):
        summary.show_export(about | {"ticket": about["ticket"] | {"classes": classes}}, folder)
        text = capsys.readouterr().out
        assert ("top-5" in text) is shown
        assert text.count(" %") == len(about["files"]) * (1 + shown) + 2 + shown


def test_files_take_pixels_and_answer_as_the_ticket_does(study, exported):
    _, folder = exported
    ticket = lottery.load_ticket(study[2])
    pixels = study[3].test.images[:40].astype(np.float32)
    expected = np.asarray(ticket.model()(ticket.normalised(pixels), training=False))
    loaded = keras.saving.load_model(folder / "model.keras", compile=False)
    served = tf.saved_model.load(folder / "savedmodel")
    for logits in (
        loaded(pixels),
        served.serve(tf.constant(pixels)),
        interpreter.predict(folder / "model-float32.tflite", pixels),
    ):
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    # Integers: pixels as they are stored.
    details = interpreter.Interpreter(folder / "model-int8.tflite").input
    assert details.dtype == np.uint8
    assert details.scale == pytest.approx(1, rel=0.01)


@pytest.mark.slow
def test_sparse_and_lower_precision_files_are_smaller_than_dense_ones(exported, measured):
    """Which of them is the smallest depends on the network: bitmaps have their price."""
    size = {name: file["bytes"] for name, file in exported[0]["files"].items()}
    dense = measured[0]["models"]["dense"]["files"]["litert-float32"]["bytes"]
    for precision in ("float32", "float16", "int8"):
        assert size[f"litert-{precision}"] < min(dense, size["keras"]), precision


def test_normalised_input_and_all_channels_on_request(study, tmp_path):
    chosen = options(study, "format=[litert]", "pixels=false", "compact=false")
    ticket = lottery.load_ticket(study[2])
    about = job.export(ticket, chosen, tmp_path)
    assert about["input"]["values"] == "(pixels / 255 - mean) / std"
    assert all(before == after for before, after in about["channels"].values())
    pixels = study[3].test.images[:8].astype(np.float32)
    logits = interpreter.predict(tmp_path / "model-float32.tflite", ticket.normalised(pixels))
    expected = np.asarray(ticket.model()(ticket.normalised(pixels), training=False))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)


def test_a_smaller_network_that_computes_something_else_is_refused(study):
    ticket = lottery.load_ticket(study[2])
    sparse, other = ticket.model(), ticket.model("rewound")
    with pytest.raises(TicketError, match="compact=false"):
        job.exactness(ticket, sparse, other, None)
    assert job.exactness(ticket, sparse, sparse, None) == 0


def test_a_ticket_whose_outputs_are_not_finite_is_refused(study):
    ticket = lottery.load_ticket(study[2])
    broken = ticket.model()
    broken.weights[-1].assign(broken.weights[-1] * np.nan)
    with pytest.raises(TicketError, match="the ticket's outputs are not finite") as caught:
        job.exactness(ticket, broken, broken, None)
    assert "compact" not in str(caught.value)


# -- against dense -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "export" / "one"
    chosen = options(study, "benchmark=true", "seconds=0.05", "browser=false")
    job.export(lottery.load_ticket(study[2]), chosen, folder)
    return read_json(folder / "benchmark.json"), folder


@pytest.mark.slow
def test_dense_and_ticket_are_counted_and_measured_side_by_side(study, measured):
    found, folder = measured
    dense, ticket = found["models"]["dense"], found["models"]["ticket"]
    assert dense["multiply_adds"] >= ticket["multiply_adds"] > ticket["surviving_multiply_adds"]
    assert dense["surviving_multiply_adds"] == dense["multiply_adds"]
    assert dense["parameters"] >= ticket["parameters"] > ticket["nonzero_parameters"]
    assert dense["files"]["litert-float32"]["bytes"] > ticket["files"]["litert-float32"]["bytes"]
    result = study[1]
    for name, accuracy in dense["accuracy"].items():
        assert accuracy["test_top1"] == pytest.approx(result["dense"]["test_top1"]), name
    conditions = {(e["runtime"], e["batch"], e["threads"]) for e in found["latency"]}
    assert conditions == {(r, b, t) for r in ("litert", "keras") for b in (1, 32) for t in (1, 2)}
    for entry in found["latency"]:
        for which in ("dense", "ticket"):
            times = entry[which]
            assert 0 < times["low_ms"] <= times["median_ms"] <= times["high_ms"]
        ratio = entry["dense"]["median_ms"] / entry["ticket"]["median_ms"]
        assert entry["speedup"] == pytest.approx(ratio)
    assert found["browser"] == {"missing": "not asked for"}
    assert found["memory"]["litert-float32"]["dense"] > 0
    assert found["memory"]["keras"]["dense"] > 0
    assert (folder / "dense" / "model-float32.tflite").exists()


@pytest.mark.slow
def test_without_its_parent_the_dense_twin_has_no_accuracy(study, tmp_path, caplog):
    chosen = options(
        study, "benchmark=true", "seconds=0.05", "browser=false", "format=[litert]",
        f"paths.store={tmp_path / 'none'}",
    )  # fmt: skip
    job.export(lottery.load_ticket(study[2]), chosen, tmp_path)
    found = read_json(tmp_path / "benchmark.json")["models"]
    assert "the dense parent is not in the store" in caplog.text
    assert found["dense"]["accuracy"] == {}
    assert found["ticket"]["accuracy"]
    # Its weights are all there all the same: it is dense.
    assert found["dense"]["surviving_multiply_adds"] == found["dense"]["multiply_adds"]


# -- what is refused -------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_force(study, exported):
    folder = exported[1]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    ticket = lottery.load_ticket(study[2])
    with pytest.raises(ExportError, match=r"model\.keras.* would be overwritten.*force=true"):
        job.export(ticket, options(study, "format=[keras]"), folder)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    (copy / "dense").mkdir()
    (copy / "dense" / "model-int8.tflite").touch()
    for mine in ("benchmark.json", "notes.txt"):
        (copy / mine).touch()
    job.export(ticket, options(study, "format=[keras]", "force=true"), copy)
    assert (copy / "model.keras").stat().st_mtime_ns > before[folder / "model.keras"]
    # Nothing of the export before is left to be taken for this ticket's; what is not ours stays.
    assert {p.name for p in copy.iterdir()} == {"export.json", "model.keras", "notes.txt"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=[keras,onnx]", "format=onnx is unknown (known: keras, litert, savedmodel)"),
        ("format=[]", "format names nothing"),
        ("precision=[int4]", "precision=int4 is unknown; did you mean int8?"),
        ("precision=16", "precision=16 is unknown; did you mean float16?"),
        ("precision=[8,int8]", "precision=8 is unknown; did you mean int8?"),
        ("format=5", "format=5 is unknown (known: keras"),
        ("format=true", "format=True is unknown (known: keras"),
        ("seconds=0", "seconds=0.0 must be > 0"),
        ("calibration=0", "calibration=0 must be >= 1"),
    ],
)
def test_options_that_mean_nothing(study, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        options(study, override)


def test_what_is_named_twice_is_written_once(study):
    assert options(study, "format=[keras,keras]").format == ["keras"]
    assert options(study, "format=litert").format == ["litert"]


def test_images_that_do_not_fit_the_ticket_measure_nothing(study, tmp_path, caplog):
    """Its data set gone, or another in its place: files are written, accuracy is not made up."""
    ticket = lottery.load_ticket(study[2])
    data = {**ticket.provenance["config"]["data"], "classes": [0, 1, 2]}
    provenance = {**ticket.provenance, "config": {**ticket.provenance["config"], "data": data}}
    other = replace(ticket, provenance=provenance)
    about = job.export(other, options(study, "format=[litert]"), tmp_path)
    assert "tells 6 classes apart (0, 1, 2, …), and digits has 3 (0, 1, 2)" in caplog.text
    assert about["files"]["litert-float32"]["accuracy"] is None
    with pytest.raises(ConfigError, match=r"int8 needs images.*data\.root"):
        job.export(other, options(study, "precision=[int8]"), tmp_path / "int8")


def told(ticket, **config):
    return replace(ticket, provenance={**ticket.provenance, "config": config})


def test_a_ticket_of_another_version_is_measured_if_it_tells_its_data(study, tmp_path, caplog):
    ticket = lottery.load_ticket(study[2])
    data = {**ticket.provenance["config"]["data"], "rotation": 15}
    about = job.export(told(ticket, data=data), options(study, "format=[litert]"), tmp_path / "a")
    assert about["files"]["litert-float32"]["accuracy"]
    assert not caplog.text
    about = job.export(told(ticket), options(study, "format=[litert]"), tmp_path / "b")
    assert "no accuracy is measured: the ticket does not tell its data set" in caplog.text
    assert about["files"]["litert-float32"]["accuracy"] is None


# -- a browser that fails --------------------------------------------------------------------------


@pytest.fixture
def unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "npm").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.slow
def test_a_browser_that_fails_costs_no_other_measurement(study, tmp_path, unwritable_cache, caplog):
    """Nobody asked for it; then somebody did, and it failed when all else was measured."""
    ticket, folder = lottery.load_ticket(study[2]), tmp_path / "export"
    quick = ("benchmark=true", "seconds=0.01", "format=[litert]")
    job.export(ticket, options(study, *quick), folder)
    found = read_json(folder / "benchmark.json")
    assert found["latency"]
    assert "the browser is not measured: LiteRT.js cannot be kept" in caplog.text
    assert "LiteRT.js cannot be kept in the cache" in found["browser"]["missing"]


@pytest.mark.slow
def test_a_browser_asked_for_is_looked_at_first(study, tmp_path, unwritable_cache, monkeypatch):
    ticket, folder = lottery.load_ticket(study[2]), tmp_path / "export"
    chosen = options(study, "benchmark=true", "seconds=0.01", "format=[litert]", "browser=true")
    with pytest.raises(BrowserError, match=r"LiteRT\.js cannot be kept in the cache"):
        job.export(ticket, chosen, folder)
    assert not folder.exists()
    monkeypatch.setattr(browser, "check", lambda: None)  # it fails later
    with pytest.raises(BrowserError, match=r"LiteRT\.js cannot be kept in the cache"):
        job.export(ticket, chosen, folder)
    assert read_json(folder / "benchmark.json")["latency"]


# -- as a user types it ----------------------------------------------------------------------------


@pytest.mark.slow
def test_one_command_exports_and_the_report_draws_what_it_measured(study, tmp_path):
    """With a list of formats as the issue of a shell would have it, without brackets."""
    outputs = study[0].store.root.parent
    arguments = (
        f"ticket={study[2]}", f"paths.outputs={outputs}", "format=keras,litert",
        "precision=float32,int8", "benchmark=true", "seconds=0.05", "browser=false",
    )  # fmt: skip
    process = run("export.py", *arguments)
    assert process.returncode == 0, process.stderr
    (warned,) = process.stderr.splitlines()
    assert warned.startswith("model-int8.tflite takes uint8 and gives uint8")
    for text in (
        "resnet20 with 20 % of its weights", "model-int8.tflite", "multiply-adds without zeros",
        "LiteRT float32 batch 1, 1 thread", "In theory: ", "Measured, one image on one thread: ",
        "No browser was measured: not asked for.",
    ):  # fmt: skip
        assert text in process.stdout
    tables = process.stdout.split("In theory")[0].splitlines()
    widest = max((line for line in tables if not line.startswith("result: ")), key=len)
    assert len(widest) <= 80, widest
    (folder,) = (outputs / "export").iterdir()
    assert process.stdout.splitlines()[-1] == f"result: {folder / 'benchmark.json'}"
    again = run("export.py", *arguments, f"output={folder}")
    assert again.returncode == 1
    assert re.fullmatch(r"error: .* holds an export already; .*force=true\n", again.stderr)

    result = {**study[1], "store": str(study[0].store.root)}
    cell = outputs / "prune" / "sweep" / "0"
    cell.mkdir(parents=True)
    write_json(cell / "result.json", result)
    (cell / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(composed(*SMALL))))
    write_json(cell / "status.json", {"status": "done", "started": 0, "updated": 1})
    report = run("report.py", f"sweep={cell.parent}", "logger.mode=disabled")
    assert report.returncode == 0, report.stderr
    assert (cell.parent / "report" / "latency.png").exists()
    assert "so in theory it is" in report.stdout


def test_bad_input_is_one_line(tmp_path):
    for arguments, message in (
        ((), r"say which: ticket=<ticket file, run folder or report>.*"),
        ((f"ticket={tmp_path}/none",), r"there is no ticket .*none"),
        (("ticket=x", "formats=keras"), r"option formats is unknown; did you mean format or .*"),
        (("ticket=x", "precision=16,int8"), r"precision=16 is unknown; did you mean float16\?"),
    ):
        process = run("export.py", *arguments, f"paths.outputs={tmp_path}")
        assert process.returncode == 1
        assert re.fullmatch(rf"error: {message}\n", process.stderr), process.stderr


@pytest.mark.slow
def test_an_output_that_is_a_file_and_a_sweep_of_exports(study, tmp_path):
    """Two exports at once get a folder each, and the working directory stays as it is."""
    (tmp_path / "file").touch()
    arguments = (f"ticket={study[2]}", f"paths.outputs={tmp_path}/outputs", "format=litert")
    process = run("export.py", *arguments, f"output={tmp_path}/file")
    assert process.returncode == 1
    assert re.fullmatch(r"error: output=.*/file is a file; .*\n", process.stderr), process.stderr
    before = set(REPOSITORY.iterdir())
    process = run("export.py", *arguments, "compact=true,false", "-m")
    assert process.returncode == 0, process.stderr
    assert set(REPOSITORY.iterdir()) == before
    exports = tmp_path / "outputs" / "export"
    assert len(list(exports.glob("*/export.json"))) == 2
    assert {p.name for p in exports.iterdir() if p.is_file()} == {"multirun.yaml"}
