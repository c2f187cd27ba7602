"""One question to a model of any family, after what was said before."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import paddle
import PIL.Image
import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.chat import dialogue_with, inference, inference_stream
from paddlemix.contract import Model, Processor
from paddlemix.generation import GenerationConfig
from paddlemix.models.registry import FAMILIES, family_of
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import language_layers

from ..families import FamilyCase, each_family

Loaded = tuple[Model, Processor]


@pytest.fixture
def loaded(case: FamilyCase, request: pytest.FixtureRequest) -> Loaded:
    """A tiny model that says different things to different questions, and its processor."""
    folder = case.folder(request)
    model, processor = AutoModelMIX.from_pretrained(folder), AutoProcessorMIX.from_pretrained(folder)
    paddle.seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.set_value(paddle.randn(parameter.shape) * 0.2)
    return model, processor


@pytest.fixture
def image(tmp_path: Path) -> str:
    PIL.Image.effect_noise((56, 56), 90).convert("RGB").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@each_family
def test_every_family_answers_with_a_history_that_goes_on(case: FamilyCase, loaded: Loaded, image: str) -> None:
    first = [{"image": image}, {"text": "Find the star."}]
    response, history = inference(*loaded, first, max_new_tokens=6)
    assert response and history == [(first, response)]
    kept = json.loads(json.dumps(history))
    again, longer = inference(*loaded, "Is it red?", kept, max_new_tokens=6)
    assert longer == [(first, response), ("Is it red?", again)] and len(kept) == 1
    alone, _ = inference(*loaded, "Is it red?", max_new_tokens=6)
    assert again != alone, "the history makes no difference"


@each_family
def test_a_streamed_answer_grows_to_the_answer_and_can_be_left(case: FamilyCase, loaded: Loaded, image: str) -> None:
    query, before = [{"image": image}, {"text": "Count."}], [("Hello", "Hi")]
    response, history = inference(*loaded, query, before, max_new_tokens=12)
    said = list(inference_stream(*loaded, query, before, max_new_tokens=12))
    assert said[-1] == (response, history) and len(said) > 2
    assert all(later.startswith(earlier) for (earlier, _), (later, _) in pairwise(said))
    assert all(one == [*before, (query, text)] for text, one in said)
    stream = inference_stream(*loaded, query, before, max_new_tokens=12)
    assert next(stream) == said[0]
    stream.close()


@each_family
def test_models_chat_as_the_calls_do_with_adapters_around_them_too(
    case: FamilyCase, loaded: Loaded, image: str, request: pytest.FixtureRequest
) -> None:
    model, processor = loaded
    if case.model_type == "qwen":  # whose published `chat` takes the tokenizer, and images by their tags
        asks_with, query = AutoTokenizerMIX.from_pretrained(case.folder(request)), f"<img>{image}</img>Count."
    else:
        asks_with, query = processor, [{"image": image}, {"text": "Count."}]
    response, history = inference(model, processor, query, max_new_tokens=6)
    layers = language_layers(model, family_of(model.config).language_globs)
    adapted = MixLoRAModel.adapting(model, AdapterConfig(4, 8, 0.0, False, "base"), layers)
    adapted.eval()
    assert inference(adapted, processor, query, max_new_tokens=6) == (response, history)
    for asked in (model, adapted):
        answer, said = asked.chat(asks_with, query, max_new_tokens=6)
        assert said == [(query, answer)] and answer
        # An answer of Qwen-VL's that is cut off loses its last token, as in the original.
        assert answer == response or case.model_type == "qwen"
        *_, streamed = asked.chat_stream(asks_with, query, max_new_tokens=6)
        assert streamed == response


@each_family
def test_settings_of_answers_and_a_system_text_are_taken(case: FamilyCase, loaded: Loaded) -> None:
    plain, _ = inference(*loaded, "Count.", max_new_tokens=8)
    assert len(inference(*loaded, "Count.", max_new_tokens=2)[0]) < len(plain)
    given = GenerationConfig(max_new_tokens=8, temperature=5.0, seed=3)
    assert inference(*loaded, "Count.", generation_config=given)[0] != plain
    assert inference(*loaded, "Count.", generation_config=given, do_sample=False)[0] == plain
    assert inference(*loaded, "Count.", system="Say nothing but numbers.", max_new_tokens=8)[0] != plain
    with pytest.raises(TypeError, match="max_tokens is no setting of answers"):
        inference(*loaded, "Count.", max_tokens=8)


@each_family
def test_a_loaded_model_is_asked_in_the_way_of_its_family(case: FamilyCase, loaded: Loaded) -> None:
    family = family_of(loaded[0].config)
    assert family in FAMILIES and family.model_type == case.model_type
    assert type(dialogue_with(*loaded)) is family.dialogue_class
