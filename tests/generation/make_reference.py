"""Make the file that generation is compared with: answers and distributions of the reference implementation.

Needs torch 2.13.0 (CPU) and transformers 4.57.6, in an environment of its own, and the models that
tests/models/make_reference.py made; the tests need neither torch nor transformers.

    python tests/generation/make_reference.py                # write tests/fixtures/generation/reference.npz

`<variant>/<case>/tokens` are greedy answers int64[B, T] to the batch `mixed_left`, -1 behind an answer's end, and
`<variant>/<case>/end_token_ids` what ended them; cases whose name begins with `beams` were searched with the settings
`<variant>/<case>/settings`, JSON. `logits` float32[N, V] and `prompts` int64[N, L] are what each setting
of `settings`, a JSON list, turns into `distributions` float32[S, N, V].
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, Qwen2VLForConditionalGeneration

FIXTURES = Path(__file__).parents[1] / "fixtures"
TARGET = FIXTURES / "generation" / "reference.npz"
INPUTS = ["input_ids", "attention_mask", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]
BATCH, TOKENS, PAD = "mixed_left", 12, 0

CASES = {
    "penalty": {"repetition_penalty": 1.3},
    "reward": {"repetition_penalty": 0.8},
    "end": {"ends": True},
    "min": {"ends": True, "min_new_tokens": 7},
    "min_and_penalty": {"ends": True, "min_new_tokens": 5, "repetition_penalty": 1.3},
}
BEAMS = {
    "beams": {"num_beams": 3},
    "beams_long": {"num_beams": 4, "length_penalty": 2.5},
    "beams_short": {"num_beams": 3, "length_penalty": -1.0},
    "beams_early": {"num_beams": 3, "early_stopping": True},
    "beams_never": {"num_beams": 3, "length_penalty": 1.5, "early_stopping": "never"},
    "beams_min_and_penalty": {"num_beams": 2, "min_new_tokens": 5, "repetition_penalty": 1.3},
}
VOCABULARY, PROMPT = 160, 30
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.0, "top_k": 1000},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.5, "top_p": 0.3},
    {"temperature": 1.0, "top_p": 0.001},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
    {"temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.0},
    {"temperature": 1.5, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.3, "min_new_tokens": 2},
    {"temperature": 1.0, "repetition_penalty": 0.7, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 10, "min_new_tokens": 2},
]
END_TOKEN_IDS = [3, 5]


def main() -> None:
    """Make the file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    arrays = {}
    for variant in ("tied", "untied"):
        model = Qwen2VLForConditionalGeneration.from_pretrained(
            FIXTURES / "qwen2_vl_tiny" / variant, attn_implementation="eager", dtype=torch.float32
        )
        found = answers(model.eval(), variant)
        found |= searched(model, variant, found["end/end_token_ids"].tolist())
        arrays |= {f"{variant}/{name}": array for name, array in found.items()}
    arrays |= distributions(model)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    logging.info("%d bytes", TARGET.stat().st_size)


def answers(model: Qwen2VLForConditionalGeneration, variant: str) -> dict[str, np.ndarray]:
    """Greedy answers of each case; every setting changes something, and none is a close call."""
    batch, plain = asked(variant)
    # They end the first row late, the second early and, where it does not repeat them, the third never.
    ends = [int(plain[0, 8]), int(plain[1, 2])]
    found: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        settings = dict(case)
        end_token_ids = ends if settings.pop("ends", False) else []
        tokens = greedy(model, batch, end_token_ids, settings)
        logging.info("%s/%s, ends %s\n%s", variant, name, end_token_ids, tokens)
        if any(np.array_equal(tokens, other) for other in [plain, *found.values()]):
            raise SystemExit(f"{name} gives what another case gives")
        found |= {f"{name}/tokens": tokens, f"{name}/end_token_ids": np.array(end_token_ids, dtype=np.int64)}
    return found


def asked(variant: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """The batch, and the greedy answers to it without end tokens."""
    with np.load(FIXTURES / "qwen2_vl_tiny" / variant / "reference.npz") as stored:
        batch = {key: torch.from_numpy(stored[f"{BATCH}/{key}"]) for key in INPUTS}
        plain = stored["greedy/tokens"]
    # The reference penalizes padding in padded rows, as if it had been said; what stands in its place was.
    batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], batch["input_ids"][:, -1:])
    return batch, plain


def searched(model: Qwen2VLForConditionalGeneration, variant: str, end_token_ids: list[int]) -> dict[str, np.ndarray]:
    """The best answers of each search; the second best is no close call."""
    batch, _ = asked(variant)
    found: dict[str, np.ndarray] = {}
    for name, settings in BEAMS.items():
        output = model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=end_token_ids,
            pad_token_id=PAD,
            num_return_sequences=2,
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
        best, second = output.sequences_scores.reshape(-1, 2).T
        tokens = output.sequences[::2, batch["input_ids"].shape[1] :].numpy()
        tokens = np.where(np.isin(tokens, end_token_ids).cumsum(1) > 0, -1, tokens)
        logging.info("%s/%s, ends %s, ahead by %s\n%s", variant, name, end_token_ids, best - second, tokens)
        if (best - second).min() < 1e-4:
            raise SystemExit(f"a close call: choose another setting than {settings}")
        found |= {f"{name}/tokens": tokens, f"{name}/end_token_ids": np.array(end_token_ids, dtype=np.int64)}
        found[f"{name}/settings"] = np.array(json.dumps(settings))
    return found


def greedy(
    model: Qwen2VLForConditionalGeneration, batch: dict[str, torch.Tensor], end_token_ids: list[int], settings: dict
) -> np.ndarray:
    """int64[B, T], -1 from the end token on."""
    output = model.generate(
        **batch,
        do_sample=False,
        max_new_tokens=TOKENS,
        eos_token_id=end_token_ids or None,
        pad_token_id=PAD,
        output_scores=True,
        return_dict_in_generate=True,
        **settings,
    )
    tokens = output.sequences[:, batch["input_ids"].shape[1] :].numpy()
    has_ended = np.isin(tokens, end_token_ids).cumsum(1) > 0
    second, best = np.sort(torch.stack(output.scores, 1))[..., -2:].transpose(2, 0, 1)
    if (best - second)[~has_ended].min() < 1e-3:
        raise SystemExit(f"a close call: choose another setting than {settings}")
    return np.where(has_ended, -1, tokens)


def distributions(model: Qwen2VLForConditionalGeneration) -> dict[str, np.ndarray]:
    """What each setting makes of given logits behind given prompts, as probabilities."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4, VOCABULARY))
    # Usual, with many ties as bfloat16 has them, nearly flat, with a clear winner.
    logits = np.stack([normal[0] * 4, (normal[1] * 3).round(), normal[2] * 0.05, normal[3] * 2]).astype(np.float32)
    logits[3, 77] = 15
    prompts = rng.integers(0, VOCABULARY, (4, PROMPT))
    made = [distribution(model, setting, torch.from_numpy(logits), torch.from_numpy(prompts)) for setting in SETTINGS]
    return {
        "logits": logits,
        "prompts": prompts,
        "end_token_ids": np.array(END_TOKEN_IDS),
        "settings": np.array(json.dumps(SETTINGS)),
        "distributions": np.stack(made),
    }


def distribution(
    model: Qwen2VLForConditionalGeneration, setting: dict, logits: torch.Tensor, prompts: torch.Tensor
) -> np.ndarray:
    """float32[N, V]: through the processors that the reference chooses for the setting, in its order."""
    values = {"do_sample": True, "top_k": 0, "top_p": 1.0, **setting}
    config = GenerationConfig(eos_token_id=END_TOKEN_IDS, pad_token_id=PAD, **values)
    config._eos_token_tensor = torch.tensor(END_TOKEN_IDS)
    processors = model._get_logits_processor(config, input_ids_seq_length=PROMPT, device="cpu")
    logging.info("%s: %s", setting, [type(one).__name__ for one in processors])
    return processors(prompts, logits).softmax(-1).numpy()


if __name__ == "__main__":
    main()
