"""The numbers of an adapter on disk: PEFT's file and names, PyTorch's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paddle
from paddle import nn

from paddlemix.foreign.explain import explain
from paddlemix.peft.adapter_config import AdapterConfig, read_adapter_config
from paddlemix.peft.targets import HEAD
from paddlemix.weights.files import read_safetensors_file
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.saving import save_tensors, to_stored_shape
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

ADAPTER_FILE, PICKLED_ADAPTER_FILE = "adapter_model.safetensors", "adapter_model.bin"
FACTORS = ("lora_A", "lora_B")
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder; numbers are not read yet.

    Attributes:
        folder: where it is.
        config: what it is.
        tensors: what its file holds, by the name of the parameter that it is for: `<layer>.lora_A`, `<layer>.lora_B`,
            and the weights that are saved whole by their own names.
    """

    folder: Path
    config: AdapterConfig
    tensors: dict[str, StoredTensor]

    @property
    def layers(self) -> list[str]:
        """The names of the layers that it is put on."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.tensors if is_factor(name)))

    @property
    def whole(self) -> list[str]:
        """The names of the parameters that take the place of the base's."""
        return [name for name in self.tensors if not is_factor(name)]

    def refusal(self, base: object, problems: Sequence[str]) -> ValueError:
        """Make the error of an adapter that is not for `base`."""
        named = self.config.base
        trained = f", and says that it was trained on {named}" if named else ""
        return ValueError(
            f"{self.folder}: this adapter does not fit {base}{trained}: {len(problems)} of its {len(self.tensors)} "
            f"tensors, such as {problems[0]}. Give the base that it was trained on."
        )


def is_factor(name: str) -> bool:
    """Tell whether a parameter is one of the two matrices whose product is added to a weight."""
    return name.rpartition(".")[2] in FACTORS


def read_adapter(folder: Path, layout: WeightLayout) -> Adapter:
    """Find out what the adapter in `folder` is, and where its tensors lie.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors, or else adapter_model.bin.
        layout: of the family that it is for.

    Returns:
        The adapter.

    Raises:
        FileNotFoundError: a file of it is missing.
        ValueError: a file of it is damaged, or asks for what is not done here.
    """
    config = read_adapter_config(folder)
    tensors: dict[str, StoredTensor] = {}
    for stored in _stored(folder):
        name = _name_here(stored, layout)
        if name in tensors:
            raise ValueError(f"{stored.file}: {stored.name} and {tensors[name].name} are for the same weight.")
        tensors[name] = stored
    adapter = Adapter(folder, config, tensors)
    _check_pairs(adapter)
    return adapter


def write_adapter(
    folder: Path, tensors: Mapping[str, paddle.Tensor], layout: WeightLayout, *, ties_head_to: str | None = None
) -> None:
    """Write adapter_model.safetensors.

    Args:
        folder: must exist.
        tensors: by the names that `Adapter.tensors` has.
        layout: the family's.
        ties_head_to: the parameter, if it is among the tensors, that the head shares; PEFT wants both.
    """
    stored = {_name_there(name): to_stored_shape(tensor, name, layout, None) for name, tensor in tensors.items()}
    if ties_head_to is not None and ties_head_to in tensors:
        stored[f"{_PREFIX}{HEAD}.weight"] = stored[_name_there(ties_head_to)].copy()
    save_tensors(folder / ADAPTER_FILE, stored)


def trained_tensors(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """Collect what an adapter's file holds of a model with adapters: all that is trained."""
    return {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}


def _stored(folder: Path) -> list[StoredTensor]:
    if (folder / ADAPTER_FILE).is_file():
        return read_safetensors_file(folder / ADAPTER_FILE)
    if (folder / PICKLED_ADAPTER_FILE).is_file():
        return read_torch_file(folder / PICKLED_ADAPTER_FILE)
    raise FileNotFoundError(f"{folder}: no {ADAPTER_FILE}; expected the folder of an adapter.{explain(folder)}")


def _name_here(stored: StoredTensor, layout: WeightLayout) -> str:
    if not stored.name.startswith(_PREFIX):
        raise ValueError(f"{stored.file}: {stored.name} is no tensor of a PEFT adapter: expected {_PREFIX}<layer>.")
    name = stored.name.removeprefix(_PREFIX)
    bare = name.removesuffix(".weight")
    return layout.name_here(bare if is_factor(bare) else name)


def _name_there(name: str) -> str:
    return f"{_PREFIX}{name}.weight" if is_factor(name) else f"{_PREFIX}{name}"


def _check_pairs(adapter: Adapter) -> None:
    """Check that every layer has both factors, of the rank that the config says."""
    if not adapter.layers:
        raise ValueError(f"{adapter.folder}: {ADAPTER_FILE} holds no lora_A and lora_B; expected a LoRA adapter.")
    for layer in adapter.layers:
        down, up = (adapter.tensors.get(f"{layer}.{factor}") for factor in FACTORS)
        if down is None or up is None:
            raise ValueError(f"{adapter.folder}: {layer} has one of lora_A and lora_B; fetch the adapter again.")
        is_right = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1] == adapter.config.rank
        if not is_right:
            raise ValueError(
                f"{adapter.folder}: `r` is {adapter.config.rank}, but {down.name} is {list(down.shape)} and {up.name} "
                f"{list(up.shape)}. Fetch the adapter again."
            )
