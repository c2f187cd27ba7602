"""What is trained in the place of records that turn out to be bad once they are drawn."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.contract import Sample, SampleSize
from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.loading.load import LoadedSet
from paddlemix.datasets.loading.sizes import SizeTable
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedRow
from paddlemix.datasets.mixing.sampler import BatchShape
from paddlemix.datasets.replacement import TRIES, Replacements
from paddlemix.datasets.row_dataset import RowDataset
from paddlemix.datasets.spec import DatasetSpec
from paddlemix.names import IGNORED_LABEL

CAPACITY = 64


class Files:
    """Encodes a record as its size says, with its number as every token; those in `bad` break off."""

    def __init__(self, sizes: list[SampleSize], bad: set[int]) -> None:
        self.sizes, self.bad = sizes, bad

    def encode(self, conversation: Conversation) -> Sample:
        index = conversation.source.index
        if index in self.bad:
            raise RecordError(conversation.source, "image a.png is broken or cut off.")
        size = self.sizes[index]
        ids = np.full(size.tokens, index)
        labels = np.where(np.arange(size.tokens) >= size.tokens - size.target_tokens, ids, IGNORED_LABEL)
        return Sample(ids, labels, np.tile(np.arange(size.tokens), (3, 1)))


def sizes_of(count: int, seed: int = 0) -> list[SampleSize]:
    """Some have no targets."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(6, 30, count)
    return [SampleSize(int(n), 0, int(rng.integers(0, min(n, 6)))) for n in tokens]


def mix_of(sizes: list[SampleSize], bad: set[int], sets: int = 2, policy: str = "skip") -> MixDataset:
    bounds = np.linspace(0, len(sizes), sets + 1, dtype=int).tolist()
    loaded = [
        LoadedSet(
            DatasetSpec("vqa_dataset", f"{first}.json"),
            [Conversation((Turn("user", (Text("?"),)),), RecordId("a.json", index)) for index in range(first, last)],
            SizeTable.of(sizes[first:last]),
            (),
        )
        for first, last in pairwise(bounds)
    ]
    return MixDataset(loaded, Files(sizes, bad), on_bad_record=policy)  # type: ignore[arg-type]


def global_batches(
    mix: MixDataset, folder: Path, *, workers: int, ranks: int, packs: bool, loss_per: str, epochs: int = 1
) -> list[list[dict[str, np.ndarray]]]:
    """Of each optimizer step the batches of all ranks."""
    batching = Batching(pack_tokens=CAPACITY if packs else None, loss_per=loss_per)  # type: ignore[arg-type]
    steps: list[list[dict[str, np.ndarray]]] = []
    for epoch in range(epochs):
        of_ranks = []
        for rank in range(ranks):
            shape = BatchShape(rows=2, accumulation=2, ranks=ranks, rank=rank)
            sampler = batching.training(mix, shape, seed=3)
            sampler.set_epoch(epoch)
            rows = RowDataset(mix, BadRecords(folder / "bad.jsonl"), pack_tokens=batching.pack_tokens)
            loader = BatchLoader(rows, sampler, TrainingCollator(0, packs=packs), workers)
            of_ranks.append([{name: one.numpy() for name, one in batch.items()} for batch in loader])
        assert len({len(batches) for batches in of_ranks}) == 1
        for start in range(0, len(of_ranks[0]), 2):
            steps.append([batch for batches in of_ranks for batch in batches[start : start + 2]])
    return steps


def weight_of(batches: list[dict[str, np.ndarray]]) -> float:
    """The sum of all target tokens' weights, by which the loss would be multiplied if each token's were 1."""
    return sum(
        float(one["loss_weights"][..., 1:][one["labels"][..., 1:] != IGNORED_LABEL].astype(np.float64).sum())
        for one in batches
    )


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "bad.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("loss_per", ["token", "sample"])
@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2)])
def test_weights_of_a_batch_add_up_to_one_with_and_without_replacement(tmp_path, workers, ranks, packs, loss_per):
    sizes = sizes_of(48)
    bad = {3, 4, 5, 17, 30, 31, 47}
    options = {"workers": workers, "ranks": ranks, "packs": packs, "loss_per": loss_per}
    whole = global_batches(mix_of(sizes, set()), tmp_path / "whole", **options)
    assert not (tmp_path / "whole").exists()
    assert np.allclose([weight_of(step) for step in whole], 1, atol=1e-6)
    replaced = global_batches(mix_of(sizes, bad), tmp_path, **options)
    assert np.allclose([weight_of(step) for step in replaced], 1, atol=1e-6)
    shown = {int(token) for step in replaced for one in step for token in np.unique(one["input_ids"])}
    assert not shown & bad and {line["index"] for line in lines_of(tmp_path)} == bad
    if packs:
        assert max(one["cu_seqlens"][-1] for step in replaced for one in step) <= 2 * CAPACITY
        assert all(np.diff(one["cu_seqlens"]).max() <= CAPACITY for step in replaced for one in step)


def test_each_record_keeps_its_share_and_all_others_are_as_they_were(tmp_path):
    sizes = [SampleSize(10, 0, 4), SampleSize(9, 0, 2), SampleSize(10, 0, 0)]
    rows = RowDataset(mix_of(sizes, {0}, sets=1), BadRecords())
    first, other = rows[WeightedRow((0, 2), (0.25, 0.5))]
    assert int(first.sample.input_ids[0]) == 1 and first.weight * 2 == pytest.approx(0.25 * 4)
    assert int(other.sample.input_ids[0]) == 2 and other.weight == 0.5


def test_a_record_without_targets_hands_on_no_share(tmp_path):
    rows = RowDataset(mix_of([SampleSize(10, 0, 0), SampleSize(9, 0, 2)], {0}, sets=1), BadRecords())
    assert rows[WeightedRow((0,), (0.5,))][0].weight == 0


def test_the_choice_is_the_same_in_every_process_and_every_epoch(tmp_path):
    sizes, bad = sizes_of(40, seed=1), {2, 3, 20, 39}
    found = []
    for name, workers, ranks in (("a", 0, 1), ("b", 2, 1), ("c", 1, 2)):
        global_batches(
            mix_of(sizes, bad), tmp_path / name, workers=workers, ranks=ranks, packs=False, loss_per="token", epochs=2
        )
        found.append({line["index"]: line["replaced_by"]["index"] for line in lines_of(tmp_path / name)})
    assert found[0] == found[1] == found[2] and set(found[0]) == bad


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 80), st.data())
def test_candidates_are_of_the_same_set_and_fit(seed, count, data):
    sizes = SizeTable.of(sizes_of(count, seed))
    offsets = np.array([0, count // 2, count])
    index = data.draw(st.integers(0, count - 1))
    own = sizes[index]
    candidates = Replacements(sizes, offsets).candidates(index, own.tokens)
    members = range(count // 2) if index < count // 2 else range(count // 2, count)
    fitting = [
        one
        for one in members
        if one != index and sizes[one].tokens <= own.tokens and sizes[one].target_tokens >= min(own.target_tokens, 1)
    ]
    assert len(candidates) == min(len(fitting), TRIES) and set(candidates) <= set(fitting)
    off = [abs(sizes[one].target_tokens - own.target_tokens) for one in candidates]
    assert off == sorted(off)
    assert not fitting or off[0] == min(abs(sizes[one].target_tokens - own.target_tokens) for one in fitting)


def test_a_longer_record_takes_the_place_only_where_no_shorter_one_is_left():
    sizes = SizeTable.of([SampleSize(n, 0, 2) for n in (5, 30, 6, 7, 5)])
    replacements = Replacements(sizes, np.array([0, 5]))
    assert replacements.candidates(0, 7) == [4, 2, 3]
    assert replacements.candidates(0, 5) == [4]


def test_neighbours_of_a_bad_stretch_do_not_all_try_one_another_first():
    replacements = Replacements(SizeTable.of([SampleSize(9, 0, 2)] * 1000), np.array([0, 1000]))
    first = [replacements.candidates(index, 9)[0] for index in range(100)]
    assert sum(one < 100 for one in first) < 30 and len(set(first)) > 80


def test_where_nothing_can_take_the_place_the_record_is_named():
    sizes = [SampleSize(9, 0, 2)] * 4
    rows = RowDataset(mix_of(sizes, {0, 1, 2, 3}, sets=1), BadRecords())
    with pytest.raises(RecordError, match=r"^a\.json, record 2: image a\.png is .* none of 3 records of its set"):
        rows[WeightedRow((2,), (1.0,))]
    alone = RowDataset(mix_of([SampleSize(9, 0, 2)], {0}, sets=1), BadRecords())
    with pytest.raises(RecordError, match="none of 0 records"):
        alone[WeightedRow((0,), (1.0,))]


def test_raise_names_the_record():
    rows = RowDataset(mix_of(sizes_of(4), {1}, sets=1, policy="raise"))
    with pytest.raises(RecordError, match=r"a\.json, record 1: image a\.png is broken"):
        rows[WeightedRow((0, 1), (0.5, 0.5))]


def test_a_record_of_another_size_than_was_measured_is_replaced(tmp_path):
    mix = mix_of([SampleSize(9, 0, 2)] * 3, set(), sets=1)
    mix._processor.sizes = [SampleSize(8, 0, 2), *[SampleSize(9, 0, 2)] * 2]  # its file has changed since
    rows = RowDataset(mix, BadRecords(tmp_path / "bad.jsonl"))
    (found,) = rows[WeightedRow((0,), (1.0,))]
    assert len(found.sample.input_ids) == 9 and found.weight == 1
    assert "8 tokens" in lines_of(tmp_path)[0]["problem"]
    assert rows.sources(WeightedRow((0,), (1.0,))) == [RecordId("a.json", int(found.sample.input_ids[0]))]


def test_a_pack_has_room_for_whatever_takes_places_in_it():
    sizes = [SampleSize(n, 0, 2) for n in (5, 6, 7, 20, 20)]
    rows = RowDataset(mix_of(sizes, {0, 1}, sets=1), BadRecords(), pack_tokens=33)
    # 5 + 6 + 20 leave room for 2 tokens: once the first has taken them, nothing is left for the second.
    found = rows[WeightedRow((0, 3), (0.5, 0.5))]
    assert [len(one.sample.input_ids) for one in found] == [7, 20]
    with pytest.raises(RecordError, match="none of"):
        rows[WeightedRow((0, 1, 3), (0.3, 0.3, 0.3))]


class TestList:
    ERROR = RecordError(RecordId("图.json", 4), "image a.png is broken.")

    def test_a_record_is_named_once_in_log_and_file_by_all_that_write(self, tmp_path, caplog):
        file = tmp_path / "out" / "bad.jsonl"
        with caplog.at_level(logging.WARNING):
            for names in (BadRecords(file), BadRecords(file)):  # another rank, or the run resumed
                for _ in range(2):
                    names.add(self.ERROR, "vqa", RecordId("图.json", 9))
        assert json.loads(file.read_text("utf-8")) == {
            "file": "图.json",
            "index": 4,
            "set": "vqa",
            "problem": "image a.png is broken.",
            "replaced_by": {"file": "图.json", "index": 9},
        }
        assert caplog.messages == ["图.json, record 4: image a.png is broken; 图.json, record 9 takes its place."]
        assert BadRecords(file).count_replaced() == 1

    def test_processes_that_write_at_once_leave_whole_lines_once_each(self, tmp_path):
        file = tmp_path / "bad.jsonl"

        def write(seed):
            names = BadRecords(file)
            for index in np.random.default_rng(seed).permutation(200).tolist():
                names.add(RecordError(RecordId("a.json", index), "x" * 500), "vqa", RecordId("a.json", 0))

        context = multiprocessing.get_context("fork")
        writers = [context.Process(target=write, args=(seed,)) for seed in range(4)]
        for one in writers:
            one.start()
        for one in writers:
            one.join()
        counts = Counter(json.loads(line)["index"] for line in file.read_text("utf-8").splitlines())
        assert counts == dict.fromkeys(range(200), 1)

    def test_half_a_line_of_a_killed_process_is_written_over(self, tmp_path):
        file = tmp_path / "bad.jsonl"
        BadRecords(file).add(self.ERROR, "vqa", RecordId("a.json", 1))
        whole = file.read_bytes()
        file.write_bytes(whole + whole[: len(whole) // 2])
        names = BadRecords(file)
        assert names.count_replaced() == 1
        names.add(RecordError(RecordId("b.json", 0), "bad"), "vqa", RecordId("a.json", 1))
        assert [json.loads(line)["file"] for line in file.read_text("utf-8").splitlines()] == ["图.json", "b.json"]

    def test_what_is_left_out_of_an_evaluation_counts_for_itself(self, tmp_path):
        names = BadRecords(tmp_path / "bad.jsonl")
        names.add(self.ERROR, "vqa", None)
        names.add(self.ERROR, "vqa", RecordId("a.json", 1))
        assert len((tmp_path / "bad.jsonl").read_text("utf-8").splitlines()) == 2 and names.count_replaced() == 1

    def test_a_run_does_not_end_because_of_its_list(self, tmp_path, caplog):
        (tmp_path / "file").touch()
        BadRecords(tmp_path / "file" / "bad.jsonl").add(self.ERROR, "vqa", RecordId("a.json", 1))
        assert "cannot be written" in caplog.text and "takes its place" in caplog.text


def test_an_evaluation_gives_what_is_left_out_no_weight_and_tells(tmp_path):
    sizes, bad = sizes_of(20, seed=2), {1, 7}
    mix = mix_of(sizes, bad, sets=1)
    rows = RowDataset(mix, BadRecords(), trains=False)
    seen = 0.0
    for workers in (0, 2):
        rows.forget_left_out()
        sampler = Batching().evaluation(mix, BatchShape(rows=4))
        batches = list(BatchLoader(rows, sampler, TrainingCollator(0), workers))
        assert rows.left_out.tolist() == sorted(bad)
        seen = weight_of([{name: one.numpy() for name, one in batch.items()} for batch in batches])
        share = sampler.targets[rows.left_out].sum() / sampler.drawn_targets
        assert 0 < share < 1 and seen == pytest.approx(1 - share, abs=1e-6)


def test_lines_that_somebody_else_has_written_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("[" * 100_000 + "\n{}\n[1]\nnull\n")
    bad_records = BadRecords(tmp_path / "bad.jsonl")
    bad_records.add(RecordError(RecordId("a.json", 3), "is bad"), "vqa", RecordId("a.json", 4))
    assert bad_records.count_replaced() == 1
    assert json.loads((tmp_path / "bad.jsonl").read_text().splitlines()[-1])["index"] == 3
