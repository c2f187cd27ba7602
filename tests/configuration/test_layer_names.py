"""Names of layers in the ways in which other systems give them."""

from __future__ import annotations

import pytest

from paddlemix.configuration.layer_names import ending_in, layer_patterns

NAMES = ["model.layers.0.self_attn.q_proj", "visual.blocks.0.mlp.0", "visual.merger.mlp.0", "lm_head", "q_proj_extra"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all-linear", ["all-linear"]),
        ("q_proj", ["q_proj"]),
        ("q_proj,v_proj", ["q_proj", "v_proj"]),
        (" q_proj , v_proj, ", ["q_proj", "v_proj"]),
        (["q_proj", "k_proj,v_proj"], ["q_proj", "k_proj", "v_proj"]),
        (r".*\.(q|v)_proj", [r".*\.(q|v)_proj"]),
        (r".*\.\d{1,2}\.[q,v]_proj,.*o_proj", [r".*\.\d{1,2}\.[q,v]_proj", ".*o_proj"]),
        ([], []),
    ],
)
def test_a_text_is_taken_apart_at_commas_that_no_bracket_holds(given, expected):
    assert layer_patterns(given) == expected


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("q_proj", NAMES[:1]), ("mlp.0", NAMES[1:3]), ("lm_head", ["lm_head"]), ("proj", []), (".*q_proj", [])],
)
def test_a_name_is_matched_by_its_last_parts_as_peft_does(ending, expected):
    assert ending_in(ending, NAMES) == expected
