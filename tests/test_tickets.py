"""The ticket file: what is in it, that it is verified, and that it becomes a Keras network."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import result_folder, run
from safetensors.numpy import load_file, save_file

import lottery
from lottery import tickets
from lottery.errors import TicketError
from lottery.files import read_json, write_json


@pytest.fixture
def study(ticket_study, shallow):
    return ticket_study.config, ticket_study.lab, ticket_study.result, ticket_study.run


@pytest.fixture
def file(study, tmp_path):
    tickets.write(tickets.of_run(study[-1]), tmp_path / tickets.FILE)
    return tmp_path / tickets.FILE


def test_a_file_holds_the_run_bit_for_bit(study, file):
    config, _, result, found = study
    ticket = lottery.load_ticket(file)
    begun = found.weights(found.points[0])
    assert found.points[0] == config.rewind.point
    for path, array in found.weights().items():
        np.testing.assert_array_equal(ticket.trained[path], array)
        np.testing.assert_array_equal(ticket.rewound[path], begun[path])
        assert ticket.trained[path].dtype == array.dtype
    assert ticket.mask.keys() == found.mask.keys()
    for path, mask in found.mask.items():
        np.testing.assert_array_equal(ticket.mask[path], mask)
        assert not ticket.trained[path][~mask].any()
        assert not ticket.rewound[path][~mask].any()
    assert ticket.classes == tuple("012345")
    assert ticket.network.input_shape == (8, 8, 1)
    assert ticket.mean == tuple(config.data.mean)
    assert ticket.density == result["mask"]["density"]
    assert ticket.key == result["ticket"]["key"]


def test_its_network_scores_what_the_run_did(study, file):
    """Two lines, then pixels in and classes out, as the README says."""
    config, _, result, _ = study
    ticket = lottery.load_ticket(file)
    network = ticket.model()
    from lottery.data import load

    test = load(config.data).test
    scale = [np.reshape(np.float32(v), (1, 1, 1, -1)) for v in (ticket.mean, ticket.std)]
    logits = network.predict((test.images / np.float32(255) - scale[0]) / scale[1], verbose=0)
    assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(result["ticket"]["test_top1"])
    rewound = ticket.model("rewound")
    path = next(iter(ticket.mask))
    (kernel,) = (v for v in rewound.variables if v.path == path)
    np.testing.assert_array_equal(np.array(kernel), ticket.rewound[path])


def test_provenance_says_where_it_comes_from_and_what_it_cost(study, file):
    config, _, result, found = study
    about = lottery.load_ticket(file).provenance
    rounds = found.ancestors[1:]
    assert about["runs"] == {
        "dense": result["dense"]["key"],
        "rounds": [r.key for r in rounds],
        "ticket": result["ticket"]["key"],
    }
    assert len(rounds) == 2  # 50 and 75 percent, before 80
    assert about["config"]["model"]["name"] == config.model.name
    assert about["versions"]["keras"]
    assert about["rewound_to"] == "1ep"
    cost = sum(r.result["seconds"] for r in [*found.ancestors, found])
    assert about["seconds"] == pytest.approx(cost)


def test_the_digest_tells_what_a_ticket_is_and_nothing_else(study, file):
    ticket = lottery.load_ticket(file)
    assert ticket.digest == tickets.of_run(study[-1]).digest
    assert replace(ticket, provenance={"runs": {}}).digest == ticket.digest
    path = next(iter(ticket.mask))
    other = {**ticket.rewound, path: ticket.rewound[path] * np.float32(1.5)}
    assert replace(ticket, rewound=other).digest != ticket.digest
    wider = {**ticket.mask, path: np.ones_like(ticket.mask[path])}  # survivors that are at zero
    assert replace(ticket, mask=wider).digest != ticket.digest
    assert replace(ticket, classes=tuple("543210")).digest != ticket.digest


def test_size_is_that_of_the_survivors_twice_and_a_bit_a_weight(study, file):
    ticket = lottery.load_ticket(file)
    whole = sum(a.nbytes for p, a in ticket.trained.items() if p not in ticket.mask)
    kept = sum(4 * int(m.sum()) for m in ticket.mask.values())
    bits = sum(-(-m.size // 8) for m in ticket.mask.values())
    tensors = sum(a.nbytes for a in load_file(file).values())
    assert tensors == 2 * (whole + kept) + bits


@pytest.mark.parametrize("place", [400, -40], ids=["header", "weights"])
def test_one_wrong_byte_is_noticed(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(TicketError, match="damaged"):
        tickets.read(file)


def test_a_changed_description_is_noticed(file):
    content = file.read_bytes()
    assert content.count(b"resnet20") > 0
    file.write_bytes(content.replace(b"resnet20", b"resnet21"))
    with pytest.raises(TicketError, match="checksum"):
        tickets.read(file)


def test_what_is_no_ticket_file_is_said_in_one_line(file, tmp_path):
    (tmp_path / "cut").write_bytes(file.read_bytes()[:1000])
    (tmp_path / "text").write_text("not a ticket")
    save_file({"a": np.zeros(3)}, tmp_path / "weights")
    newer = tmp_path / "newer"
    newer.write_bytes(file.read_bytes().replace(b'"version":"1"', b'"version":"9"'))
    for name, message in {
        "cut": "damaged, or no ticket file",
        "text": "damaged, or no ticket file",
        "weights": "but no ticket file",
        "newer": "newer version",
        "nothing": "there is no ticket",
    }.items():
        with pytest.raises(TicketError, match=message) as raised:
            lottery.load_ticket(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_network_that_this_version_builds_otherwise_is_refused(study):
    ticket = tickets.of_run(study[-1])
    wider = replace(ticket, network=replace(ticket.network, options={"width": 0.5}))
    with pytest.raises(TicketError, match=r"does not fit resnet20.*keras"):
        wider.model()
    unknown = replace(ticket, network=replace(ticket.network, name="resnet21"))
    with pytest.raises(TicketError, match="resnet21 is unknown"):
        unknown.model()


def test_a_dense_run_is_no_ticket(study):
    with pytest.raises(TicketError, match="not a network with a mask"):
        lottery.load_ticket(study[-1].parent.path)


def test_every_way_to_name_a_ticket_leads_to_it(study, file, tmp_path):
    *_, found = study
    digest = tickets.of_run(found).digest
    report = tmp_path / "sweep" / "report"
    report.mkdir(parents=True)
    shutil.copy(file, report / "winning_ticket.safetensors")
    verdict = {"winner": {"ticket_file": "elsewhere/winning_ticket.safetensors"}}
    write_json(report / "winning_ticket.json", verdict)
    for path in (file, file.parent, found.path, report, report.parent, *report.glob("*.json")):
        assert lottery.load_ticket(path).digest == digest
    write_json(report / "winning_ticket.json", {"winner": None, "reason": "none matches"})
    with pytest.raises(TicketError, match="names no winning ticket: none matches"):
        lottery.load_ticket(report)


def test_damaged_files_around_a_ticket_are_said_in_one_line(study, file, tmp_path):
    for name, content in {
        "winning_ticket.json": ('{"winner": ', "[]", '{"winner": {"ticket_file": null}}'),
        "result.json": ('{"ticket"', "{}"),
        "done.json": ("{}",),
    }.items():
        for number, text in enumerate(content):
            folder = tmp_path / f"{name}_{number}"
            folder.mkdir()
            (folder / name).write_text(text)
            with pytest.raises(TicketError, match=r"damaged|has no file") as raised:
                lottery.load_ticket(folder)
            assert "\n" not in str(raised.value)
    mask = next((study[1].store.root / "mask").iterdir())
    with pytest.raises(TicketError, match="not a network with a mask"):
        lottery.load_ticket(mask)


def test_a_report_that_was_copied_leads_to_its_own_ticket(file, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    ticket = lottery.load_ticket(file)
    for folder, found in ((first, ticket), (second, replace(ticket, classes=tuple("abcdef")))):
        folder.mkdir()
        tickets.write(found, folder / "winning_ticket.safetensors")
        verdict = {"winner": {"ticket_file": str(first / "winning_ticket.safetensors")}}
        write_json(folder / "winning_ticket.json", verdict)
    assert lottery.load_ticket(second).classes == tuple("abcdef")


@pytest.mark.slow
def test_prune_leaves_a_ticket_file_beside_its_result(tmp_path):
    options = ("model=lenet_300_100", "model.width=0.1", "trainer.epochs=2", "rewind.epoch=1")
    process = run("prune.py", *options, "logger=csv", f"paths.outputs={tmp_path}")
    assert process.returncode == 0, process.stderr
    folder = result_folder(process.stdout)
    result = read_json(folder / "result.json")
    ticket = lottery.load_ticket(folder)
    assert ticket.key == result["ticket"]["key"]
    assert json.dumps(ticket.provenance["config"])
    missing = folder.parent / "2020"
    with pytest.raises(TicketError, match=f"the newest in .* is .*{folder.name}"):
        lottery.load_ticket(missing)
