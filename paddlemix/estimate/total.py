"""The memory of a run on each card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paddle import nn

from paddlemix.contract import Model
from paddlemix.estimate.activations import Activations, Trained, activations, shape_of
from paddlemix.estimate.setup import Setup
from paddlemix.models.family import Family
from paddlemix.models.vision_language import VisionLanguageModel
from paddlemix.peft.layers import DoRALinear, LoRALinear
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD
from paddlemix.training.freezing import matches


@dataclass(frozen=True)
class Estimate:
    """Bytes on one card, when most of them are taken.

    Attributes:
        parameters: how many numbers the model has.
        trained: how many of them are trained.
        weights: bytes of the weights, numbers and codes.
        gradients: bytes of their gradients.
        optimizer: bytes of the optimizer's states.
        activations: of one forward and backward pass.
    """

    parameters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    activations: Activations

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations.total


def estimate(model: Model, family: Family, setup: Setup) -> Estimate:
    """Reckon what a run takes on each card once its optimizer has made a step.

    Args:
        model: its parameters' shapes, and which of them are trained, count; their memory does not.
        family: the model's.
        setup: precision, batch and cards.

    Returns:
        The estimate.
    """
    inner = model.model if isinstance(model, MixLoRAModel) else model
    assert isinstance(inner, VisionLanguageModel), "every family is one"
    named = dict(inner.named_parameters())
    precision, cards = setup.precision, setup.cards
    held, trained = (_on_a_card(some, cards.tensor) for some in (named.values(), _trained(named.values())))
    coded, codes = (0, 0) if setup.coded is None else (setup.coded.numbers, setup.coded.bytes)
    parts = _parts(inner, family)
    shape = shape_of(inner.config.decoder_shape, inner.config.tower_shape, parts, setup)
    # Stage 3 brings the layer that computes together on every card; the largest is the embedding.
    gathered = max(one.size for one in named.values()) / cards.tensor if cards.shares(3) > 1 else 0
    states = 0.0 if cards.offload else trained * precision.state / cards.shares(1)
    # Codes lie on every card: none of the ways of sharing weights cuts them.
    return Estimate(
        parameters=sum(parameter.size for parameter in named.values()),
        trained=sum(parameter.size for parameter in _trained(named.values())),
        weights=((held - coded) / cards.shares(3) + gathered) * precision.weight + codes,
        gradients=trained * precision.gradient / cards.shares(2),
        optimizer=states,
        activations=activations(shape, parts, setup),
    )


def _trained(parameters: Iterable[Any]) -> list[Any]:
    return [parameter for parameter in parameters if not parameter.stop_gradient]


def _on_a_card(parameters: Iterable[Any], tensor: int) -> float:
    """Count the numbers that a card holds: tensor parallelism cuts matrices, not biases and scales."""
    return sum(one.size / (tensor if len(one.shape) > 1 else 1) for one in parameters)


def _parts(model: VisionLanguageModel, family: Family) -> Trained:
    trained = {name: one for name, one in model.named_parameters() if not one.stop_gradient}
    embedding = model.get_input_embeddings().weight
    # Where there is no head, the embedding is it.
    head = next((one for name, one in model.named_parameters() if name == f"{HEAD}.weight"), embedding)
    tower, decoder = (_kept_by_adapters(model, globs) for globs in (family.vision_globs, family.language_globs))
    return Trained(
        vision=any(matches(name, family.vision_globs) for name in trained),
        aligner=any(matches(name, family.aligner_globs) for name in trained),
        head=0 if head.stop_gradient else head.size,
        embedding=0 if embedding.stop_gradient else embedding.size,
        tower_adapter=tower / model.config.tower_shape.blocks,
        decoder_adapter=decoder / model.config.decoder_shape.layers,
    )


def _kept_by_adapters(model: VisionLanguageModel, globs: Iterable[str]) -> float:
    """Count the numbers that adapters keep of a token: the low rank's twice, under dropout the input's, and of DoRA
    what the trained lengths are multiplied with."""
    layers = [
        layer
        for name, layer in model.named_sublayers()
        if isinstance(layer, LoRALinear) and matches(f"{name}.weight", globs)
    ]
    return sum(_kept_of_a_token(layer) for layer in layers)


def _kept_of_a_token(layer: LoRALinear) -> int:
    inputs, outputs = layer.weight.shape
    kept = 2 * layer.r + (inputs if isinstance(layer.lora_dropout, nn.Dropout) else 0)
    return kept + (outputs if isinstance(layer, DoRALinear) else 0)
