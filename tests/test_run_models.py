"""A finished run as a Keras network, and the package's list of what it offers."""

import subprocess
import sys

import numpy as np
import pytest

import lottery
from lottery.data import load
from lottery.errors import CheckpointError, StoreError
from lottery.files import read_json, write_json
from lottery.models.loading import misfit

pytestmark = pytest.mark.usefixtures("shallow")


def test_its_network_scores_what_the_run_did(ticket_study):
    test = load(ticket_study.config.data).test
    for run in (ticket_study.run, ticket_study.run.parent):
        data = run.config["data"]
        images = (test.images / np.float32(255) - np.float32(data["mean"])) / np.float32(
            data["std"]
        )
        logits = run.model().predict(images, verbose=0)
        assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(run.result["test_top1"])


def test_at_a_point_it_has_the_weights_of_that_point(ticket_study):
    dense = ticket_study.run.parent
    early, late = dense.model(at=1), dense.model()
    for network, weights in ((early, dense.weights(1)), (late, dense.weights())):
        assert misfit(network, weights, all_variables=True) is None
        for variable in network.variables:
            np.testing.assert_array_equal(np.array(variable), weights[variable.path])
    assert any((dense.weights(1)[path] != w).any() for path, w in dense.weights().items())
    with pytest.raises(CheckpointError, match="kept no 17ep"):
        dense.model(at=17)


def test_another_network_of_that_name_is_one_line(ticket_study):
    run = ticket_study.run
    place, about = run.path / "config.json", run.config
    try:
        write_json(place, {**about, "model": {**about["model"], "width": 2.0}})
        with pytest.raises(StoreError, match="does not fit resnet20 as this version") as caught:
            run.model()
        assert len(str(caught.value).splitlines()) == 1
        write_json(place, {**about, "model": {"name": "of_a_plugin"}})
        with pytest.raises(StoreError, match=f"the network of run {run.key} cannot be built"):
            run.model()
    finally:
        write_json(place, about)
    assert read_json(place) == about


def test_completion_lists_the_api_and_imports_nothing():
    program = "import sys, lottery; print(*dir(lottery)); assert 'numpy' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == sorted(lottery.__all__)
    assert {"load_run", "load_ticket"} <= set(dir(lottery))
