"""What is counted of a card: the table, its arithmetic, and that a step asks for less than transformers' does."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_cost.py"
KEPT = json.loads((BENCHMARKS / "results" / "gpu_cost_transformers.json").read_text("utf-8"))
SMALLEST = "Qwen2-VL-2B, 4 x 512"


@pytest.fixture(scope="module")
def gpu_cost() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        spec = importlib.util.spec_from_file_location("gpu_cost", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS.parent)}
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, env=environment)


def test_an_op_takes_the_longer_of_its_products_and_its_memory_and_its_launches(gpu_cost: Any) -> None:
    card = gpu_cost.Card(half=1e12, single=1e11, bandwidth=1e9, memory=1)
    launch = sys.modules["sides.card_rates"].LAUNCH
    busy = ["product", "forward", 1, 4e12, 1e9, False, 2]
    wide = ["product", "forward", 1, 4e12, 1e9, True, 1]
    moving = ["sum", "forward", 2, 0, 5e9, False, 1]
    assert gpu_cost.seconds([busy], card) == pytest.approx(2 * (4 + launch))
    assert gpu_cost.seconds([wide], card) == pytest.approx(40 + launch)
    assert gpu_cost.seconds([moving], card) == pytest.approx(5 + 2 * launch)


def test_every_card_has_the_rates_of_its_kind(gpu_cost: Any) -> None:
    for card in gpu_cost.CARDS.values():
        assert card.half > card.single and 1e12 < card.bandwidth < 1e13 and 24 <= card.memory <= 141


def test_optimizers_read_and_write_each_number(gpu_cost: Any) -> None:
    sizes = [10**6, 10, 10]
    ours, wide = (sum(one[4] for one in gpu_cost.paddle_optimizer(sizes, level)) for level in ("O2", "O1"))
    theirs = sum(one[4] for one in gpu_cost.torch_optimizer(sizes, "O2"))
    numbers = sum(sizes)
    assert ours - 24 == numbers * (4 + 8 + 30 + 6) and wide - 24 == numbers * (4 + 8 + 28)
    assert theirs == numbers * 20


def test_a_shape_that_a_family_has_not_is_named() -> None:
    done = run("--family", "qwen2_vl", "--shape", "3B")
    assert done.returncode == 1 and "--shape is 3B; expected 2B or 7B or 72B of qwen2_vl." in done.stderr
    done = run("--family", "qwen2_vl", "--shape", "2B", "--tokens", "257")
    assert done.returncode == 2 and "expected at least 1 and 258" in done.stderr


def test_help_shows_an_example() -> None:
    said = run("--help").stdout
    assert "python benchmarks/gpu_cost.py --family qwen2_vl --shape 2B --card H100" in said and "--torch_python" in said


def test_a_step_asks_for_less_than_transformers_with_and_without_liger() -> None:
    done = run("--family", "qwen2_vl", "--shape", "2B", "--card", "A100", "--mode", "step", "token", "qtoken", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    ours = rows["paddlemix step O2 pack"]
    # The decoder's weights are 1.3 of the 1.5 billion numbers that a token reads; as codes they have 4.5 bits of 16.
    token, of_codes = rows["paddlemix token O2 pack"], rows["paddlemix qtoken O2 pack"]
    assert of_codes["flops"] == token["flops"] and of_codes["kernels"] == token["kernels"]
    saved = 28 * (2 * 1536 * (1536 + 256) + 3 * 1536 * 8960) * (2 - 0.5 - 8 / 128)
    assert token["bytes"] - of_codes["bytes"] == pytest.approx(saved, rel=0.01)
    others = [row for name, row in rows.items() if name.startswith("transformers step") and "optimizer" not in name]
    assert len(others) == 4
    for theirs in others:
        for number in ("kernels", "flops", "bytes", "kept", "waits", "seconds"):
            assert ours[number] < theirs[number], (theirs["name"], number)
    # What the products of 2.2 billion numbers take, forwards and backwards: 4 x 512 tokens, half of which have logits
    # and half of which were four patches each; attention's gradient has five products for two.
    decoder, tower, head, merger = 28 * 46.8e6, 32 * 19.7e6, 151936 * 1536, 5120 * (5120 + 1536)
    products = 6 * (2048 * decoder + 4096 * tower + 1024 * head + 1024 * merger)
    attention = 3.5 * 4 * 4 * (28 * 1536 * 512**2 / 2 + 32 * 1280 * 1024**2)
    assert ours["flops"] == pytest.approx(products + attention, rel=0.01)


def test_what_is_kept_of_transformers_is_whole() -> None:
    attention = ("SDPA", "SDPA + Liger", "flash", "flash + Liger")
    wanted = {f"step {one}" for one in attention}
    wanted |= {f"{mode} {one}" for mode in ("prefill", "token") for one in ("SDPA", "flash")}
    for name, cases in KEPT.items():
        assert cases.keys() == wanted, name
    cases = KEPT[SMALLEST]

    def named(case: str, start: str) -> int:
        return sum(one[2] * one[6] for one in cases[case]["works"] if one[0].startswith(start))

    # A decoder of 28 blocks; of the tower's 32 SDPA takes each of four images by itself.
    assert named("step flash", "flash_attention") == (28 + 32) * 4
    assert named("step SDPA", "flash_attention") == (28 + 4 * 32) * 4
    assert named("step flash", "liger") == 0 and named("step flash + Liger", "liger_rms_norm") == (2 * 28 + 1) * 4
    pieces = math.ceil(4 * 511 / 32)
    assert named("step flash + Liger", "liger_loss_product") == 3 * pieces


@pytest.mark.skipif("REFERENCE_PYTHON" not in os.environ, reason="needs REFERENCE_PYTHON, with torch and transformers")
def test_transformers_is_counted_as_what_is_kept(tmp_path: Path) -> None:
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 4}
    config = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 1000,
        "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": vision,
    }
    spec = {"family": "qwen2_vl", "rows": 2, "tokens": 64, "images": [[1, 8, 8]] * 2, "config": config}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [os.environ["REFERENCE_PYTHON"], str(BENCHMARKS / "sides" / "transformers_counts.py")]
    done = subprocess.run([*command, str(tmp_path / "spec.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout.splitlines()[-1])["cases"]
    assert cases.keys() == KEPT[SMALLEST].keys()
    # The same ops, but those that are there for each image, block or piece.
    found, kept = ({one[0] for one in of["step flash + Liger"]["works"]} for of in (cases, KEPT[SMALLEST]))
    assert found == kept
