from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.generation import GenerationConfig, TokenStream, cache, generate, stream_text
from paddlemix.models import decoder
from paddlemix.models.layers.vision_tokens import find_places, place_vision
from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.ops import CausalMask
from paddlemix.ops.denormals import are_flushed
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.cards import cached_attention
from paddlemix.ops.tensors.cards.cached_attention import cached_attention_reference

from ..ops.tensors.test_flash import Kernels

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "qwen2_vl_tiny"
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


@pytest.fixture
def calls(case, monkeypatch):
    """The inputs and outputs of every run of the model, and how often its vision tower ran."""
    model_class, forwards, towers = type(case[0]), [], []
    run, look = model_class.forward, type(case[0].visual).forward

    def watched(self, **inputs):
        forwards.append((inputs, run(self, **inputs)))
        return forwards[-1][1]

    monkeypatch.setattr(model_class, "forward", watched)
    monkeypatch.setattr(type(case[0].visual), "forward", lambda *args: towers.append(1) or look(*args))
    return forwards, towers


def test_denormal_numbers_are_0_while_a_model_reads(case, monkeypatch):
    model, flushed = type(case[0]), []
    run = model.forward
    monkeypatch.setattr(model, "forward", lambda self, **inputs: flushed.append(are_flushed()) or run(self, **inputs))
    answers(*case[:2], max_new_tokens=2)
    assert flushed == [True, True] and not are_flushed()


def reference_of(model, name):
    """Answers of the reference implementation to a case, and its end tokens."""
    variant = "tied" if model.config.tie_word_embeddings else "untied"
    with np.load(FIXTURES / "generation" / "reference.npz") as stored:
        tokens, ends = (stored[f"{variant}/{name}/{what}"].tolist() for what in ("tokens", "end_token_ids"))
    return [[token for token in row if token >= 0] for row in tokens], tuple(ends)


def searches_of(model):
    """The reference implementation's searches, with their settings."""
    variant = "tied" if model.config.tie_word_embeddings else "untied"
    with np.load(FIXTURES / "generation" / "reference.npz") as stored:
        names = [key.split("/")[1] for key in stored if key.startswith(f"{variant}/beams") and key.endswith("/tokens")]
        return {name: json.loads(str(stored[f"{variant}/{name}/settings"])) for name in names}


def rows_alone(batch):
    """Each row without its padding, with its own images and videos."""
    images, videos = [0, 2, 1], [0, 0, 1]
    ends = {"image_grid_thw": np.cumsum([0, *images]), "video_grid_thw": np.cumsum([0, *videos])}
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
        grids = {name: inputs[name].numpy() for name in ("image_grid_thw", "video_grid_thw") if name in inputs}
        positions, _ = model.positions(model.config, {"input_ids": shown.numpy(), **grids})
        embeds = model.model.embed_tokens(inputs["input_ids"])
        for token, grids, pixels in (
            (model.config.image_token_id, "image_grid_thw", "pixel_values"),
            (model.config.video_token_id, "video_grid_thw", "pixel_values_videos"),
        ):
            if pixels in inputs:
                features = model.visual(inputs[pixels], inputs[grids])
                places = find_places(shown.numpy(), token, features.shape[0])
                embeds = place_vision(embeds, paddle.to_tensor(places), features)
        logits = model(inputs_embeds=embeds, position_ids=paddle.to_tensor(positions)).logits
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


def test_the_image_matters(case):
    model, batch, tokens = case
    changed = answers(model, {**batch, "pixel_values": batch["pixel_values"][::-1].copy()})
    assert changed[0] == tokens[0] and changed[1] != tokens[1]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("penalty", {"repetition_penalty": 1.3}),
        ("reward", {"repetition_penalty": 0.8}),
        ("end", {}),
        ("min", {"min_new_tokens": 7}),
        ("min_and_penalty", {"min_new_tokens": 5, "repetition_penalty": 1.3}),
    ],
)
def test_penalized_and_lengthened_answers_are_the_references_also_alone(case, name, settings):
    model, batch, plain = case
    tokens, end = reference_of(model, name)
    assert len(tokens) == 3 and tokens != plain
    assert answers(model, batch, end=end, **settings) == tokens
    assert [answers(model, alone, end=end, **settings)[0] for alone in rows_alone(batch)] == tokens


def test_searched_answers_are_the_references_also_alone(case):
    model, batch, plain = case
    searches, found = searches_of(model), {}
    assert len(searches) == 6
    for name, settings in searches.items():
        wanted, end = reference_of(model, name)
        found[name] = answers(model, batch, end=end, **settings)
        assert found[name] == wanted, name
        assert [answers(model, alone, end=end, **settings)[0] for alone in rows_alone(batch)] == wanted, name
    assert len({str(one) for one in (plain, *found.values())}) >= 5


@pytest.fixture(params=["built op", "flash attention"])
def on_card(request, monkeypatch):
    """Let tokens be attended to the cache as on a card, by formulas in place of kernels; the op's calls are listed."""
    calls, run = [], built.run

    def attend(name, *given):
        if name != "cached_attention":
            return run(name, *given)
        *of_rows, starts, rows, length = given
        mask = CausalMask(np.arange(length + 1) >= starts.numpy()[:, None]) if starts.size else None
        calls.append(rows.shape)
        return [cached_attention_reference(*of_rows, length, mask, rows if rows.size else None)]

    is_built = request.param == "built op"
    for module in (cached_attention, cache):
        monkeypatch.setattr(module, "takes_row_table", lambda query: is_built)
    monkeypatch.setattr(decoder, "has_cached_attention", lambda query: query.shape[1] == 1)
    monkeypatch.setattr(decoder, "has_decode_blocks", lambda x: False)
    monkeypatch.setattr(built, "run", attend)
    if not is_built:
        monkeypatch.setattr(cached_attention, "flash_attention_fits", lambda query: True)
        monkeypatch.setattr(cached_attention, "kernels", Kernels(2))
    return is_built, calls


def test_answers_are_the_references_where_the_cache_is_read_as_on_a_card(case, on_card):
    (model, batch, plain), (is_built, calls) = case, on_card
    assert answers(model, batch) == plain
    assert bool(calls) == is_built and {tuple(shape) for shape in calls} <= {(0,)}
    calls.clear()
    for name, settings in list(searches_of(model).items())[:2]:
        wanted, end = reference_of(model, name)
        assert answers(model, batch, end=end, **settings) == wanted, name
    # Beams share what they have in common: no key or value is copied when they branch.
    assert bool(calls) == is_built and all(rows[0] > 3 for rows in calls[:2])


def test_a_search_reads_each_prompt_once_and_drops_rows_that_are_decided(case, calls):
    model, batch, _ = case
    often = tuple(range(0, 120, 4))
    lengths = [len(answer) for answer in answers(model, batch, end=often, num_beams=3, early_stopping=True)]
    rows = [inputs["input_ids"].shape[0] for inputs, _ in calls[0]]
    assert rows[:2] == [3, 9] and rows == [3, *sorted(rows[1:], reverse=True)] and len(calls[1]) == 1
    assert max(lengths) < 12 and (len(rows) < 12 or rows[-1] < 9)


def test_searched_answers_come_row_by_row_and_say_what_ended_them(case):
    model, batch, _ = case
    wanted, end = reference_of(model, "beams_short")
    config = GenerationConfig(max_new_tokens=12, **searches_of(model)["beams_short"])
    stream = TokenStream(model, batch, config, end_token_ids=end)
    assert list(stream) == [(row, token) for row, answer in enumerate(wanted) for token in answer]
    assert stream.end_tokens and set(stream.end_tokens.values()) <= set(end)
    assert {row for row, answer in enumerate(wanted) if len(answer) < 12} == set(stream.end_tokens)


def test_stop_words_end_their_row_alone_and_stay_in_the_answer(case, calls):
    model, batch, tokens = case
    words = tokens[1][2:4]
    assert not any(pair == tuple(words) for row in (tokens[0], tokens[2]) for pair in pairwise(row))
    config = GenerationConfig(max_new_tokens=12, stop_words_ids=[words, [7, 7, 7, 7]], eos_token_ids=[99])
    stream = TokenStream(model, batch, config, end_token_ids=())
    found = [[], [], []]
    for row, token in stream:
        found[row].append(token)
    assert found == [tokens[0], tokens[1][: tokens[1].index(words[0]) + 2], tokens[2]]
    assert stream.end_tokens == {1: 99}

    calls[0].clear()
    alone = list(rows_alone(batch))[1]
    assert answers(model, alone, stop_words_ids=[words], eos_token_ids=[99]) == [found[1]]
    assert len(calls[0]) == len(found[1])


def test_a_prompt_that_ends_with_stop_words_is_answered_by_the_end_token_alone(case, calls):
    model, batch, _ = case
    alone = next(iter(rows_alone(batch)))
    words = alone["input_ids"][0, -2:].tolist()
    assert answers(model, alone, stop_words_ids=[words], eos_token_ids=[99]) == [[]]
    assert not calls[0]


def test_stop_words_without_an_end_token_are_refused(case):
    model, batch, _ = case
    with pytest.raises(ValueError, match="`stop_words_ids` end an answer with the end token, but none is known"):
        answers(model, batch, stop_words_ids=[[3]])


def test_a_row_ends_before_its_end_token_and_the_others_go_on(case):
    model, batch, tokens = case
    end = tokens[1][3]
    wanted = [row[: row.index(end)] if end in row else row for row in tokens]
    assert len(wanted[1]) <= 3 and max(len(row) for row in wanted) > 3
    assert answers(model, batch, end=(end,)) == wanted


def test_any_of_several_end_tokens_ends_a_row_and_nothing_runs_once_all_have_ended(case, calls):
    model, batch, tokens = case
    end = tuple(row[1] for row in tokens)
    wanted = [row[: min(row.index(token) for token in end if token in row)] for row in tokens]
    assert answers(model, batch, end=end) == wanted
    assert len(calls[0]) == max(len(row) for row in wanted) + 1 <= 2


def test_end_tokens_of_the_config_replace_the_tokenizers_and_stop_tokens_join_them(case):
    model, batch, tokens = case
    [row] = [row for row in tokens if row[0] not in row[1:] and len(set(row[:4])) == 4][:1]
    alone = list(rows_alone(batch))[tokens.index(row)]
    first, second, third = row[1:4]
    assert answers(model, alone, end=(second,)) == [row[:2]]
    assert answers(model, alone, end=(first,), eos_token_ids=[second]) == [row[:2]]
    assert answers(model, alone, end=(third,), stop_token_ids=[second]) == [row[:2]]
    assert answers(model, alone, end=(second,), stop_token_ids=[third]) == [row[:2]]


def test_the_vision_tower_runs_once_for_images_and_videos_together(case, calls):
    model, batch, _ = case
    answers(model, batch)
    forwards, towers = calls
    assert len(forwards) == 12 and len(towers) == 1
    assert any(name.startswith("pixel") for name in forwards[0][0])
    assert not any(name.startswith("pixel") for inputs, _ in forwards[1:] for name in inputs)


def test_the_logits_of_one_place_a_row_are_computed_and_one_token_a_row_is_fed(case, calls):
    model, batch, _ = case
    answers(model, batch)
    assert [tuple(output.logits.shape) for _, output in calls[0]] == [(3, 1, model.config.vocab_size)] * 12
    assert [tuple(inputs["input_ids"].shape) for inputs, _ in calls[0]] == [batch["input_ids"].shape] + [(3, 1)] * 11


def test_the_cache_is_allocated_once(case, calls):
    model, batch, _ = case
    answers(model, batch, max_new_tokens=5)
    caches = [inputs["past_key_values"] for inputs, _ in calls[0]]
    assert len(caches) == 5 and all(cache is caches[0] for cache in caches)
    assert [cache.capacity for cache in caches[0]] == [batch["input_ids"].shape[1] + 5] * 2


def test_a_batch_without_padding_is_run_without_a_mask(case, calls):
    model, batch, tokens = case
    alone = list(rows_alone(batch))[1]
    assert (alone["attention_mask"] == 1).all() and answers(model, alone) == [tokens[1]]
    assert [inputs["attention_mask"] for inputs, _ in calls[0]] == [None] * 12
    calls[0].clear()
    answers(model, batch)
    length = batch["input_ids"].shape[1]
    assert [inputs["attention_mask"].shape[1] for inputs, _ in calls[0]] == list(range(length, length + 12))


def test_the_mask_may_be_left_out_where_nothing_is_padded(case):
    model, batch, tokens = case
    alone = list(rows_alone(batch))[1]
    del alone["attention_mask"]
    assert answers(model, alone) == [tokens[1]]


def test_a_batch_padded_on_the_right_is_refused(case):
    model, batch, _ = case
    with pytest.raises(ValueError, match="ends with padding.*pad on the left"):
        answers(model, {**batch, "attention_mask": batch["attention_mask"][:, ::-1]})


@pytest.mark.parametrize("count", [1, 5])
def test_max_new_tokens_cuts_the_answer_off(case, count):
    model, batch, tokens = case
    assert answers(model, batch, max_new_tokens=count) == [row[:count] for row in tokens]


def test_sampling_repeats_itself_for_a_seed_and_differs_for_another(case):
    model, batch, tokens = case
    first, again, other = (answers(model, batch, temperature=2.0, seed=seed) for seed in (5, 5, 6))
    assert first == again != other
    assert tokens not in (first, other)


def test_what_is_drawn_for_a_row_does_not_depend_on_its_neighbours(case):
    model, batch, tokens = case
    together = answers(model, batch, temperature=1.5, repetition_penalty=1.2)
    assert [
        answers(model, alone, temperature=1.5, repetition_penalty=1.2)[0] for alone in rows_alone(batch)
    ] == together
    assert len({tuple(row) for row in together}) == 3 and together != tokens


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


def test_tokens_are_shown_one_by_one_and_whoever_reads_them_may_end_a_row(case):
    model, batch, tokens = case
    seen = []

    def end_second_row(row, token):
        seen.append((row, token))
        return row == 1 and len([one for one in seen if one[0] == 1]) == 3

    config = GenerationConfig(max_new_tokens=12)
    found = generate(model, batch, config, end_token_ids=(), on_token=end_second_row)
    assert found == [tokens[0], tokens[1][:3], tokens[2]]
    assert seen[:4] == [(0, tokens[0][0]), (1, tokens[1][0]), (2, tokens[2][0]), (0, tokens[0][1])]
    assert [[token for row, token in seen if row == one] for one in range(3)] == found


def test_the_model_runs_only_when_its_next_tokens_are_asked_for(case, calls):
    model, batch, tokens = case
    stream = TokenStream(model, batch, GenerationConfig(max_new_tokens=12), end_token_ids=())
    assert not calls[0]
    first = [next(iter(stream)) for _ in range(4)]
    assert [token for _, token in first] == [tokens[0][0], tokens[1][0], tokens[2][0], tokens[0][1]]
    assert len(calls[0]) == 2


def test_stop_strings_are_not_passed_over_where_nothing_can_find_them(case):
    model, batch, _ = case
    with pytest.raises(ValueError, match="`stop_strings` are .*'x'.* sees tokens only"):
        answers(model, batch, stop_strings=["x"])


def test_a_stop_string_ends_its_row_alone_and_no_further_token_is_made_for_it(case, calls):
    model, batch, tokens = case

    def decode(ids):
        return "".join(f"<{token}>" for token in ids)

    # Across a border of tokens, and whole where its last character stands.
    stop = f"{tokens[2][3]}><{tokens[2][4]}"
    assert stop not in decode(tokens[0]) + decode(tokens[1])
    config = GenerationConfig(max_new_tokens=12, stop_strings=[stop])
    texts = ["", "", ""]
    for row, piece in stream_text(model, batch, config, decode=decode, end_token_ids=()):
        texts[row] += piece
    assert texts == [decode(tokens[0]), decode(tokens[1]), decode(tokens[2][:3]) + "<"]

    calls[0].clear()
    alone = list(rows_alone(batch))[2]
    assert "".join(piece for _, piece in stream_text(model, alone, config, decode=decode, end_token_ids=())) == texts[2]
    assert len(calls[0]) == 5
