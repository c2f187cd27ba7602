from __future__ import annotations

import json

import pytest

from paddlemix.trainer.config_file import ConfigError, check_degrees, load_config


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    """What is wrong with degrees on so many processes; None where nothing is."""

    def of(processes, model="nowhere", **degrees):
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(processes))
        values = {"model_name_or_path": str(model), "output_dir": str(tmp_path / "out"), "do_train": True, **degrees}
        values["dataset"] = {"train": [{"name": "vqa_dataset", "data_files": "records.json"}]}
        path = tmp_path / "config.json"
        path.write_text(json.dumps(values, indent=1))
        try:
            check_degrees(load_config(str(path), has_gpu=False))
        except ConfigError as error:
            return str(error).removeprefix(f"{path}:5: ")  # the line of the degree
        return None

    return of


def test_a_run_without_degrees_takes_any_number_of_processes_and_looks_at_no_model(refusal):
    assert [refusal(processes) for processes in (1, 2, 3)] == [None] * 3


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_that_cannot_be_grouped_are_counted(refusal, processes):
    told = refusal(processes, tensor_parallel_degree=2)
    assert told.startswith(
        f"`tensor_parallel_degree` (2) does not divide the number of processes, which is {processes}."
    )


def test_a_model_that_ranks_cannot_share_is_refused_by_the_key_of_its_config(refusal, tiny_checkpoint, tiny_qwen_vl):
    told = refusal(2, tiny_checkpoint, tensor_parallel_degree=2)
    assert told.startswith("`tensor_parallel_degree` is 2, but so many ranks") and "`num_key_value_heads` 1" in told
    assert refusal(4, tiny_qwen_vl, tensor_parallel_degree=2) is None
