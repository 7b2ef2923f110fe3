"""Early stopping: exactly what Keras would do, whenever it is interrupted, and what comes of it."""

import signal
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import TINY, composed, laboratory, run

from lottery import studies, tickets
from lottery.errors import ConfigError, StoppedError
from lottery.experiment import find_ticket, prepare, train_dense
from lottery.files import read_csv
from lottery.lineage import lineage
from lottery.points import Point
from lottery.replay import dense_state
from lottery.runs import Run, runs_of
from lottery.training.checkpoints import CheckpointFolder, equal
from lottery.training.keras_callbacks import _library
from lottery.training.saving import Saver
from lottery.training.tally import Tally
from lottery.validation import range_errors

# A learning rate at which the loss of a tiny network goes up and down.
EIGHT = (
    *TINY, "trainer.epochs=12",
    "optimizer.learning_rate=0.5", "optimizer.momentum=0.95", "schedule=constant",
    "mask.percentile=60",
)  # fmt: skip
STOPS = (*EIGHT, "callback=[early_stopping]", "callback.early_stopping.patience=2",
         "callback.early_stopping.restore_best_weights=true")  # fmt: skip


def checked(config, name: str = "prune") -> list[str]:
    return studies.find(name).check(config)


def metrics(run: Run) -> list[float]:
    return [float(row["val_loss"]) for row in read_csv(run.path / "metrics.csv")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    lab = laboratory(tmp_path_factory.mktemp("study"))
    config = composed(*STOPS, "rewind.keep=[0,1,2,3,4,5,6,7]")
    return config, lab, runs_of(find_ticket(config, lab))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same dense network, which nobody stops."""
    lab = laboratory(tmp_path_factory.mktemp("whole"))
    kept = "rewind.keep=[0,1,2,3,4,5,6,7,8,9,10,11]"
    return train_dense(composed(*EIGHT, kept), lab)


def stopped_by_keras(losses: list[float], **options) -> tuple[int, int]:
    """After how many epochs Keras ends a training with these, and which has its weights."""

    class Model:
        stop_training = False

        def get_weights(self):
            return [np.array(epoch)]

        def set_weights(self, weights):
            self.best = int(weights[0])

    callback = keras.callbacks.EarlyStopping(restore_best_weights=True, mode="min", **options)
    model = Model()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    callback.on_train_end()
    return epoch + 1, model.best + 1


def test_a_training_stops_where_that_of_keras_would_with_the_best_weights(study, whole):
    _, _, runs = study
    dense = runs["dense"]
    stop, best = stopped_by_keras(metrics(whole), patience=2)
    assert best < stop < 12  # or there is nothing to see here
    assert dense.result["epochs"] == dense.result["stopped_epoch"] == stop
    assert dense.result["restored_epoch"] == best
    assert metrics(dense) == metrics(whole)[:stop]
    final, at_best = dense.weights(), whole.weights(best)
    assert all(np.array_equal(final[path], at_best[path]) for path in final)
    assert dense.result["val_loss"] == pytest.approx(metrics(whole)[best - 1], abs=1e-6)
    assert [str(point) for point in dense.points][-1] == f"{stop}ep"
    assert dense.result["images_trained"] == stop * dense.steps_per_epoch * 256


def test_its_ticket_has_a_memory_of_its_own_and_exact_zeros(study):
    _, _, runs = study
    ticket = runs["ticket"]
    losses = metrics(ticket)
    stop, best = stopped_by_keras([9.9, *losses], patience=2)
    assert (ticket.result["stopped_epoch"], ticket.result["restored_epoch"]) == (stop, best)
    assert ticket.result["epochs"] == stop - 1  # from the epoch that it was rewound to
    assert [str(point) for point in ticket.points] == ["1ep", f"{stop}ep"]
    assert not any(ticket.weights()[path][~kept].any() for path, kept in ticket.mask.items())
    assert not any(path.name.startswith("memory") for path in ticket.path.rglob("*"))
    tickets.of_run(ticket).model()


@pytest.mark.parametrize("every", [1, 3])
def test_it_ends_bit_for_bit_the_same_wherever_it_is_interrupted(
    study, tmp_path, monkeypatch, every
):
    """Killed after the best epoch or the last, stopped within one; with few checkpoints, too."""
    config, _, runs = study
    spe = runs["dense"].steps_per_epoch
    best, stop = (runs["dense"].result[f"{name}_epoch"] for name in ("restored", "stopped"))
    for step in (best * spe, stop * spe - 1, stop * spe)[:: 1 if every == 1 else 2]:
        lab = laboratory(tmp_path / str(step))
        trainer = replace(config.trainer, checkpoint_epochs=every)
        own = replace(config, trainer=trainer)
        with monkeypatch.context() as patch:
            (interrupt_after if step % spe == 0 else ask_to_stop_after)(step, patch)
            with pytest.raises((StoppedError, KeyboardInterrupt)):
                train_dense(own, lab)
        dense = train_dense(own, lab)
        assert dense.key == runs["dense"].key
        assert equal(dense.state(), runs["dense"].state())
        assert metrics(dense) == metrics(runs["dense"])
        names = ("stopped_epoch", "restored_epoch", "epochs", "val_loss", "test_top1")
        assert [dense.result[n] for n in names] == [runs["dense"].result[n] for n in names]


def interrupt_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Kill the training once a checkpoint of this step, or the first one after it, is written."""
    save = CheckpointFolder.save

    def killed(self, state, progress, *rest):
        save(self, state, progress, *rest)
        if progress.step >= step:
            raise KeyboardInterrupt

    patch.setattr(CheckpointFolder, "save", killed)
    patch.setattr(Saver, "__exit__", lambda *_: None)


def ask_to_stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    add = Tally.add

    def signalled(self, *arguments, **named):
        add(self, *arguments, **named)
        if self.step == step:
            signal.raise_signal(signal.SIGTERM)

    patch.setattr(Tally, "add", signalled)


def test_points_before_the_stop_are_replayed_and_later_ones_refused(study, whole, tmp_path):
    config, lab, runs = study
    dense, stop = runs["dense"], runs["dense"].result["stopped_epoch"]
    other = laboratory(tmp_path)
    few = train_dense(replace(config, rewind=replace(config.rewind, keep=[])), other)
    assert len(few.points) < len(dense.points)
    assert equal(dense_state(config, other, few, Point(3)), whole.state(3))
    late = replace(config, rewind=replace(config.rewind, epoch=stop + 1))
    message = (
        f"epoch {stop + 1} lies after epoch {stop}, after which the dense network was stopped by "
        "one of its callbacks: take an earlier point"
    )
    with pytest.raises(ConfigError, match=message):
        find_ticket(late, lab)
    there = replace(late, paths=replace(late.paths, store=str(lab.store.root)))
    assert checked(there) == [message]  # before anything is submitted


def test_only_points_that_are_read_must_have_been_reached(study, caplog):
    """A command that works the first time does so the second; so do others with its rewinding."""
    config, lab, runs = study
    beyond = f"rewind.epoch={runs['dense'].result['stopped_epoch'] + 1}"
    for name in ("reinit", "signs", "finetune"):
        own = composed(*STOPS, f"rewind={name}", beyond, f"paths.store={lab.store.root}")
        assert checked(own) == []
        prepare(config, lab, [own])
        assert checked(replace(own, mask=replace(own.mask, percentile=20.0))) == []
    assert "lies after" not in caplog.text
    late = composed(*STOPS, "rewind=lr", beyond, f"paths.store={lab.store.root}")
    assert "lies after epoch" in checked(late)[0]
    assert checked(late, "train") == []  # which reads none
    children = composed(*STOPS, beyond, f"paths.store={lab.store.root}", name="stability")
    assert "lies after epoch" in checked(children, "stability")[0]
    scored = composed(*STOPS, f"mask.at={beyond.partition('=')[2]}ep", "rewind.epoch=1",
                      f"paths.store={lab.store.root}")  # fmt: skip
    assert "lies after epoch" in checked(scored)[0]


def test_a_cell_beyond_the_stop_keeps_no_other_from_being_prepared(study, caplog):
    config, lab, runs = study
    stop = runs["dense"].result["stopped_epoch"]
    late, early = (replace(config, rewind=replace(config.rewind, epoch=e)) for e in (stop + 1, 0))
    early = replace(early, mask=replace(early.mask, percentile=30.0))
    prepare(config, lab, [late, early])
    assert f"epoch {stop + 1} lies after epoch {stop}" in caplog.text
    assert all(mask.done for mask in lineage(early, lab.store).masks)


def test_other_metrics_and_names_of_keras(tmp_path):
    own = ("callback.early_stopping.monitor=val_accuracy", "trainer.epochs=4")
    dense = train_dense(composed(*STOPS, *own), laboratory(tmp_path))
    assert dense.result["restored_epoch"] == 1 + int(
        np.argmax([float(row["val_top1"]) for row in read_csv(dense.path / "metrics.csv")])
    )
    wrong = composed(*STOPS, "callback.early_stopping.monitor=val_los")
    (said,) = range_errors(wrong)
    assert said.startswith("callback.early_stopping.monitor=val_los is unknown; did you mean val_l")


def test_what_it_does_not_go_with_is_said():
    (said,) = range_errors(composed(*STOPS, "mask=gradual"))
    assert said.startswith("callback=early_stopping may end a training before mask.during=gradual")


@pytest.mark.parametrize("name", sorted(_library.EXCLUDED))
def test_others_of_keras_are_refused_with_the_way_out(name):
    from lottery import choices

    assert choices.callback.excluded(name).startswith(f"callback={name} cannot be chosen: ")


def test_every_callback_of_keras_is_a_choice_or_refused():
    known = {n for n in dir(keras.callbacks) if isinstance(getattr(keras.callbacks, n), type)}
    assert known - {"Callback", "CallbackList", "EarlyStopping"} == {
        name for name in _library.EXCLUDED if not name.islower()
    }


def test_the_command_line_says_why():
    said = run("prune.py", "callback=[model_checkpoint]").stderr
    assert said.startswith("error: callback=model_checkpoint cannot be chosen: the store keeps")
    assert said.count("\n") == 1


def test_what_is_rewound_to_the_end_is_as_it_was_before_the_weights_were_restored(
    study, whole, tmp_path, caplog
):
    """After a stop as after the last epoch; its optimizer is that of the end, too."""
    config, lab, runs = study
    stop = runs["dense"].result["stopped_epoch"]
    assert not equal(runs["dense"].state(stop), whole.state(stop))
    assert equal(dense_state(config, lab, runs["dense"], Point(stop)), whole.state(stop))
    assert "with weights that a callback set there" in caplog.text
    patient = composed(
        *STOPS, f"trainer.epochs={stop}", "callback.early_stopping.patience=99", "rewind.keep=[2]"
    )
    dense, other = train_dense(patient, lab), laboratory(tmp_path)
    assert "stopped_epoch" not in dense.result
    assert dense.result["restored_epoch"] < stop
    assert equal(dense_state(patient, lab, dense, Point(stop)), whole.state(stop))
    last = composed(*STOPS, "callback.early_stopping.monitor=loss", "trainer.epochs=1")
    assert train_dense(last, other).result["restored_epoch"] == 1  # those it has anyway
    caplog.clear()
    dense_state(last, other, train_dense(last, other), Point(1))
    assert "replaying" not in caplog.text
