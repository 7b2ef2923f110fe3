"""Files of arrays notice every wrong bit; what they are part of says what to do."""

import os
from pathlib import Path

import numpy as np
import pytest

from lottery import tensors
from lottery.errors import DamagedError, StoreError
from lottery.pruning import masks
from lottery.training.checkpoints import CheckpointFolder, Progress

ARRAYS = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "b": np.array(-0.0),
    "c": np.array([], np.uint8),
    "d": np.array([[True], [False]]),
}


def test_arrays_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "arrays"
    tensors.write(path, ARRAYS, "what they are")
    read, about = tensors.read(path)
    assert about == "what they are"
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


def test_every_wrong_bit_is_noticed(tmp_path):
    path = tmp_path / "arrays"
    tensors.write(path, ARRAYS, "about")
    whole = path.read_bytes()
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
    padding = range(8 + len(header.rstrip()), 8 + len(header))
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        if place in padding:
            continue
        with pytest.raises(DamagedError):
            tensors.read(path)


@pytest.mark.parametrize("size", [0, 4, 50, -1])
def test_a_file_that_was_cut_is_noticed(tmp_path, size):
    path = tmp_path / "arrays"
    tensors.write(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError):
        tensors.read(path)


def test_a_damaged_mask_names_the_folder_to_remove(tmp_path):
    path = tmp_path / "mask.safetensors"
    masks.write({"a": np.ones((3, 3), bool)}, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 128  # one weight is pruned that was not
    path.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        masks.read(path)
    assert str(raised.value) == (
        f"the mask {path} is damaged: its checksum does not match; remove {tmp_path} to compute "
        "it again"
    )


def test_the_row_of_an_epoch_is_on_disk_before_its_checkpoint(tmp_path, monkeypatch):
    from lottery.training.callbacks import MetricsFile

    synced = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    file = MetricsFile(tmp_path / "metrics.csv", complete_epochs=0)
    monkeypatch.setattr(os, "fsync", noted)
    file.on_epoch_end(0, {"loss": 1.0})
    CheckpointFolder(tmp_path / "checkpoints").save({"model/w": np.zeros(1)}, Progress(1))
    assert synced[0] == str(tmp_path / "metrics.csv")
    assert any("state.safetensors" in path for path in synced[1:])
