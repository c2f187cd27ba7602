"""Configs that are too much: answered soon, and with as many problems as somebody reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.keys import key_table

MINIMAL: dict[str, Any] = {
    "model_name_or_path": "m",
    "output_dir": "out",
    "do_train": True,
    "dataset": {"train": [{"name": "chatml_dataset", "data_files": "train.json"}]},
}


def problems_of(path: Path, values: dict[str, Any], *flags: str) -> list[str]:
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as refused:
        load_config(str(path), flags, has_gpu=False)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("where", ["at the top", "in a set", "flags"])
def test_of_thousands_of_unknown_keys_the_first_are_told_and_the_others_counted(tmp_path: Path, where: str) -> None:
    key_table()  # imports PaddleNLP, which takes seconds
    unknown = {f"unknown_{number}": number for number in range(20_000)}
    values, flags = dict(MINIMAL), []
    if where == "at the top":
        values |= unknown
    elif where == "in a set":
        values["dataset"] = {"train": [{**MINIMAL["dataset"]["train"][0], **unknown}]}
    else:
        flags = [f"--{name}=1" for name in unknown]
    began = time.process_time()
    found = problems_of(tmp_path / "config.json", values, *flags)
    assert len(found) == 51 and time.process_time() - began < 8
    last = "--unknown_50 and what follows it was not looked at" if flags else "19,950 more keys or values are wrong"
    assert any(last in problem for problem in found)


def test_a_file_that_is_no_config_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * (2 << 20))
    for path in (tmp_path / "large.json", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="has more than 1 MiB"):
            load_config(str(path), has_gpu=False)


@pytest.mark.parametrize("key", ["gradient_accumulation_steps", "dataloader_num_workers"])
def test_numbers_that_no_machine_can_serve_are_refused(tmp_path: Path, key: str) -> None:
    (problem,) = problems_of(tmp_path / "config.json", {**MINIMAL, key: 10**9})
    assert f"`{key}` is 1000000000; expected a whole number" in problem and "at most" in problem


def test_a_link_that_leads_nowhere_is_no_output_dir(tmp_path: Path) -> None:
    from paddlemix.configuration.output_dir import check_output_dir

    os.symlink("nowhere", tmp_path / "out")
    (tmp_path / "config.json").write_text(json.dumps({**MINIMAL, "output_dir": str(tmp_path / "out")}))
    with pytest.raises(ConfigError, match="a link that leads nowhere; expected a folder"):
        check_output_dir(load_config(str(tmp_path / "config.json"), has_gpu=False))


@pytest.mark.parametrize("name", ["run.json", "run.yaml"])
def test_a_named_pipe_is_refused_and_a_shell_s_is_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name}: is a named pipe"):
        load_config(str(tmp_path / name), has_gpu=False)
    reader, writer = os.pipe()
    os.write(writer, b"{}")
    os.close(writer)
    with pytest.raises(ConfigError, match="`output_dir` is missing"):
        load_config(f"/dev/fd/{reader}", has_gpu=False)
    os.close(reader)


def _merges() -> str:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [
        f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}], k{level}: 1}}" for level in range(1, 9)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [_merges(), f"{{{'a,' * 400_000}}}", "- a\n" * 240_000, "".join(f"k{i}: &a{i} 1\n" for i in range(50_000))],
    ids=["merges", "flow", "list", "anchors"],
)
def test_yaml_of_more_values_than_a_config_has_is_given_up_soon(tmp_path: Path, text: str) -> None:
    key_table()
    (tmp_path / "run.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"run.yaml:\d+: .*more than 20000 values"):
        load_config(str(tmp_path / "run.yaml"), has_gpu=False)
    assert time.process_time() - began < 6  # two on one core alone, as against twenty and more


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": -1}, "`seed` is -1; expected a whole number, at least 0"),
        ({"seed": 2**32}, "`seed` is 4294967296; expected a whole number, at least 0, at most 2147483647"),
        ({"max_steps": 10**300}, "`max_steps` is 1000"),
        ({"max_steps": -(2**64)}, "expected no whole number beyond 2^63"),
        ({"lora_rank": 10**9}, "`lora_rank` is 1000000000; expected a whole number, at least 1, at most 65536"),
        ({"num_train_epochs": 1e300}, "`num_train_epochs` is 1e+300; expected a number"),
        ({"output_dir": "a\0b"}, '`output_dir` is "a\\u0000b"; no text of a config holds the character'),
        ({"dataset": {"train": [{"name": "auto", "data_files": "a\0"}]}}, "no text of a config holds the character"),
        ({"dataset": {"train": [{"name": "auto", "data_files": "a", "repeat": 1e9}]}}, "`dataset.train[0].repeat` is"),
    ],
)
def test_values_that_no_run_can_have_are_told_with_their_key(
    tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    (problem,) = problems_of(tmp_path / "config.json", {**MINIMAL, **values})
    assert expected in problem and len(problem) < 500


def test_a_text_that_spells_the_character_zero_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**MINIMAL, "output_dir": "\\\\u0000"}))
    assert load_config(str(tmp_path / "config.json"), has_gpu=False).training["output_dir"] == "\\\\u0000"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b" " * (5 << 20), "5242880 bytes; expected at most"), (b"\xff\xfe<\0", "is not UTF-8: byte 0")],
)
def test_a_file_of_new_tokens_is_read_within_bounds(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "tokens.txt").write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({**MINIMAL, "new_tokens": "tokens.txt"}))
    with pytest.raises(ValueError, match=rf"tokens.txt.*{expected}"):
        load_config(str(tmp_path / "config.json"), has_gpu=False)


def test_a_key_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "config.json", {**MINIMAL, "k" * 10**6: 1})
    assert "unknown key `kkkk" in problem and len(problem) < 300
