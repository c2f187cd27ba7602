from __future__ import annotations

import json

import pytest

from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.registry import FAMILIES, find_family


@pytest.fixture
def folder(tmp_path):
    def make(name="any name", **values):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps(values))
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    "values",
    [
        {"architectures": ["Qwen2VLForConditionalGeneration"]},
        {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "something_else"},
        {"model_type": "qwen2_vl"},
        {"model_type": "qwen2_vl", "architectures": []},
        {"model_type": "qwen2_vl", "architectures": None},
    ],
)
def test_architectures_choose_the_family_and_model_type_where_there_are_none(folder, values):
    family = find_family(folder(**values))
    assert family.model_class is Qwen2VLForConditionalGeneration and family.config_class is Qwen2VLConfig


def test_the_folders_name_says_nothing(folder):
    assert find_family(folder("llama-7b", model_type="qwen2_vl")).model_type == "qwen2_vl"
    with pytest.raises(ValueError, match="no model known here"):
        find_family(folder("Qwen2-VL-2B-Instruct", model_type="llama"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "qwen2_vl"}, '["LlamaForCausalLM"]'),
        ({"model_type": "llama"}, '"llama"'),
        ({}, "null"),
    ],
)
def test_an_unknown_model_is_refused_with_what_it_says_and_the_known_ones(folder, values, said):
    with pytest.raises(ValueError) as caught:
        find_family(folder(**values))
    assert said in str(caught.value)
    assert (
        "Known: Qwen2VLForConditionalGeneration (qwen2_vl), Qwen2_5_VLForConditionalGeneration (qwen2_5_vl), "
        "QWenLMHeadModel (qwen)."
    ) in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"architectures": ["Qwen2_5_VLModel"], "model_type": "qwen2_5_vl"},
        {"architectures": ["Qwen2_5_VLTextModel"], "model_type": "qwen2_5_vl_text"},
        {"architectures": ["Qwen2_5_VisionTransformerPretrainedModel"], "model_type": "qwen2_5_vl_vision"},
        {"architectures": ["Qwen2_5_VLForTokenClassification"], "model_type": "qwen2_5_vl"},
    ],
)
def test_a_part_of_a_known_model_is_refused_with_the_class_to_save_it_with(folder, values):
    with pytest.raises(ValueError, match=r"Give a whole Qwen2_5_VLForConditionalGeneration, saved with that class"):
        find_family(folder(**values))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_class_a_family_names_can_be_imported(family):
    assert family.model_class.__name__ == family.architecture
    assert family.model_class.config_class is family.config_class
    assert family.config_class.model_type == family.model_type
    assert family.processor_class.__name__ == family.processor


def test_the_familys_globs_sort_every_parameter_into_exactly_one_part(model):
    from fnmatch import fnmatchcase

    family = next(family for family in FAMILIES if family.model_type == model.config.model_type)
    parts = (family.vision_globs, family.aligner_globs, family.language_globs)
    counts = [0, 0, 0]
    for name, _ in model.named_parameters():
        matching = [index for index, globs in enumerate(parts) if any(fnmatchcase(name, glob) for glob in globs)]
        assert len(matching) == 1, name
        counts[matching[0]] += 1
    assert min(counts) > 0
