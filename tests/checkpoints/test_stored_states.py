from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from paddlemix.checkpoints.stored_states import StoredStates


def write(folder: Path, rank: int, states: dict[str, list[float]]) -> None:
    arrays = {key: np.array(values, dtype=np.float32) for key, values in states.items()}
    save_file(arrays, folder / f"optimizer-{rank:05d}-00000.safetensors")


def test_pieces_of_all_ranks_make_a_whole_in_the_order_of_their_places(tmp_path: Path) -> None:
    write(tmp_path, 0, {"a.weight/moment1@10": [2.0, 3.0], "a.weight/beta1_pow": [0.5], "b/moment1": [7.0]})
    write(tmp_path, 1, {"a.weight/moment1@2": [0.0, 1.0], "a.weight/moment1@100": []})
    stored = StoredStates(tmp_path)
    assert sorted(stored.states) == [("a.weight", "beta1_pow"), ("a.weight", "moment1"), ("b", "moment1")]
    assert stored.read("a.weight", "moment1").tolist() == [0, 1, 2, 3]
    assert stored.read("b", "moment1").tolist() == [7]


def test_a_copy_of_a_state_does_not_count_twice(tmp_path: Path) -> None:
    for rank in (0, 1):
        write(tmp_path, rank, {"a/moment1": [4.0]})
    assert StoredStates(tmp_path).read("a", "moment1").tolist() == [4]


def test_a_folder_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no state of an optimizer.*`ignore_load_lr_and_optim`"):
        StoredStates(tmp_path)


@pytest.mark.parametrize("key", ["no_slash", "a/", "/moment1", "a/moment1@", "a/moment1@-1", f"a/moment1@{'9' * 400}"])
def test_a_key_that_is_no_states_is_refused(tmp_path: Path, key: str) -> None:
    write(tmp_path, 0, {key: [1.0]})
    with pytest.raises(ValueError, match=r"optimizer-00000-00000\.safetensors: .* is no state of an optimizer"):
        StoredStates(tmp_path)


def test_a_damaged_file_a_pipe_and_one_that_shrinks_are_named(tmp_path: Path) -> None:
    write(tmp_path, 0, {"a/moment1": [1.0] * 1000})
    file = tmp_path / "optimizer-00000-00000.safetensors"
    stored = StoredStates(tmp_path)
    os.truncate(file, 2000)
    with pytest.raises(ValueError, match=r"00000\.safetensors: ends within a/moment1"):
        stored.read("a", "moment1")
    with pytest.raises(ValueError, match=r"00000\.safetensors: damaged or cut off"):
        StoredStates(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="expected a file"):
        StoredStates(tmp_path)


def test_pieces_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    arrays = {"a/moment1@0": np.zeros([2, 2], np.float32), "a/moment1@4": np.zeros([4], np.float32)}
    save_file(arrays, tmp_path / "optimizer-00000-00000.safetensors")
    with pytest.raises(ValueError, match="do not belong together"):
        StoredStates(tmp_path).read("a", "moment1")
