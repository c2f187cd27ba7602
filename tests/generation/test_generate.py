from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.generation import GenerationConfig, generate
from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration

TINY = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny"
BATCH = "mixed_left"
INPUTS = ["input_ids", "attention_mask", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]


@pytest.fixture(scope="module", params=["tied", "untied"])
def case(request):
    """A model, a batch padded on the left, and the tokens that the reference implementation's cache gave for it."""
    folder = TINY / request.param
    with np.load(folder / "reference.npz") as stored:
        batch = {key: stored[f"{BATCH}/{key}"] for key in INPUTS}
        return Qwen2VLForConditionalGeneration.from_pretrained(folder), batch, stored["greedy/tokens"].tolist()


def answers(model, batch, end=(), **settings):
    return generate(model, batch, GenerationConfig(**{"max_new_tokens": 12, **settings}), end_token_ids=end)


def rows_alone(batch):
    """Each row without its padding, with its own pictures and videos."""
    pictures, videos = [0, 2, 1], [0, 0, 1]
    ends = {"image_grid_thw": np.cumsum([0, *pictures]), "video_grid_thw": np.cumsum([0, *videos])}
    for row in range(3):
        is_token = batch["attention_mask"][row] == 1
        alone = {key: batch[key][row : row + 1, is_token] for key in ("input_ids", "attention_mask")}
        for grids, pixels in (("image_grid_thw", "pixel_values"), ("video_grid_thw", "pixel_values_videos")):
            start, stop = ends[grids][row], ends[grids][row + 1]
            patches = np.cumsum([0, *batch[grids].prod(1)])
            if stop > start:
                alone |= {grids: batch[grids][start:stop], pixels: batch[pixels][patches[start] : patches[stop]]}
        yield alone


def without_cache(model, alone, count):
    """The likeliest token each time, the whole sequence run anew."""
    inputs = {key: paddle.to_tensor(array) for key, array in alone.items() if key != "attention_mask"}
    plain = int(alone["input_ids"].shape[1])
    for _ in range(count):
        # Vision tokens among the answer are text to the positions of a cached run; keep them out of the layout.
        shown = inputs["input_ids"].clone()
        shown[:, plain:] = 1
        positions, _ = model._positions(
            shown, None, inputs.get("image_grid_thw"), inputs.get("video_grid_thw"), None, None
        )
        embeds = model.model.embed_tokens(inputs["input_ids"])
        for token, grids, pixels in (
            (model.config.image_token_id, "image_grid_thw", "pixel_values"),
            (model.config.video_token_id, "video_grid_thw", "pixel_values_videos"),
        ):
            if pixels in inputs:
                embeds = model._place_vision(embeds, shown == token, model.visual(inputs[pixels], inputs[grids]))
        logits = model(inputs_embeds=embeds, position_ids=positions).logits
        inputs["input_ids"] = paddle.concat([inputs["input_ids"], logits[:, -1:].argmax(-1)], axis=1)
    return inputs["input_ids"][0, plain:].tolist()


def test_greedy_tokens_are_the_references(case):
    model, batch, tokens = case
    assert min(len(set(row)) for row in tokens) >= 6
    assert answers(model, batch) == tokens


def test_a_batch_padded_on_the_left_gives_what_its_rows_give_alone(case):
    model, batch, tokens = case
    assert (batch["attention_mask"][0] == 0).sum() > 5
    assert [answers(model, alone)[0] for alone in rows_alone(batch)] == tokens


def test_the_cache_gives_what_running_the_whole_sequence_anew_gives(case):
    model, batch, tokens = case
    with paddle.no_grad():
        assert [without_cache(model, alone, 12) for alone in rows_alone(batch)] == tokens


def test_the_picture_matters(case):
    model, batch, tokens = case
    changed = answers(model, {**batch, "pixel_values": batch["pixel_values"][::-1].copy()})
    assert changed[0] == tokens[0] and changed[1] != tokens[1]


def test_a_row_ends_before_its_end_token_and_the_others_go_on(case):
    model, batch, tokens = case
    end = tokens[1][3]
    wanted = [row[: row.index(end)] if end in row else row for row in tokens]
    assert len(wanted[1]) <= 3 and max(len(row) for row in wanted) > 3
    assert answers(model, batch, end=(end,)) == wanted


def test_any_of_several_end_tokens_ends_a_row_and_nothing_runs_once_all_have_ended(case, monkeypatch):
    model, batch, tokens = case
    end = tuple(row[1] for row in tokens)
    wanted = [row[: min(row.index(token) for token in end if token in row)] for row in tokens]
    calls = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda *args, **inputs: calls.append(1) or forward(*args, **inputs))
    assert answers(model, batch, end=end) == wanted
    assert len(calls) == max(len(row) for row in wanted) + 1 <= 2


@pytest.mark.parametrize("count", [1, 5])
def test_max_new_tokens_cuts_the_answer_off(case, count):
    model, batch, tokens = case
    assert answers(model, batch, max_new_tokens=count) == [row[:count] for row in tokens]


def test_sampling_repeats_itself_for_a_seed_and_differs_for_another(case):
    model, batch, tokens = case
    first, again, other = (answers(model, batch, temperature=2.0, seed=seed) for seed in (5, 5, 6))
    assert first == again != other
    assert tokens not in (first, other)


def test_sampling_the_likeliest_alone_is_greedy(case):
    model, batch, tokens = case
    assert answers(model, batch, temperature=2.0, top_k=1) == tokens
    assert answers(model, batch, temperature=2.0, top_p=1e-9) == tokens


def test_what_a_collator_adds_for_training_changes_nothing(case):
    model, batch, tokens = case
    shape = batch["input_ids"].shape
    extra = {"labels": np.zeros(shape, dtype=np.int64), "position_ids": np.zeros((3, *shape), dtype=np.int64)}
    assert answers(model, {**batch, **extra}) == tokens


def test_no_gradient_is_recorded(case):
    model, batch, _ = case
    seen = []
    hook = model.model.norm.register_forward_post_hook(lambda _, __, output: seen.append(output.stop_gradient))
    answers(model, batch, max_new_tokens=2)
    hook.remove()
    assert seen == [True, True]
