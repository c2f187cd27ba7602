"""Which changes make a run another run than that of a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paddlemix.checkpoints.identity import IdentityKeys, RunIdentity

KNOWN = IdentityKeys(
    model=("freeze_vit", "lora"),
    samples=("seed", "max_length"),
    draws=("cards",),
    free=("learning_rate", "model_name_or_path"),
)
RUN = RunIdentity(
    {"seed": 0, "max_length": 512, "cards": 1, "learning_rate": 1e-5, "freeze_vit": False, "new_key": 1},
    {"hidden_size": 64, "torch_dtype": "float32"},
    "draws",
)


def with_keys(run: RunIdentity = RUN, drawn_from: str = "draws", **keys: Any) -> RunIdentity:
    return replace(run, keys={**run.keys, **keys}, drawn_from=drawn_from)


def test_a_run_is_itself() -> None:
    assert RUN.differences(RUN, KNOWN, ignore_data=False) == [] and RUN.free_changes(RUN, KNOWN) == []


def test_cards_may_change_as_long_as_the_same_records_are_drawn_together() -> None:
    assert with_keys(cards=2).differences(RUN, KNOWN, ignore_data=False) == []
    assert with_keys(cards=2, drawn_from="others").differences(RUN, KNOWN, ignore_data=False) == [
        "`cards` was 1 and is 2"
    ]


def test_other_draws_under_the_same_keys_are_other_records() -> None:
    assert (
        "records in the files of `dataset.train` are others"
        in with_keys(drawn_from="others").differences(RUN, KNOWN, ignore_data=False)[0]
    )


def test_an_epoch_begun_anew_asks_for_the_same_model_only() -> None:
    assert with_keys(seed=1, drawn_from="others").differences(RUN, KNOWN, ignore_data=True) == []
    changed = with_keys(replace(RUN, model={"hidden_size": 32}), freeze_vit=True, seed=1)
    assert changed.differences(RUN, KNOWN, ignore_data=True) == [
        "the model's `hidden_size` was 64 and is 32",
        "`freeze_vit` was false and is true",
    ]


def test_precision_on_disk_and_keys_of_one_side_alone_are_no_difference() -> None:
    other = RunIdentity({"seed": 0}, {"hidden_size": 64, "torch_dtype": "bfloat16"}, "draws")
    assert (
        other.differences(RUN, KNOWN, ignore_data=False) == []
        and RUN.differences(other, KNOWN, ignore_data=False) == []
    )


def test_what_may_change_is_told_apart() -> None:
    other = with_keys(learning_rate=1e-4)
    assert other.differences(RUN, KNOWN, ignore_data=False) == []
    assert other.free_changes(RUN, KNOWN) == ["`learning_rate` was 1e-05 and is 0.0001"]


def test_the_model_begun_from_may_move_unless_adapters_need_it() -> None:
    here, moved = with_keys(model_name_or_path="a"), with_keys(model_name_or_path="b")
    assert moved.differences(here, KNOWN, ignore_data=False) == [] and moved.free_changes(here, KNOWN)
    here, moved = with_keys(here, lora=True), with_keys(moved, lora=True)
    assert moved.differences(here, KNOWN, ignore_data=False) == ['`model_name_or_path` was "a" and is "b"']
