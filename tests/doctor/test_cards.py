"""Cards that are not here: Paddle's answers about them are made up."""

from __future__ import annotations

from types import SimpleNamespace

import paddle
import pytest

from paddlemix.doctor import cards, fused_ops
from paddlemix.ops.tensors import built


@pytest.fixture
def machine(monkeypatch):
    """Make Paddle see cards of a compute capability, with a driver."""

    def put(*capabilities, cuda="12.6", driver=(12, 8), codes=(70, 75, 80, 86, 90)):
        properties = [
            SimpleNamespace(
                name=f"Card {major}{minor}", major=major, minor=minor, total_memory=80 << 30, multi_processor_count=108
            )
            for major, minor in capabilities
        ]
        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: cuda is not None)
        monkeypatch.setattr(paddle.version, "cuda", lambda: cuda)
        monkeypatch.setattr(paddle.version, "nccl", lambda: "22703")
        monkeypatch.setattr(paddle.version, "cuda_archs", lambda: list(codes))
        monkeypatch.setattr(paddle.base.core, "is_compiled_with_nccl", lambda: True)
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: len(properties))
        monkeypatch.setattr(paddle.device.cuda, "get_device_properties", lambda index: properties[index])
        monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: capabilities[0])
        monkeypatch.setattr(cards, "driver_version", lambda: driver)

    return put


def test_each_card_has_a_line_with_capability_memory_and_precisions(machine):
    machine((8, 0), (9, 0))
    first, second = cards.check_cards()
    assert (first.mark, second.mark) == ("ok", "ok") and (first.subject, second.subject) == ("card 0", "card 1")
    assert "Card 80, compute capability 8.0, 80.0 GiB" in first.found and "bfloat16 and float16" in second.found


def test_a_card_before_ampere_is_told_which_key_to_write(machine):
    machine((7, 5))
    (card,) = cards.check_cards()
    assert card.mark == "see" and '"fp16": true in place of "bf16": true' in card.advice
    flash = cards.check_flash_attention()
    assert flash.mark == "see" and "8.0" in flash.advice


def test_flash_attention_is_there_from_ampere_on(machine):
    machine((8, 6))
    assert cards.check_flash_attention().mark == "ok"


@pytest.mark.parametrize(
    ("capability", "codes", "mark"), [((12, 0), [80, 90], "see"), ((12, 0), ["80", "120a"], "ok"), ((8, 9), [86], "ok")]
)
def test_a_card_that_paddle_has_no_code_for_is_told(machine, capability, codes, mark):
    machine(capability, codes=codes)
    (card,) = cards.check_cards()
    assert card.mark == mark and ("code for 80, 90 alone" in card.advice) == (mark == "see")


def test_a_paddle_for_cuda_that_sees_no_card_stops_and_a_hidden_one_is_named(machine, monkeypatch):
    machine()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (found,) = cards.check_cards()
    assert found.stops and "--gpus all" in found.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    (found,) = cards.check_cards()
    assert found.stops and "CUDA_VISIBLE_DEVICES='7'" in found.found and "Unset" in found.advice


@pytest.mark.parametrize(("driver", "mark"), [((12, 8), "ok"), ((12, 2), "ok"), ((11, 8), "STOP"), (None, "STOP")])
def test_the_driver_is_compared_with_paddles_cuda(machine, driver, mark):
    machine((8, 0), driver=driver)
    found = cards.check_driver()
    assert found.mark == mark and ("driver" in found.advice) == (mark == "STOP")
    assert driver is None or (f"up to {driver[0]}.{driver[1]}" in found.found and "12.6" in found.found)


def test_a_paddle_for_the_cpu_beside_a_driver_is_told_what_to_install(machine):
    machine(cuda=None)
    (card,) = cards.check_cards()
    assert card.mark == "see" and "pip install paddlepaddle-gpu==3.3.1 -i" in card.advice
    machine(cuda=None, driver=None)
    (card,) = cards.check_cards()
    assert card.mark == "ok" and cards.check_driver().mark == "ok"


def test_nccl_is_named_with_its_version_and_missed_where_it_is_not_built_in(machine, monkeypatch):
    machine((9, 0), (9, 0))
    assert "2.27.3; 2 cards" in cards.check_ranks().found
    monkeypatch.setattr(paddle.base.core, "is_compiled_with_nccl", lambda: False)
    assert cards.check_ranks().mark == "see"


def test_ops_that_are_not_built_for_the_card_are_told_with_the_reason(machine, monkeypatch):
    machine((8, 0))
    reason = f"they were built where Paddle had no CUDA, build again: {built.BUILD_COMMAND}"
    monkeypatch.setattr(built, "cuda_library", lambda: built.Library(reason))
    (gpu,) = (one for one in fused_ops.check_tensor_ops() if one.subject == "ops, GPU")
    assert gpu.mark == "see" and "Paddle had no CUDA, build again" in gpu.found and built.BUILD_COMMAND in gpu.advice
    monkeypatch.setattr(built, "cuda_library", lambda: built.Library(handle=object()))
    (gpu,) = (one for one in fused_ops.check_tensor_ops() if one.subject == "ops, GPU")
    assert gpu.mark == "ok"


def test_a_user_who_asked_for_the_reference_is_told_how_not_to(monkeypatch):
    monkeypatch.setattr(built, "library", lambda: built.Library("PADDLEMIX_OPS=reference is set"))
    assert fused_ops.check_tensor_ops()[0].advice == "Unset PADDLEMIX_OPS."
