"""Ticket files that somebody made by hand: each loads and works, or is refused in one line."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from conftest import composed, dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from lottery import choices, models, tickets
from lottery.analysis import transfer_sweep
from lottery.errors import TicketError
from lottery.models.kernels import kernels
from lottery.options import bound_errors
from lottery.tensors import _checksum
from lottery.tickets import Network, Ticket
from lottery.tickets.file import FORMAT, VERSION

WIDTH, CLASSES = 0.02, ("a", "b", "c")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Description and tensors of a sound file."""
    keras.utils.set_random_seed(0)
    about = Network("lenet_300_100", (4, 4, 1), {"width": WIDTH, "dropout": 0.1})
    network = models.build(about.name, about.input_shape, len(CLASSES), width=WIDTH, dropout=0.1)
    generator = np.random.default_rng(0)
    mask = {k.path: generator.random(k.shape) < 0.5 for k in kernels(network)}
    weights = {v.path: np.array(v) for v in network.variables}
    weights |= {path: weights[path] * m for path, m in mask.items()}
    data = dataclasses.asdict(composed().data)
    provenance = {
        "runs": {"dense": "1", "rounds": [], "ticket": "2"},
        "data": "digits",
        "seconds": 1.5,
        "rewound_to": "1ep",
        "pristine": False,
        "seen": [
            {"data": dataclasses.asdict(composed().data), "fingerprint": {"source": "digits"}}
        ],
        "config": {"data": data, "seed": 0},
        "versions": {"lottery": "1"},
        "mask": {"percentile": 50.0},
    }
    ticket = Ticket(about, CLASSES, (0.5,), (0.5,), mask, weights, weights, provenance)
    file = tmp_path_factory.mktemp("tickets") / tickets.FILE
    tickets.write(ticket, file)
    with safe_open(file, framework="np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return json.loads(opened.metadata()["about"]), tensors, file.with_name("made.safetensors")


def used(about, tensors, file):
    """Whatever the program does with a ticket, of a file with a valid checksum."""
    text = json.dumps(about)
    header = {"format": FORMAT, "version": str(VERSION), "about": text}
    save_file(tensors, file, metadata=header | {"sha256": _checksum(text, tensors)})
    ticket = tickets.read(file)
    assert ticket.digest
    assert 0 <= ticket.density <= 1
    json.dumps(ticket.summary(str(file))).encode()
    tickets.write(ticket, file)
    assert tickets.read(file).digest == ticket.digest
    origin = transfer_sweep._origin(ticket.summary(str(file)))
    assert 0 <= origin.mask["density"] <= 1
    assert 0 <= origin.percentile <= 100
    for data in (
        ticket.provenance["config"]["data"],
        *(s["data"] for s in ticket.provenance["seen"]),
    ):
        assert tickets.ticket.data_name(data)
        if data["source"] in choices.source.names():  # else of a plug-in that is not here
            assert bound_errors(dataset(**data)) == []
    for which in ("trained", "rewound"):
        network = ticket.model(which)
        image = ticket.normalised(np.zeros((1, *ticket.network.input_shape)))
        assert np.isfinite(network(image)).all()
    return ticket


def test_the_sound_file_works(parts):
    assert used(*parts).classes == CLASSES


def places(value, at=()):
    """Where a value can be replaced in a JSON tree."""
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


LEAVES = st.sampled_from([
    None, True, -1, 0, 1, 3, 2**31, 10**400, 0.0, 1e-300, 1e300, float("nan"), float("inf"), "",
    "resnet20", "\ud800", "../x", [], [0], [None], ["", ""], {}, {"depth": 3},
])  # fmt: skip


GONE = object()


def replaced(about, place, value):
    """The description with another value at a place in it, or with none."""
    changed = json.loads(json.dumps(about))
    *outer, last = place
    inner = changed
    for key in outer:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return changed


@st.composite
def descriptions(draw, about):
    """The description with one place in it deleted or replaced."""
    place = draw(st.sampled_from([p for p in places(about) if p]))
    gone = draw(st.booleans()) and draw(st.booleans())
    return replaced(about, place, GONE if gone else draw(LEAVES))


# One of each kind.
ROLES = (
    "mask/fc1/kernel", "trained/fc1/kernel", "rewound/fc2/bias",
    "trained/seed_generator/seed_generator_state",
)  # fmt: skip
CHANGES = {
    "int8": lambda a: a.astype(np.int8),
    "float16": lambda a: np.zeros_like(a, np.float16),
    "float64": lambda a: a.astype(np.float64),
    "nan": lambda a: (a * np.float32("nan")).astype(np.float32),
    "short": lambda a: a[:-1],
    "empty": lambda a: a[:0],
    "one": lambda a: a.ravel()[:1].copy(),
    "deep": lambda a: a[None],
    "scalar": lambda a: np.array(a.ravel()[0]),
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_description_works_or_is_refused_in_one_line(parts, data):
    about, tensors, file = parts
    said = ""
    try:
        used(data.draw(descriptions(about)), tensors, file)
    except TicketError as error:
        said = str(error)
    assert "\n" not in said
    said.encode()


@pytest.mark.parametrize("change", CHANGES)
def test_changed_tensors_work_or_are_refused_in_one_line(parts, change):
    about, tensors, file = parts
    for name in ROLES:
        array = tensors[name]
        changed = CHANGES[change](array)
        if changed.dtype == array.dtype and np.array_equal(changed, array):
            continue
        with pytest.raises(TicketError) as refused:
            used(about, {**tensors, name: changed}, file)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", [True, False])
def test_tensors_too_few_or_too_many_are_refused(parts, missing):
    about, tensors, file = parts
    for name in ROLES:
        array = tensors[name]
        others = {n: a for n, a in tensors.items() if n != name}
        with pytest.raises(TicketError, match=r"^[^\n]*$"):
            used(about, others if missing else {**tensors, f"{name}x": array}, file)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("std", [0], "std is '\\[0\\]'"),
        ("classes", ["a", None, "c"], "classes is"),
        ("masked", {"fc1/kernel": [2**40, 2**40]}, "tensor is 'mask/"),
    ],
)
def test_what_cannot_be_is_named(parts, key, value, words):
    about, tensors, file = parts
    with pytest.raises(TicketError, match=words):
        used({**about, key: value}, tensors, file)


DATA = ("provenance", "config", "data")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (
            ("provenance", "seen", 0, "data", "validation"),
            float("nan"),
            r"seen\[0\].data.validation",
        ),
        (("provenance", "seen", 0, "data", "source"), GONE, r"there is no 'source'"),
        ((*DATA, "test_fraction"), 2, r"config.data.test_fraction=2.0 must be > 0 and < 1"),
        ((*DATA, "test_fraction"), "a fifth", "made by hand"),
        ((*DATA, "crop"), "no", "config.data.crop=no is unknown"),
        ((*DATA, "dir"), "${oc.env:HOME}", "config.data is"),
        (("provenance", "config", "seed"), GONE, "there is no 'seed'"),
        (("provenance", "config", "seed"), "0", "config.seed is"),
        (("provenance", "mask"), GONE, "there is no 'mask'"),
        (("provenance", "mask", "percentile"), GONE, "there is no 'percentile'"),
        (("provenance", "mask"), {"percentile": 50, "density": "a"}, "mask.density is"),
        (("provenance", "mask"), {"percentile": 50, "kernels": 9}, "there is no 'prunable'"),
        (
            ("provenance", "results"),
            {"ticket": {"multiply_adds": {"network": 0, "computed": 1}}},
            "multiply_adds.network is '0'",
        ),
    ],
)
def test_provenance_that_the_program_could_not_use_is_refused(parts, place, value, words):
    about, tensors, file = parts
    with pytest.raises(TicketError, match=rf"^[^\n]*{words}[^\n]*$"):
        used(replaced(about, place, value), tensors, file)


def test_options_of_data_get_the_types_that_they_have_here(parts):
    about, tensors, file = parts
    for value, meant in (("0.3", 0.3), (GONE, 0.2)):
        read = used(replaced(about, (*DATA, "test_fraction"), value), tensors, file)
        assert read.provenance["config"]["data"]["test_fraction"] == meant


def test_a_network_too_large_for_its_weights_is_refused_before_it_takes_memory(parts):
    about, tensors, file = parts
    network = {**about["network"], "input_shape": [60_000, 60_000, 1]}  # 100 GB
    with pytest.raises(TicketError, match="does not fit"):
        used({**about, "network": network}, tensors, file)
