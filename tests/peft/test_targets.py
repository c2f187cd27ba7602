from __future__ import annotations

import re

import pytest

from paddlemix.models.qwen2_vl.family import FAMILY as QWEN2_VL
from paddlemix.models.qwen_vl.family import FAMILY as QWEN_VL
from paddlemix.peft.targets import language_layers, linear_layers, match_layers, shortest_endings

NAMES = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.mlp.c_proj", "visual.blocks.0.mlp.c_proj"]


def test_the_language_models_linear_layers_are_all_but_the_towers_and_the_head(tied, qwen_vl):
    for model, family in zip((tied, qwen_vl), (QWEN2_VL, QWEN_VL), strict=True):
        names = language_layers(model, family.language_globs)
        left = set(linear_layers(model)) - set(names)
        assert len(names) in (14, 10) and any("visual" in name for name in left)
        assert all("visual" in name or name == "lm_head" for name in left)
        assert not any("visual" in name or name == "lm_head" for name in names)


def test_patterns_are_for_whole_names_and_each_layer_is_taken_once():
    matched = match_layers("lora_target_modules", [".*attn.c_.*", r"h\.\d+\.(attn|mlp)\.c_proj"], NAMES)
    assert matched == NAMES[:4]
    with pytest.raises(ValueError, match="matches no layer: `c_attn`"):
        match_layers("lora_target_modules", ["c_attn"], NAMES)


def test_a_pattern_that_matches_nothing_is_named_with_its_key_and_the_nearest_layer():
    with pytest.raises(ValueError) as caught:
        match_layers("lora_target_modules", [".*c_proj", ".*c_atn.*"], NAMES)
    assert str(caught.value) == (
        "`lora_target_modules` matches no layer: `.*c_atn.*`. Did you mean `.*c_attn`? Layers: c_attn, c_proj."
    )
    with pytest.raises(ValueError, match=r"`lora_modules_to_save`: '\(' is no regular expression"):
        match_layers("lora_modules_to_save", ["("], NAMES)


def test_endings_stand_for_the_chosen_layers_and_no_other():
    chosen = ["h.0.attn.c_attn", "h.0.mlp.c_proj", "h.1.mlp.c_proj"]
    endings = shortest_endings(chosen, NAMES)
    assert endings == ["c_attn", "h.0.mlp.c_proj", "h.1.mlp.c_proj"]
    # As PEFT reads them.
    assert [name for name in NAMES if any(re.fullmatch(rf"(.*\.)?{re.escape(one)}", name) for one in endings)] == chosen
    assert shortest_endings(NAMES, NAMES) == ["c_attn", "c_proj"]


def test_an_ending_is_never_a_bare_number_which_blocks_have_too():
    assert shortest_endings(["merger.mlp.0"], ["blocks", "blocks.0", "merger.mlp", "merger.mlp.0"]) == ["mlp.0"]
