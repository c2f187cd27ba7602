"""The tool that estimates a config's memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from paddlemix.tools import estimate_memory
from paddlemix.tools.report_errors import report_errors

ROOT = Path(estimate_memory.__file__).parents[2]
CONFIGS = ROOT / "paddlemix" / "config" / "qwen2_vl"


def documented_rows() -> list[tuple[str, list[float]]]:
    """The table of docs/finetune.md: what comes before the numbers, and the numbers."""
    lines = (ROOT / "docs" / "finetune.md").read_text("utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(("| 2B", "| 7B"))
    ]
    return [(title, [float(number) for number in numbers]) for title, *numbers in cells]


def rows_beside_published() -> list[tuple[str, str]]:
    """The rows of docs/finetune.md with published figures: config and flags, and the estimate at 2,048 tokens."""
    lines = (ROOT / "docs" / "finetune.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [
        (one[1].strip("`"), one[-1].split(" ")[0])
        for one in cells
        if len(one) > 2 and one[1].startswith(("`lora_sft", "`qlora_sft"))
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What the tool prints for a config and flags."""

    def start(*flags: str, **keys: Any) -> str:
        config = {
            "model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct",
            "output_dir": str(tmp_path / "out"),
            "do_train": True,
            "dataset": {"train": [{"name": "chatml_dataset", "data_files": "a.json"}]},
            "bf16": True,
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        monkeypatch.setattr(sys, "argv", ["estimate_memory.py", str(tmp_path / "config.json"), *flags])
        with report_errors():
            estimate_memory.main()
        return capsys.readouterr().out

    return start


def test_the_table_adds_up(run: Any) -> None:
    lines = run("--fp16_opt_level", "O2", "--recompute", "true").splitlines()
    assert lines[0] == "Qwen/Qwen2-VL-7B-Instruct: 8,291,375,616 parameters, 8,291,375,616 trained; weights of 16 bits"
    assert "a forward pass of 2,048 tokens" in lines[1] and "vision tower and language model recomputed" in lines[1]
    sizes = {line[:40].strip(): float(line.split()[-2]) for line in lines if line.endswith("GiB")}
    total = sizes.pop("each card")
    assert sizes["weights"] == sizes["gradients"] == pytest.approx(8291375616 * 2 / 2**30, abs=0.01)
    assert len(sizes) == 8 and total == pytest.approx(sum(sizes.values()), abs=0.05)


def test_codes_take_half_a_byte_and_their_scales(run: Any) -> None:
    first = run("--quantize", "nf4", "--lora", "true").splitlines()[0]
    assert first.endswith("; weights of 32 bits, linear layers in nf4, products of 16")
    plain, coded = (
        json.loads(run("--json", "--lora", "true", "--fp16_opt_level", "O2", *flags))["bytes_on_each_card"]
        for flags in ((), ("--quantize", "nf4"))
    )
    # 28 blocks: queries and what attention gives, keys and values, and the MLP; each has a table of what bytes mean.
    numbers = 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert plain["weights"] - coded["weights"] == numbers * (2 - 1 / 2 - 4 / 64) - 28 * 7 * 2048
    assert plain["gradients"] == coded["gradients"] and plain["optimizer"] == coded["optimizer"]


def test_json_holds_the_same_in_bytes(run: Any) -> None:
    found = json.loads(run("--json", "--lora", "true", "--image_share", "0.25"))
    sizes = found["bytes_on_each_card"]
    assert found["parameters"] > 8.29e9 and 0 < found["trained"] < 0.01 * found["parameters"]
    assert (found["tokens"], found["image_tokens"], found["cards"]) == (2048, 512, 1)
    assert sizes["optimizer"] == 8 * found["trained"] and sizes["activations_of_the_vision_tower"] == 0
    assert sizes["total"] == pytest.approx(sum(size for name, size in sizes.items() if name != "total"), abs=10)


def test_help_shows_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["estimate_memory.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        estimate_memory.main()
    said = capsys.readouterr().out
    assert "python paddlemix/tools/estimate_memory.py paddlemix/config/" in said and "--image_share" in said


@pytest.mark.parametrize(
    ("flags", "keys", "expected"),
    [
        ((), {"learning_rat": 1}, "unknown key `learning_rat` (value 1). Did you mean `learning_rate`?"),
        ((), {"model_name_or_path": "no/such/folder"}, "`model_name_or_path` no/such/folder is no local folder"),
        (("--freeze_include", '["*vision*"]'), {}, "`freeze_include` ['*vision*'] matches no parameter"),
        (("--do_train", "false", "--do_eval", "true"), {}, "`do_eval` or `evaluation_strategy` asks for evaluation"),
        (("--cards", "0"), {}, "--cards is 0"),
    ],
)
def test_a_bad_config_ends_with_a_sentence(
    run: Any, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], keys: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SystemExit, match="1"):
        run(*flags, **keys)
    said = capsys.readouterr()
    assert expected in said.err and not said.out


def test_the_documented_table_has_rows_of_both_sizes() -> None:
    assert [sum(title.startswith(size) for title, _ in documented_rows()) for size in ("2B", "7B")] == [8, 8]


def test_published_figures_stand_beside_four_rows_of_each_model() -> None:
    assert len(rows_beside_published()) == 8


@pytest.mark.parametrize(("place", "row"), list(enumerate(rows_beside_published())))
def test_an_estimate_beside_a_published_figure_is_what_its_command_prints(
    place: int, row: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (config, *flags), folder = row[0].split(), "qwen_vl" if place < 4 else "qwen2_vl"
    common = ["--gradient_accumulation_steps", "8", "--mixtoken", "false", "--recompute", "true", "--json"]
    command = ["estimate_memory.py", str(CONFIGS.parent / folder / config), *flags, *common, "--max_length", "2048"]
    monkeypatch.setattr(sys, "argv", command)
    estimate_memory.main()
    said = capsys.readouterr().out
    total = json.loads(said[said.index("{") :])["bytes_on_each_card"]["total"]
    assert float(row[1]) == pytest.approx(total / 2**30, abs=0.051)


@pytest.mark.parametrize(("title", "numbers"), documented_rows())
def test_a_documented_row_is_what_its_command_prints(
    title: str, numbers: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = "lora_sft_argument.json" if "LoRA" in title else "sft_argument.json"
    flags = title.split("`")[1].split() if "`" in title else []
    model = f"Qwen/Qwen2-VL-{title[:2]}-Instruct"
    command = ["estimate_memory.py", str(CONFIGS / file), "--model_name_or_path", model, *flags, "--json"]
    monkeypatch.setattr(sys, "argv", command)
    estimate_memory.main()
    sizes = json.loads(capsys.readouterr().out)["bytes_on_each_card"]
    named = [sizes[name] for name in ("weights", "gradients", "optimizer")]
    expected = [*named, sizes["total"] - sum(named), sizes["total"]]
    assert numbers == [pytest.approx(size / 2**30, abs=0.051) for size in expected]
