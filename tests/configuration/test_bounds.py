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
