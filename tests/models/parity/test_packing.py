"""Qwen2-VL and its kin on packs: the numbers of one sample at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
import pytest

from ...references import references_of

pytestmark = references_of("qwen2_vl_tiny", "qwen2_5_vl_tiny")
# Samples with images, a video, and text alone; other lengths, so that nothing fits by chance.
BATCH = "mixed_right"


@dataclass(frozen=True)
class Pack:
    """The rows of a padded batch as one pack, and each by itself."""

    alone: list[dict[str, paddle.Tensor]]
    packed: dict[str, paddle.Tensor]


@pytest.fixture
def pack(reference, model) -> Pack:
    rows = list(split_rows(reference, model))
    ends = np.cumsum([0, *(len(row["input_ids"][0]) for row in rows)])
    labels = np.concatenate([row["labels"] for row in rows], axis=1)
    labels[:, ends[:-1]] = -100
    packed = {
        "input_ids": np.concatenate([row["input_ids"] for row in rows], axis=1),
        "position_ids": np.concatenate([row["position_ids"] for row in rows], axis=2),
        "labels": labels,
        "cu_seqlens": ends.astype(np.int32),
    }
    for name in sorted({name for row in rows for name in row if name in model.own_inputs}):
        packed[name] = np.concatenate([row[name] for row in rows if name in row])
    assert len(rows) == 3 and len({len(row["input_ids"][0]) for row in rows}) == 3
    return Pack([as_tensors(row) for row in rows], as_tensors(packed))


def split_rows(reference, model):
    """Each row without its padding, with its own images, videos and positions."""
    arrays = {name: tensor.numpy() for name, tensor in reference.inputs(BATCH).items()}
    taken = {"image": 0, "video": 0}
    for ids, labels, kept in zip(arrays["input_ids"], arrays["labels"], arrays["attention_mask"] == 1, strict=True):
        row = {"input_ids": ids[kept][None], "labels": labels[kept][None]}
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            wanted = int((ids == getattr(model.config, f"{kind}_token_id")).sum()) * 4
            grids, sizes = arrays[f"{kind}_grid_thw"], arrays[f"{kind}_grid_thw"].prod(1)
            before = taken[kind]
            count = int(np.searchsorted(np.cumsum(sizes[before:]), wanted, side="right")) if wanted else 0
            if count:
                start = int(sizes[:before].sum())
                row[f"{kind}_grid_thw"] = grids[before : before + count]
                row[pixels] = arrays[pixels][start : start + wanted]
                if kind == "video" and "second_per_grid_ts" in arrays:
                    row["second_per_grid_ts"] = arrays["second_per_grid_ts"][before : before + count]
            taken[kind] += count
        row["position_ids"], _ = model.positions(model.config, row)
        yield row
    assert taken == {kind: len(arrays[f"{kind}_grid_thw"]) for kind in taken}


def as_tensors(arrays):
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


def test_the_logits_of_a_pack_are_those_of_each_sample_alone(model, pack):
    with paddle.no_grad():
        packed = model(**pack.packed).logits.numpy()[0]
        alone = np.concatenate([model(**row).logits.numpy()[0] for row in pack.alone])
    # Sums over more rows are taken in another order: 5e-6 of logits up to 10 were measured.
    np.testing.assert_allclose(packed, alone, atol=2e-5, rtol=0)


def test_no_sample_of_a_pack_feels_another_ones_tokens(model, pack):
    changed = {**pack.packed, "input_ids": pack.packed["input_ids"].clone()}
    start, end = pack.packed["cu_seqlens"].tolist()[1:3]
    text = [place for place in range(start, end) if int(changed["input_ids"][0, place]) < 100]
    assert len(text) > 3
    changed["input_ids"][0, text] = (changed["input_ids"][0, text] + 1) % 100
    with paddle.no_grad():
        before, after = (model(**inputs).logits.numpy()[0] for inputs in (pack.packed, changed))
    assert (before[:start] == after[:start]).all() and (before[end:] == after[end:]).all()
    assert np.abs(before[start:end] - after[start:end]).max() > 0.01


@pytest.mark.parametrize("loss_per", ["token", "sample"])
def test_loss_and_gradients_of_a_pack_are_the_weighted_sum_over_samples_alone(fresh_model, pack, loss_per):
    fresh_model.train()
    counts = [int((row["labels"][:, 1:] != -100).sum()) for row in pack.alone]
    shares = [count / sum(counts) if loss_per == "token" else 1 / len(counts) for count in counts]
    wanted = 0.0
    for row, share in zip(pack.alone, shares, strict=True):
        loss = fresh_model(**row).loss * share
        loss.backward()
        wanted += float(loss)
    gradients = taken_gradients(fresh_model)
    lengths = [row["labels"].shape[1] for row in pack.alone]
    weights = np.repeat(np.array(shares) / np.maximum(counts, 1), lengths).astype(np.float32)[None]
    loss = fresh_model(**pack.packed, loss_weights=paddle.to_tensor(weights)).loss
    loss.backward()
    np.testing.assert_allclose(float(loss), wanted, rtol=1e-5)
    packed = taken_gradients(fresh_model)
    assert gradients.keys() == packed.keys() and len(packed) == len(list(fresh_model.parameters()))
    for name, gradient in gradients.items():
        difference = np.linalg.norm(packed[name] - gradient) / np.linalg.norm(gradient)
        assert np.linalg.norm(gradient) > 1e-6 and difference < 1e-5, name


def taken_gradients(model):
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    model.clear_gradients()
    return found


def test_positions_that_run_on_through_a_pack_change_its_numbers(model, pack):
    length = pack.packed["input_ids"].shape[1]
    running = paddle.arange(length).expand([3, 1, length])
    with paddle.no_grad():
        right, wrong = (
            model(**{**pack.packed, "position_ids": ids}).logits for ids in (pack.packed["position_ids"], running)
        )
    assert float((right - wrong).abs().max()) > 1e-3


@pytest.mark.parametrize("extra", ["attention_mask", "no positions"])
def test_what_a_pack_cannot_have_is_refused(model, pack, extra):
    inputs = dict(pack.packed)
    if extra == "attention_mask":
        inputs["attention_mask"] = paddle.ones_like(inputs["input_ids"])
    else:
        del inputs["position_ids"]
    with pytest.raises(ValueError, match="`cu_seqlens` needs `position_ids` that restart at every sample"):
        model(**inputs)
