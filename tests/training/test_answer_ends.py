"""What ends an answer once a base model was fine-tuned on conversations: in the files, and in every tool."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.utils import unique_name
from PIL import Image

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.chat import inference
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.conversation import Conversation, RecordId, Text, Turn
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.generation.sampling import TokenChooser
from paddlemix.models.vocabulary import with_rows
from paddlemix.tools import chat, evaluate, merge_lora_params, predict, preview_data, supervised_finetune
from paddlemix.training.answer_evaluation import AnswerEvaluation
from paddlemix.training.finetune import Run

from ..families import FamilyCase, each_family

ARGS = SimpleNamespace(tensor_parallel_degree=-1, fp16_opt_level="O1", bf16=False, fp16=False, seed=3)
ENDS = ("<|im_end|>", "<|endoftext|>")
LONGEST = 9


def base_of(checkpoint: Path, folder: Path, said: dict[str, Any] | None, **config: Any) -> Path:
    """A copy of a checkpoint whose files are a base model's; `said` is its generation_config.json."""
    shutil.copytree(checkpoint, folder)
    end_of_text = AutoTokenizerMIX.from_pretrained(folder).token_id("<|endoftext|>")
    if said is not None:
        raw = {"chat_format": "raw"} if "qwen_vl" in str(checkpoint) else {}
        write(folder / "generation_config.json", {**raw, **said})
    write(folder / "config.json", {**read(folder / "config.json"), "eos_token_id": end_of_text, **config})
    settings = read(folder / "tokenizer_config.json")
    if "eos_token" in settings:
        write(folder / "tokenizer_config.json", {**settings, "eos_token": "<|endoftext|>"})
    return folder


def published_base(checkpoint: Path, folder: Path) -> Path:
    """A copy of a checkpoint whose files say what those of a published base model do."""
    end_of_text = AutoTokenizerMIX.from_pretrained(checkpoint).token_id("<|endoftext|>")
    said = {"bos_token_id": end_of_text, "do_sample": False, "eos_token_id": end_of_text, "max_new_tokens": 2048}
    return base_of(checkpoint, folder, said)


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), "utf-8")


def train(base: Path, shapes: Path, out: Path, **changes: Any) -> Path:
    """Train a base for a step."""
    sets = {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]}
    config = {"model_name_or_path": str(base), "dataset": sets, "output_dir": str(out), "do_train": True, **changes}
    config |= {"max_steps": 1, "save_steps": 1, "report_to": "none"}
    write(out.with_suffix(".json"), config)
    with unique_name.guard():
        supervised_finetune.main([str(out.with_suffix(".json"))])
    return out


def trained_files(base: Path, out: Path) -> tuple[Any, Any]:
    """What a run from a base would write about answers: generation_config.json and tokenizer_config.json."""
    run = Run.of(FinetuneConfig(ModelArguments(model_name_or_path=str(base)), DataArguments(), {}))
    run.load_model(ARGS).save_pretrained(out)
    run.processor.save_pretrained(out)
    return read(out / "generation_config.json"), read(out / "tokenizer_config.json")


def ends_of(folder: Path) -> list[int]:
    tokenizer = AutoTokenizerMIX.from_pretrained(folder)
    return [tokenizer.token_id(end) for end in ENDS]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets every model say "a", end its turn and babble on; gives the places in answers that were chosen for."""
    made: list[int] = []

    def rig(tokenizer: Any, end: str = "<|im_end|>") -> list[int]:
        says = [*tokenizer.encode("a")[:1], tokenizer.token_id(end)]

        def scores(self: TokenChooser, logits: np.ndarray) -> np.ndarray:
            made.append(self._chosen)
            return np.arange(len(logits)) == (says[self._chosen] if self._chosen < 2 else says[0])

        monkeypatch.setattr(TokenChooser, "scores", scores)
        return made

    return rig


@each_family
def test_after_a_step_on_a_base_every_file_and_tool_ends_an_answer_with_its_turn(
    case: FamilyCase,
    request: pytest.FixtureRequest,
    shapes: Path,
    tmp_path: Path,
    rig: Callable[[Any], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = published_base(case.folder(request), tmp_path / "base")
    whole = train(base, shapes, tmp_path / "whole")
    adapter = train(base, shapes, tmp_path / "adapter", lora=True)
    merged = ["--model_name_or_path", base, "--lora_path", adapter, "--merge_model_path", tmp_path / "merged"]
    _main(monkeypatch, merge_lora_params.main, *merged)
    for folder in (whole, whole / "checkpoint-1", adapter, adapter / "checkpoint-1", tmp_path / "merged"):
        said = read(folder / "generation_config.json")
        assert said["eos_token_id"] == ends_of(base), folder
        assert (said["max_new_tokens"], said["do_sample"], "pad_token_id" in said) == (2048, False, False)
        settings = read(folder / "tokenizer_config.json")
        assert settings.get("eos_token", "<|im_end|>") == "<|im_end|>", folder

    made = rig(AutoTokenizerMIX.from_pretrained(base))
    for folder in (whole, adapter, tmp_path / "merged"):
        asked = _tools(folder, shapes, tmp_path, monkeypatch)
        for name, ask in asked.items():
            made.clear()
            ask()
            assert set(made) == {0, 1}, (folder.name, name)
    assert "answer: a\n" in capsys.readouterr().out


def _main(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tool.py", *map(str, words)])
    main()


def _tools(folder: Path, shapes: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Any]]:
    """Every way to ask the model in a folder, with answers of nine tokens at most."""
    model, processor = AutoModelMIX.from_pretrained(folder), AutoProcessorMIX.from_pretrained(folder)
    question = Conversation((Turn("user", (Text("What is it?"),)),), RecordId("x", 0))
    Image.new("RGB", (64, 64)).save(out / "a.png")
    named = ["--model_name_or_path", folder, "--output_dir", out / "drawn", "--max_new_tokens", LONGEST]
    item = {"name": "vqa_dataset", "data_files": str(shapes / "eval_vqa.json"), "max_samples": 1}
    scored = ["--dataset", json.dumps([item]), "--output", out / "metrics.json", "--max_new_tokens", LONGEST]
    preview = SimpleNamespace(max_new_tokens=LONGEST)
    keys = ModelArguments(model_name_or_path=str(folder), lora=(folder / "adapter_config.json").is_file())
    run = Run.of(FinetuneConfig(keys, DataArguments(), {"seed": 3}))

    def scores() -> Any:
        mix = MixDataset.load([DatasetSpec(**item)], processor)
        return AnswerEvaluation(mix, processor, max_new_tokens=LONGEST, batch_size=1).metrics(model)

    def talk() -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n"))
        _main(monkeypatch, chat.main, *named)

    def generate() -> None:
        prompt = paddle.to_tensor(processor.encode_prompt(question).input_ids[None])
        model.generate(prompt, max_new_tokens=LONGEST)

    return {
        "predict": lambda: _main(
            monkeypatch, lambda: predict.main(predict.Script("x")), *named, "--input_image", out / "a.png"
        ),
        "chat": talk,
        "evaluate": lambda: _main(monkeypatch, evaluate.main, folder, *scored),
        "predict_with_generate": scores,
        "preview": lambda: preview_data.answering(run, preview)(
            Conversation((*question.turns, Turn("assistant", (Text("a"),))), question.source)
        ),
        "generate": generate,
        "inference": lambda: inference(model, processor, "What is it?", max_new_tokens=LONGEST),
        "model.chat": lambda: model.chat(
            processor.tokenizer if hasattr(model, "transformer") else processor, "What is it?", max_new_tokens=LONGEST
        ),
    }


OWN_TURNS = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}END\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def with_own_turns(base: Path, end: str, added: list[dict[str, Any]]) -> Path:
    """Let a base's template end turns in another way; `added` become tokens of its vocabulary."""
    write(base / "chat_template.json", {"chat_template": OWN_TURNS.replace("END", end)})
    tokens = read(base / "tokenizer.json")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    first = max(one["id"] for one in tokens["added_tokens"]) + 1
    tokens["added_tokens"] += [{"id": first + place, **flags, **one} for place, one in enumerate(added)]
    write(base / "tokenizer.json", tokens)
    if added:
        with_rows(AutoModelMIX.from_pretrained(base), first + len(added)).save_pretrained(base)
    return base


EOT = {"content": "<|eot|>", "special": True}


@pytest.mark.parametrize("adds", ["checkpoint", "new_tokens"])
def test_the_end_that_a_checkpoints_template_writes_is_learned_and_ends_answers(
    tiny_checkpoint, shapes, tmp_path, rig, monkeypatch, capsys, adds
):
    base = published_base(tiny_checkpoint, tmp_path / "base")
    with_own_turns(base, "<|eot|>", [EOT] if adds == "checkpoint" else [])
    new = {"new_tokens": [{"token": "<|eot|>", "special": True}]} if adds == "new_tokens" else {}
    out = train(base, shapes, tmp_path / "out", lora=True, new_tokens_multiple=8 if new else None, **new)
    tokenizer = AutoTokenizerMIX.from_pretrained(out)
    end = tokenizer.token_id("<|eot|>")
    for folder in (out, out / "checkpoint-1"):
        assert read(folder / "generation_config.json")["eos_token_id"] == [end, tokenizer.token_id("<|endoftext|>")]
        assert read(folder / "tokenizer_config.json")["eos_token"] == "<|eot|>"

    processor = AutoProcessorMIX.from_pretrained(out)
    turns = (Turn("user", (Text("Q"),)), Turn("assistant", (Text("a"),)))
    sample = processor.encode(Conversation(turns, RecordId("x", 0)))
    assert sample.labels[sample.labels >= 0].tolist() == [*tokenizer.encode("a"), end]

    made = rig(tokenizer, "<|eot|>")
    for name, ask in _tools(out, shapes, tmp_path, monkeypatch).items():
        made.clear()
        ask()
        assert set(made) == {0, 1}, name
    assert "answer: a\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("end", "added", "ends"),
    [
        ("<|endoftext|>", [], ["<|endoftext|>"]),
        ("{{ eos_token }}", [], ["<|endoftext|>"]),
        ("<|eot|><|im_end|>", [EOT], ["<|eot|>", "<|endoftext|>"]),
        ("###", [], ["<|im_end|>", "<|endoftext|>"]),  # no token of the vocabulary
        ("</s>", [{"content": "</s>", "special": False}], ["<|im_end|>", "<|endoftext|>"]),  # a word
        ("{{ raise_exception('only once') }}", [], ["<|im_end|>", "<|endoftext|>"]),
    ],
)
def test_other_ends_of_turns_in_templates(tiny_checkpoint, tmp_path, end, added, ends):
    base = with_own_turns(published_base(tiny_checkpoint, tmp_path / "base"), end, added)
    file, settings = trained_files(base, tmp_path / "out")
    tokenizer = AutoTokenizerMIX.from_pretrained(base)
    named = file["eos_token_id"]
    assert (named if isinstance(named, list) else [named]) == [tokenizer.token_id(one) for one in ends]
    assert settings["eos_token"] == ends[0]


@each_family
def test_a_list_keeps_its_further_ends_and_what_else_the_file_says(case, request, tmp_path):
    checkpoint = case.folder(request)
    end, end_of_text = ends_of(checkpoint)
    said = {"eos_token_id": [end_of_text, 7], "pad_token_id": 5, "top_p": 0.5, "own": None}
    file, _ = trained_files(base_of(checkpoint, tmp_path / "base", said), tmp_path / "out")
    assert file.pop("chat_format", "chatml") == "chatml"
    assert file == {**said, "eos_token_id": [end, end_of_text, 7]}


@each_family
@pytest.mark.parametrize("said", [{}, {"eos_token_id": None}, {"eos_token_id": []}, None])
def test_where_the_file_names_no_end_those_of_config_and_tokenizer_stay_ends(case, request, tmp_path, said):
    checkpoint = case.folder(request)
    file, _ = trained_files(base_of(checkpoint, tmp_path / "base", said), tmp_path / "out")
    assert file["eos_token_id"] == ends_of(checkpoint)


def test_an_end_that_only_text_config_names_is_found(tiny_checkpoint, tmp_path):
    end, end_of_text = ends_of(tiny_checkpoint)
    base = base_of(tiny_checkpoint, tmp_path / "base", None)
    values = read(base / "config.json")
    outside = ("model_type", "architectures", "vision_config")
    text = {name: value for name, value in values.items() if name not in outside and not name.endswith("_token_id")}
    rest = {name: value for name, value in values.items() if name not in text and name != "eos_token_id"}
    write(base / "config.json", {**rest, "text_config": {**text, "eos_token_id": end_of_text}})
    file, tokenizer = trained_files(base, tmp_path / "out")
    assert file["eos_token_id"] == [end, end_of_text] and tokenizer["eos_token"] == "<|im_end|>"


@each_family
def test_the_files_of_a_chat_model_stay_as_they_are(case, request, tmp_path):
    checkpoint = case.folder(request)
    end, end_of_text = ends_of(checkpoint)
    folder = tmp_path / "chat"
    shutil.copytree(checkpoint, folder)
    ends = end_of_text if case.model_type == "qwen" else [end, end_of_text]  # as published
    chat_format = {"chat_format": "chatml"} if case.model_type == "qwen" else {}
    written = json.dumps({**chat_format, "do_sample": True, "eos_token_id": ends}, separators=(",", ":"))
    (folder / "generation_config.json").write_text(written)
    before = read(folder / "tokenizer_config.json")
    _, tokenizer = trained_files(folder, tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_text() == written
    assert tokenizer == before


def test_a_base_with_ends_in_its_config_alone_is_known_as_one(tiny_checkpoint, tmp_path):
    end, end_of_text = ends_of(tiny_checkpoint)
    model = AutoModelMIX.from_pretrained(base_of(tiny_checkpoint, tmp_path / "base", None))
    assert not model.knows_turns(end) and model.knows_turns(end_of_text)
    model.begin_tuning_on_turns(end, ())
    assert model.knows_turns(end)


def test_transformers_reads_both_ends_of_a_tuned_base(tiny_checkpoint, tmp_path):
    python = os.environ.get("REFERENCE_PYTHON")
    if python is None:
        pytest.skip("REFERENCE_PYTHON names no Python that has torch and transformers")
    trained_files(published_base(tiny_checkpoint, tmp_path / "base"), tmp_path / "out")
    script = (
        "import sys; from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration as Model;"
        "model = Model.from_pretrained(sys.argv[1]); tokenizer = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "print(model.generation_config.eos_token_id, tokenizer.eos_token)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-c", script, str(tmp_path / "out")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.stdout == f"{ends_of(tiny_checkpoint)} <|im_end|>\n", said.stderr
