"""The model with and without the built ops."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.ops.tensors import built


@pytest.fixture
def models(reference, monkeypatch):
    """A function that runs one batch with and without the built ops: loss, logits, and gradients by name."""
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")

    def run(batch: str) -> list[tuple[float, np.ndarray, dict[str, np.ndarray]]]:
        found = []
        for handle in (built.library(), built.Library("a test asked for the reference")):
            monkeypatch.setattr(built, "library", lambda handle=handle: handle)
            model = Qwen2VLForConditionalGeneration.from_pretrained(reference.folder)
            output = model(**reference.inputs(batch))
            output.loss.backward()
            grads = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
            found.append((float(output.loss), output.logits.numpy(), grads))
        return found

    return run


def test_loss_logits_and_gradients_are_the_same_with_and_without_the_built_ops(models, reference):
    assert len(reference.batches) > 2
    for batch in reference.batches:
        (loss, logits, grads), (other_loss, other_logits, other_grads) = models(batch)
        tokens = reference.is_token(batch)
        assert np.isclose(loss, other_loss, rtol=2e-6) and loss > 1
        # Logits of size 5 to 20; float32 after two layers each of vision and text.
        np.testing.assert_allclose(logits[tokens], other_logits[tokens], atol=1e-4, rtol=0)
        assert grads.keys() == other_grads.keys() and len(grads) > 20
        for name, grad in grads.items():
            scale = max(np.abs(other_grads[name]).max(), 1e-6)
            np.testing.assert_allclose(grad, other_grads[name], atol=5e-5 * scale, rtol=0, err_msg=f"{batch}: {name}")


def test_built_ops_are_what_runs_and_names_and_freezing_stay_paddles(models, reference, monkeypatch):
    called = set()
    run = built.run
    monkeypatch.setattr(built, "run", lambda name, *arguments: called.add(name) or run(name, *arguments))
    models(next(batch for batch in reference.batches if f"{batch}/pixel_values" in reference.arrays))
    wanted = {"linear", "attention", "rms_norm", "add_rms_norm", "layer_norm", "rotary_pair", "rotary_split", "swiglu"}
    assert wanted | {"activation", "linear_cross_entropy"} == called


def test_lora_takes_the_place_of_our_linear_layers_and_starts_as_the_model(reference):
    from paddlenlp.peft import LoRAConfig, LoRAModel

    model = Qwen2VLForConditionalGeneration.from_pretrained(reference.folder)
    batch = reference.inputs(reference.batches[0])
    before = float(model(**batch).loss)
    adapted = LoRAModel(model, LoRAConfig(target_modules=[".*q_proj.*", ".*mlp.fc1.*", ".*up_proj.*"], r=2))
    adapted.mark_only_lora_as_trainable()
    loss = adapted(**batch).loss
    assert np.isclose(float(loss), before, rtol=1e-5)
    loss.backward()
    trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert trained and all("lora" in name for name in trained)
    assert paddle.is_grad_enabled()
