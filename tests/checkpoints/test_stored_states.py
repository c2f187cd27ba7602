from __future__ import annotations

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
