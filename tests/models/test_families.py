"""What every family must pass; its row in `tests/families.py` is all that a new one adds."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from PIL import Image as PILImage
from safetensors.numpy import load_file

from paddlemix.auto import AutoConfigMIX, AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.chat.session import ChatSession
from paddlemix.contract import Model, Piece, PlaceSizes, Processor, Sample
from paddlemix.conversation import Box, Conversation, Image, RecordId, Reference, Text, Turn
from paddlemix.datasets.collate import PadCollator, Side, TrainingCollator
from paddlemix.datasets.mixing.loss_weights import WeightedSample
from paddlemix.generation import GenerationConfig
from paddlemix.handover import model_inputs
from paddlemix.models.registry import FAMILIES as REGISTERED
from paddlemix.models.registry import find_family
from paddlemix.models.vision_language import VisionLanguageModel
from paddlemix.ops import attention
from paddlemix.ops.tensors import attention_reference
from paddlemix.ops.tensors.cards import flash
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import language_layers
from paddlemix.tools import predict

from ..families import FAMILIES, FamilyCase, each_family
from ..ops.tensors.test_flash import Kernels

# Logits reach 10. Padding on the left moves the positions that Qwen-VL counts from, and so rounds its angles otherwise:
# 4.6e-5 apart were measured.
LOGITS_TOLERANCE = 1.5e-4
SIDE = 56


@pytest.fixture
def folder(case: FamilyCase, request: pytest.FixtureRequest) -> Path:
    return case.folder(request)


@pytest.fixture
def model(folder: Path) -> VisionLanguageModel:
    """The tiny model, its weights large enough for tokens to matter to one another."""
    model = AutoModelMIX.from_pretrained(folder)
    paddle.seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.set_value(paddle.randn(parameter.shape) * 0.2)
    return model.eval()


@pytest.fixture
def processor(folder: Path) -> Processor:
    return AutoProcessorMIX.from_pretrained(folder)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    PILImage.effect_noise((SIDE, SIDE), 90).convert("RGB").save(path)
    return str(path)


def conversation(*parts: Text | Image, answer: tuple[Text | Reference | Box, ...] = (Text("yes"),)) -> Conversation:
    return Conversation((Turn("user", parts), Turn("assistant", answer)), RecordId("a test", 0))


@pytest.fixture
def samples(processor: Processor, image: str) -> list[Sample]:
    """Of different lengths: with an image, of text alone, and with two images behind words."""
    shown = [
        conversation(Image(image), Text("Is the star red?")),
        conversation(Text("Count to three."), answer=(Text("1 2 3"),)),
        conversation(Text("Compare "), Image(image), Text(" with "), Image(image), answer=(Text("the same"),)),
    ]
    return [processor.encode(one) for one in shown]


def tensors(batch: dict[str, np.ndarray]) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(array) for name, array in batch.items()}


def logits_of(model: Model, batch: dict[str, np.ndarray]) -> np.ndarray:
    with paddle.no_grad():
        return model(**tensors(batch)).logits.numpy()


def logits_of_each(model: Model, samples: list[Sample]) -> list[np.ndarray]:
    return [logits_of(model, PadCollator(0)([sample]))[0] for sample in samples]


def test_the_rows_are_the_families_of_the_registry():
    assert [case.model_type for case in FAMILIES] == [family.model_type for family in REGISTERED]


@each_family
def test_its_classes_are_found_by_its_folder_alone(case: FamilyCase, folder: Path):
    family = find_family(folder)
    assert family.model_type == case.model_type
    assert type(AutoModelMIX.from_pretrained(folder)) is family.model_class
    assert type(AutoConfigMIX.from_pretrained(folder)) is family.config_class
    assert type(AutoProcessorMIX.from_pretrained(folder)) is family.processor_class
    assert type(AutoTokenizerMIX.from_pretrained(folder)) is family.tokenizer_class


@each_family
def test_it_is_saved_under_published_names_and_comes_back_bit_by_bit(
    model: VisionLanguageModel, processor: Processor, samples: list[Sample], tmp_path: Path
):
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again = AutoModelMIX.from_pretrained(tmp_path / "saved")
    parameters = dict(model.named_parameters())
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert parameters.keys() <= stored.keys() and len(parameters) > 20
    for name, parameter in again.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), parameters[name].numpy(), err_msg=name)
    assert again.config.to_published() == model.config.to_published()
    read = AutoProcessorMIX.from_pretrained(tmp_path / "saved")
    assert read.fingerprint() == processor.fingerprint()


@each_family
def test_padding_on_either_side_changes_no_token(model: VisionLanguageModel, samples: list[Sample]):
    alone = logits_of_each(model, samples)
    assert len({len(one) for one in alone}) == 3 and np.abs(alone[0]).max() > 0.5
    for side in ("left", "right"):
        batch = PadCollator(0, side=side)(samples)
        if side == "left":
            batch.pop("position_ids", None)  # as prompts are read: the model lays positions out itself
        rows = logits_of(model, batch)
        for row, one in zip(rows, alone, strict=True):
            place = slice(len(row) - len(one), None) if side == "left" else slice(len(one))
            np.testing.assert_allclose(row[place], one, atol=LOGITS_TOLERANCE, rtol=0, err_msg=side)


@each_family
def test_a_pack_trains_as_its_samples_padded_do(model: VisionLanguageModel, samples: list[Sample]):
    def trained(packs: bool) -> tuple[float, dict[str, np.ndarray]]:
        weighted = [[WeightedSample(sample, weight) for sample, weight in zip(samples, (0.1, 0.3, 0.2), strict=True)]]
        rows = weighted if packs else [[one] for one in weighted[0]]
        model.clear_gradients()
        loss = model(**tensors(TrainingCollator(0, packs=packs)(rows))).loss
        loss.backward()
        return float(loss), {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}

    model.train()
    (packed, gradients), (padded, wanted) = trained(True), trained(False)
    np.testing.assert_allclose(packed, padded, rtol=1e-5)
    assert gradients.keys() == wanted.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in wanted.items():
        # A key's bias moves all scores of a row alike, and so has a gradient of rounding errors only.
        assert np.linalg.norm(gradients[name] - gradient) < 1e-5 * max(np.linalg.norm(gradient), 1e-3), name


@each_family
@pytest.mark.parametrize("packs", [False, True])
def test_a_batch_with_its_layout_asks_no_tensor_for_numbers_and_gives_the_same_bits(
    model: VisionLanguageModel, samples: list[Sample], packs: bool, monkeypatch: pytest.MonkeyPatch
):
    rows = [[WeightedSample(sample, 0.1)] for sample in samples]

    def trained(lay_out: Any) -> list[bytes]:
        inputs = model_inputs(TrainingCollator(0, packs=packs, lay_out=lay_out)(rows))
        assert ("layout" in inputs) == (lay_out is not None)
        model.clear_gradients()
        with monkeypatch.context() as patch:
            for name in ("numpy", "tolist", "item") if lay_out is not None else ():
                patch.setattr(paddle.Tensor, name, lambda *_: pytest.fail("a tensor was asked for numbers"))
            loss = model(**inputs).loss
        loss.backward()
        return [loss.numpy().tobytes(), *(p.grad.numpy().tobytes() for p in model.parameters())]

    model.train()
    assert trained(partial(model.lay_out, model.config)) == trained(None)


@each_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_trains_by_flash_attention_as_by_the_reference(
    model: VisionLanguageModel, samples: list[Sample], side: Side, monkeypatch: pytest.MonkeyPatch
):
    def trained() -> tuple[float, dict[str, np.ndarray]]:
        batch = PadCollator(0, side=side)(samples)
        mask = {}
        if side == "left":
            # The host knows where padding stands. A row's first token would be predicted by padding.
            mask["attention_mask"] = is_token = batch.pop("attention_mask")
            batch["labels"][np.arange(len(is_token)), is_token.argmax(axis=1)] = -100
        model.clear_gradients()
        loss = model(**tensors(batch), **mask).loss
        loss.backward()
        return float(loss), {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}

    model.train()
    loss, wanted = trained()
    kernels = Kernels(2)
    monkeypatch.setattr(sys.modules[attention.__module__], "LARGEST_HEAD", 0)  # the built op is passed over
    monkeypatch.setattr(attention_reference, "flash_attention_fits", lambda query: True)
    monkeypatch.setattr(flash, "kernels", kernels)
    found, gradients = trained()
    assert set(kernels.asked) == {"rows", "unpadded"} or side == "left"
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        # Rounded otherwise than by the built op: mostly 1e-5 apart, for some of the images, which are noise, more.
        assert np.linalg.norm(gradients[name] - gradient) < 1e-3 * max(np.linalg.norm(gradient), 1e-3), name


@each_family
def test_an_adapter_goes_out_and_comes_in_with_the_same_logits(
    model: VisionLanguageModel, folder: Path, samples: list[Sample], tmp_path: Path
):
    model.save_pretrained(tmp_path / "base")
    before = logits_of_each(model, samples)
    layers = language_layers(model, find_family(folder).language_globs)
    adapted = MixLoRAModel.adapting(model, AdapterConfig(4, 8, 0.0, False, str(tmp_path / "base")), layers)
    assert adapted.adapted_layers == layers and len(layers) > 5
    adapted.eval()
    for one, unchanged in zip(logits_of_each(adapted, samples), before, strict=True):
        np.testing.assert_array_equal(one, unchanged)
    for parameter in adapted.parameters():
        if not parameter.stop_gradient:
            parameter.set_value(paddle.randn(parameter.shape) * 0.1)
    wanted = logits_of_each(adapted, samples)
    assert np.abs(wanted[0] - before[0]).max() > 0.1
    adapted.save_pretrained(tmp_path / "adapter")
    again = AutoModelMIX.from_pretrained(tmp_path / "base", lora_path=tmp_path / "adapter")
    for one, other in zip(logits_of_each(again, samples), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@each_family
def test_a_box_that_it_writes_is_drawn_where_it_lies(
    folder: Path, processor: Processor, image: str, tmp_path: Path, monkeypatch, capsys
):
    box = Box(0.25, 0.25, 0.75, 0.75, unit="fraction")
    turn = Turn("assistant", (Reference("the star"), box))
    written = processor.grounding.write(turn, PlaceSizes.of_images([(SIDE, SIDE)]))
    raw = "".join(piece.text for piece in written if isinstance(piece, Piece))
    asked = []

    def says(self, history, question) -> list[str]:
        asked.append(question)
        return [raw[:7], raw[7:]]

    monkeypatch.setattr(find_family(folder).dialogue_class, "reply", says)
    words = ["--model_name_or_path", str(folder), "--input_image", image, "--prompt", "Find the star."]
    monkeypatch.setattr(sys, "argv", ["run_predict.py", *words, "--output_dir", str(tmp_path / "out")])
    predict.main(predict.Script("a test"))
    said = capsys.readouterr().out
    assert f"answer: {processor.grounding.strip(raw)}" in said and "the star" in said and len(asked) == 1
    with PILImage.open(tmp_path / "out" / "pred.jpg") as drawn, PILImage.open(image) as original:
        changed = np.abs(np.asarray(drawn.convert("RGB"), np.int64) - np.asarray(original, np.int64)).sum(axis=2)
    quarter, middle = SIDE // 4, SIDE // 2
    edges = [(middle, quarter), (middle, 3 * quarter), (3 * quarter, middle)]
    assert all(changed[y - 1 : y + 2, x - 1 : x + 2].max() > 150 for y, x in edges)
    assert changed[-6:, -6:].max() < 100, "nothing is drawn far from the box"


@each_family
def test_it_chats_and_is_given_what_was_said_before(
    case: FamilyCase, folder: Path, image: str, tmp_path: Path, monkeypatch
):
    family, processor = find_family(folder), AutoProcessorMIX.from_pretrained(folder)
    read: list[str] = []
    model = AutoModelMIX.from_pretrained(folder)
    model.register_forward_pre_hook(
        lambda layer, inputs, named: read.append(processor.decode(named["input_ids"][0].numpy())), with_kwargs=True
    )
    dialogue = family.dialogue_class(model, processor, GenerationConfig(max_new_tokens=3))
    session = ChatSession(dialogue, tmp_path / "out")
    session.show(image)
    first = "".join(session.ask("What is it?"))
    prompts = len(read)
    second = "".join(session.ask("Is it red?"))
    session.close()
    assert len(session.history) == 2 and len(session.images) == 1
    assert [exchange.answer for exchange in session.history] == [first, second]
    assert "What is it?" in read[0] and "Is it red?" not in read[0]
    assert "What is it?" in read[prompts] and "Is it red?" in read[prompts] and first.strip() in read[prompts]


@each_family
def test_its_model_and_processor_are_what_the_contract_names(
    case: FamilyCase, model: VisionLanguageModel, processor: Processor
):
    for protocol, thing in ((Model, model), (Processor, processor)):
        names = {name for name in dir(protocol) if not name.startswith("_")} | set(protocol.__annotations__)
        assert len(names) > 8 and [name for name in sorted(names) if not hasattr(thing, name)] == []
    assert {"input_ids", "labels", "pixel_values", "cu_seqlens"} <= set(model.input_names)
    with pytest.raises(TypeError, match=r"got pixel_valeus; expected its inputs input_ids, .*pixel_values"):
        model(paddle.to_tensor([[1]]), pixel_valeus=paddle.zeros([1]))
