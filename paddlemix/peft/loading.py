"""Models with an adapter, loaded as what computes them best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddlemix.models.base import MixPretrainedModel, read_carried_files
from paddlemix.models.config_file import make_config, read_config
from paddlemix.models.registry import find_family
from paddlemix.peft.adapter import read_adapter
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.weights.layout import checkpoint_tensors
from paddlemix.weights.loading import fill, without_initial_values

if TYPE_CHECKING:
    from pathlib import Path

    from paddlemix.peft.lora_model import MixLoRAModel


def load_adapted(base: Path, adapter: Path, dtype: str) -> MixPretrainedModel | MixLoRAModel:
    """Load a base with an adapter.

    Args:
        base: the base's folder.
        adapter: the adapter's folder.
        dtype: "float32", "bfloat16" or "float16".

    Returns:
        The model in evaluation mode: with adapters in it where they are products beside linear layers without
        magnitudes, else with the adapter as a part of its weights.

    Raises:
        FileNotFoundError: a file of either is missing.
        ValueError: a file is damaged, or the adapter is one of another base.
    """
    family = find_family(base)
    layout = family.model_class.weight_layout(make_config(family.config_class, base, read_config(base)))
    read = read_adapter(adapter, layout)
    # Beside the layers, DoRA takes the length of all weights for each token. Whatever changes head or embedding may
    # change the shape of the model.
    is_beside = read.is_plain and not read.config.dora
    if is_beside and not any(name in (*layout.not_transposed, *layout.optional) for name in read.whole):
        return _with_adapters(base, adapter, dtype)
    weights = AdaptedWeights.of(base, adapter)
    return _with_adapters(base, adapter, dtype) if is_beside and weights.keeps_shape else _merged(weights, dtype)


def _with_adapters(base: Path, adapter: Path, dtype: str) -> MixLoRAModel:
    from paddlemix.peft.lora_model import MixLoRAModel  # takes a second, so only once it is needed

    model = find_family(base).model_class.from_pretrained(base, dtype=dtype)
    return MixLoRAModel.from_pretrained(model, adapter)


def _merged(weights: AdaptedWeights, dtype: str) -> MixPretrainedModel:
    """Build the merged model and fill it, tensor by tensor."""
    family = find_family(weights.base)
    config = make_config(family.config_class, weights.base, weights.config)
    with without_initial_values():
        model = family.model_class.from_config(config, dtype=dtype)
    layout = family.model_class.weight_layout(config)
    parameters = checkpoint_tensors(model)
    missing = sorted(parameters.keys() - weights.tensors.keys())
    if missing:
        raise ValueError(f"{weights.base}: {len(missing)} weights are missing, such as {missing[0]}. Fetch it again.")
    for name, parameter in parameters.items():
        source = weights.tensors[name]
        fill(parameter, source, layout.reading(name, list(parameter.shape), source)[1])
    model.carried_files = read_carried_files(weights.base) | read_carried_files(weights.adapter.folder)
    model.eval()
    return model
