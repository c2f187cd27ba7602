"""Tokens that are chosen where the logits are: a card's ops, run on the CPU, choose what the host chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX
from paddlemix.generation import GenerationConfig, loop
from paddlemix.generation.samplers import CardSampler, HostSampler, sampler_for
from paddlemix.generation.sampling import TokenChooser

MODEL = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny" / "tied"
PROMPTS = [np.array([1, 2, 3]), np.array([4, 1]), np.array([7])]
ENDS = (5, 60)
VOCABULARY, STEPS = 50, 24
SETTINGS = {
    "greedy": {},
    "penalised": {"repetition_penalty": 1.7},
    "rewarded": {"repetition_penalty": 0.5, "temperature": 1.0},
    "not before 12": {"min_new_tokens": 12},
    "drawn": {"temperature": 1.0},
    "hot": {"temperature": 3.0, "seed": 5},
    "cold": {"temperature": 0.01, "top_p": 0.5},
    "top-k": {"temperature": 1.0, "top_k": 4},
    "the likeliest": {"temperature": 1.0, "top_k": 1},
    "more than there are": {"temperature": 1.0, "top_k": 1000},
    "top-p": {"temperature": 1.0, "top_p": 0.6},
    "the likeliest by top-p": {"temperature": 1.0, "top_p": 1e-6},
    "all": {"temperature": 0.8, "top_k": 9, "top_p": 0.8, "repetition_penalty": 1.2, "min_new_tokens": 5},
}


def choosers(config):
    return [TokenChooser(prompt, config, ENDS) for prompt in PROMPTS]


def on_host(config):
    return HostSampler(choosers(config))


def on_card(config, vocabulary=VOCABULARY):
    return CardSampler(choosers(config), config, ENDS, vocabulary)


def drawn_logits(rng, way):
    logits = 2 * rng.standard_normal((len(PROMPTS), VOCABULARY)).astype(np.float32)
    return paddle.to_tensor(np.round(logits) if way == "tied" else logits)


@pytest.mark.parametrize("way", ["plain", "tied"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_card_chooses_what_the_host_chooses(rng, name, way):
    config = GenerationConfig(max_new_tokens=STEPS, **SETTINGS[name])
    host, card = on_host(config), on_card(config)
    for step in range(STEPS):
        rows = [0, 1, 2] if step < 9 else [0, 2]  # the second row ends
        logits = drawn_logits(rng, way)
        found = card.choose(logits, rows)
        assert found == host.choose(logits, rows), step
        assert [card.tokens.tolist()[row] for row in rows] == list(found.values())
    assert [one.answer for one in card._choosers] == [one.answer for one in host._choosers]
    assert len({token for one in card._choosers for token in one.answer}) > 5


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_a_step_copies_the_tokens_alone_to_the_host(rng, monkeypatch):
    config = GenerationConfig(max_new_tokens=STEPS, **SETTINGS["all"])
    card, copied = on_card(config), []
    for name in ("numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__array__"):
        method = getattr(paddle.Tensor, name)

        def counted(tensor, *given, method=method, name=name, **options):
            if not copied or copied[-1][0] != "tolist" or name != "numpy":  # `tolist` is written with `numpy`
                copied.append((name, tensor.shape))
            return method(tensor, *given, **options)

        monkeypatch.setattr(paddle.Tensor, name, counted)
    made, to_tensor = [], paddle.to_tensor
    monkeypatch.setattr(
        paddle, "to_tensor", lambda *given, **options: made.append(given) or to_tensor(*given, **options)
    )
    logits = [drawn_logits(rng, "plain") for _ in range(3)]
    made.clear()
    for one in logits:
        card.choose(one, [0, 1, 2])
    assert copied == [("tolist", [3])] * 3 and made == []


@pytest.mark.parametrize("name", ["greedy", "all"])
def test_logits_that_are_nan_are_refused_where_they_are_asked_for(rng, name):
    config = GenerationConfig(max_new_tokens=STEPS, **SETTINGS[name])
    logits = drawn_logits(rng, "plain")
    logits[1, 7] = float("nan")
    card = on_card(config)
    assert card.choose(logits, [0, 2]).keys() == {0, 2}
    # The model reads a token of the row that has ended too.
    assert 0 <= card.tokens.tolist()[1] < VOCABULARY
    with pytest.raises(ValueError, match="logits are NaN"):
        card.choose(logits, [0, 1])
    with pytest.raises(ValueError, match="logits are NaN"):
        on_host(config).choose(logits, [0, 1])


def test_logits_on_the_cpu_are_chosen_among_on_the_host(rng):
    config = GenerationConfig()
    logits = drawn_logits(rng, "plain")
    assert isinstance(sampler_for(logits, choosers(config), config, ENDS), HostSampler)

    class OnCard:
        shape = logits.shape

        class place:
            is_cpu_place = staticmethod(lambda: False)

    assert isinstance(sampler_for(OnCard(), choosers(config), config, ENDS), CardSampler)


@pytest.mark.parametrize("name", ["greedy", "all"])
def test_answers_are_the_same_whoever_chooses(rng, monkeypatch, name):
    model = AutoModelMIX.from_pretrained(MODEL)
    prompts = rng.integers(10, 60, [3, 7])
    mask = np.ones([3, 7], np.int64)
    mask[1, :4] = 0
    config = GenerationConfig(max_new_tokens=8, **SETTINGS[name])

    def answers():
        return loop.generate(model, {"input_ids": prompts, "attention_mask": mask}, config, end_token_ids=ENDS)

    wanted, read = answers(), []
    monkeypatch.setattr(
        loop, "sampler_for", lambda logits, *rest: read.append(logits) or CardSampler(*rest, logits.shape[1])
    )
    assert answers() == wanted and len(read) == 1 and sum(map(len, wanted)) > 12
