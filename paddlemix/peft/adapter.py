"""The numbers of an adapter on disk: PEFT's file and names, PyTorch's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddlemix.files import replacing
from paddlemix.foreign.explain import explain
from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter_config import AdapterConfig, Product, read_adapter_config
from paddlemix.peft.beside import weights_beside
from paddlemix.peft.merging.trained_on import KEYS, TrainedOn
from paddlemix.peft.targets import HEAD
from paddlemix.processors.settings import warn_once
from paddlemix.weights.files import shards_of
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.safetensors_file import read_safetensors_file, read_texts
from paddlemix.weights.safetensors_writer import Entry, write_safetensors
from paddlemix.weights.saving import to_stored_shape
from paddlemix.weights.stored_tensor import StoredTensor, same_numbers
from paddlemix.weights.torch_file import read_torch_file

ADAPTER_FILE, PICKLED_ADAPTER_FILE = "adapter_model.safetensors", "adapter_model.bin"
# Of transformers, whose models save an adapter that was put on them as they save a model.
ADAPTER_INDEX_FILE = f"{ADAPTER_FILE}.index.json"
_PAIRS = ((names.DOWN, names.UP), (names.EMBEDDING_DOWN, names.EMBEDDING_UP))


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder; numbers are not read yet.

    Attributes:
        folder: where it is.
        config: what it is.
        tensors: what its files hold, by what it is for: `<layer>.<part>` with one of `adapter_names.PARTS`, and the
            weights that are saved whole by the names of their parameters.
    """

    folder: Path
    config: AdapterConfig
    tensors: dict[str, StoredTensor]

    @property
    def layers(self) -> list[str]:
        """The names of the layers that it is put on."""
        return list(dict.fromkeys(names.split_part(name)[0] for name in self.tensors if names.is_part(name)))

    @property
    def whole(self) -> list[str]:
        """The names of the parameters that take the place of the base's."""
        return [name for name in self.tensors if not names.is_part(name)]

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but products beside linear layers, with a magnitude or without, and whole weights."""
        parts = {names.split_part(name)[1] for name in self.tensors if names.is_part(name)}
        if not parts <= {names.DOWN, names.UP, names.MAGNITUDE}:
            return False
        return all(len(self.tensors[f"{layer}.{names.DOWN}"].shape) == 2 for layer in self.layers)

    @property
    def products(self) -> dict[str, Product]:
        """What is on each layer, by its name."""
        return {layer: self._product(layer) for layer in self.layers if self._down(layer) is not None}

    @property
    def trained_on(self) -> TrainedOn | None:
        """Read what its file says of the weights that it was trained on; None of files of other programs."""
        return trained_on_in(self.folder)

    def part(self, layer: str, part: str) -> StoredTensor | None:
        """Return a part of the adapter on a layer; None where it has none."""
        return self.tensors.get(f"{layer}.{part}")

    def scaling_of(self, layer: str) -> float:
        """Return how often the product on a layer counts."""
        return self.config.scaling_of(self._product(layer))

    def name_in_file(self, layer: str) -> str:
        """Return what its file calls a layer."""
        stored = (self.part(layer, part) or self.tensors.get(f"{layer}.weight") for part in names.PARTS)
        found = next(one for one in stored if one is not None)
        return names.parse(found.name).place.removesuffix(".weight")

    def _down(self, layer: str) -> StoredTensor | None:
        return self.part(layer, names.DOWN) or self.part(layer, names.EMBEDDING_DOWN)

    def _product(self, layer: str) -> Product:
        down = self._down(layer)
        assert down is not None, "only layers that have one are asked for"
        return Product(down.shape[0], self.config.product_of(self.name_in_file(layer)).alpha)

    def refusal(self, base: object, problems: Sequence[str]) -> ValueError:
        """Make the error of an adapter that is not for `base`."""
        named = self.config.base
        trained = f", and says that it was trained on {named}" if named else ""
        return ValueError(
            f"{self.folder}: this adapter does not fit {base}{trained}: {len(problems)} of its {len(self.tensors)} "
            f"tensors, such as {problems[0]}. Give the base that it was trained on."
        )

    def refuse_unless_plain(self) -> None:
        """Make sure that adapters in memory can compute what it is.

        Raises:
            ValueError: they cannot.
        """
        if not self.is_plain:
            raise ValueError(
                f"{self.folder}: this adapter is more than products beside linear layers, and is computed "
                "as a part of the weights alone. Merge it into its base with paddlemix/tools/merge_lora_params.py, and "
                "give the merged model as `model_name_or_path`."
            )


def read_adapter(folder: Path, layout: WeightLayout) -> Adapter:
    """Find out what the adapter in `folder` is, and where its tensors lie.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors, or else adapter_model.bin; full weights beside
            them are read with it.
        layout: of the family that it is for.

    Returns:
        The adapter.

    Raises:
        FileNotFoundError: a file of it is missing.
        ValueError: a file of it is damaged, or asks for what is not done here.
    """
    config = read_adapter_config(folder)
    tensors: dict[str, StoredTensor] = {}
    for stored in (*stored_adapter(folder), *weights_beside(folder)):
        if ".original_module." in stored.name:  # the base's own weight, beside the copy that was trained
            continue
        name = names.parse(stored.name).here(layout)
        if name in tensors and not same_numbers(tensors[name], stored):
            raise ValueError(
                f"{stored.file}: {stored.name} and {tensors[name].name} are for the same weight and differ. Save the "
                "adapter again, into a folder of its own."
            )
        tensors.setdefault(name, stored)
    adapter = Adapter(folder, config, tensors)
    _check_parts(adapter)
    return adapter


def write_adapter(
    folder: Path,
    tensors: Mapping[str, paddle.Tensor],
    layout: WeightLayout,
    *,
    ties_head_to: str | None = None,
    trained_on: TrainedOn | None = None,
) -> None:
    """Write adapter_model.safetensors.

    Args:
        folder: must exist.
        tensors: by the names that `Adapter.tensors` has.
        layout: the family's.
        ties_head_to: the parameter, if it is among the tensors, that the head shares; PEFT wants both.
        trained_on: the weights that the adapter is on, where they are known.
    """
    adapted = {names.split_part(name)[0] for name in tensors if names.is_part(name)}
    stored = {
        names.name_there(name, layout, is_adapted=name.removesuffix(".bias") in adapted): to_stored_shape(
            tensor, name, layout, None
        )
        for name, tensor in tensors.items()
    }
    if ties_head_to is not None and ties_head_to in tensors:
        stored[f"{names.PREFIX}{HEAD}.weight"] = stored[names.name_there(ties_head_to, layout)].copy()
    write_tensors(folder, stored, trained_on)


def write_tensors(folder: Path, stored: Mapping[str, np.ndarray], trained_on: TrainedOn | None) -> None:
    """Write adapter_model.safetensors, whole or not at all and the same bytes each time.

    Args:
        folder: must exist.
        stored: by the names and of the shapes that the file has.
        trained_on: the weights that the adapter is on, where they are known.
    """
    entries = [Entry(name, str(one.dtype), one.shape, partial(np.asarray, one)) for name, one in stored.items()]
    with replacing(folder / ADAPTER_FILE) as staged:
        write_safetensors(staged, entries, texts=trained_on.texts if trained_on is not None else None)


def trained_on_in(folder: Path) -> TrainedOn | None:
    """Read which weights the adapter in a folder was trained on; None where its file does not say so."""
    file = folder / ADAPTER_FILE
    return TrainedOn.of_texts(read_texts(file, KEYS)) if file.is_file() else None


def trained_tensors(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """Collect what an adapter's file holds of a model with adapters: all that is trained."""
    return {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}


def stored_adapter(folder: Path) -> list[StoredTensor]:
    """List the tensors of the adapter's own file.

    Args:
        folder: of the adapter.

    Returns:
        The tensors, under the names that the file has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or none of PEFT's.
    """
    if (folder / ADAPTER_INDEX_FILE).is_file():
        files = shards_of(folder / ADAPTER_INDEX_FILE)
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: no {', '.join(missing)}, which {ADAPTER_INDEX_FILE} names; fetch the adapter again."
            )
        found = [tensor for file in files for tensor in read_safetensors_file(file)]
    elif (folder / ADAPTER_FILE).is_file():
        found = read_safetensors_file(folder / ADAPTER_FILE)
    elif (folder / PICKLED_ADAPTER_FILE).is_file():
        found = read_torch_file(folder / PICKLED_ADAPTER_FILE)
    else:
        raise FileNotFoundError(f"{folder}: no {ADAPTER_FILE}; expected the folder of an adapter.{explain(folder)}")
    for stored in found:
        # transformers leaves the prefix out where it is not asked for PEFT's format.
        if names.PREFIX not in stored.name and names.parse(stored.name).part is None:
            raise ValueError(
                f"{stored.file}: {stored.name} is no tensor of a PEFT adapter: expected {names.PREFIX}<layer>."
            )
    return found


def _check_parts(adapter: Adapter) -> None:
    """Check that every layer has all parts that the config asks for, of the shapes that it says."""
    empty = next((one for one in adapter.tensors.values() if 0 in one.shape), None)
    if empty is not None:
        raise ValueError(
            f"{empty.file}: {empty.name} holds no numbers ({list(empty.shape)}), as what a rank of DeepSpeed's ZeRO-3 "
            "saves of weights that are not gathered. Save the adapter again with "
            "`stage3_gather_16bit_weights_on_model_save` true, or make it of the checkpoint's `global_step` folder "
            "with zero_to_fp32.py."
        )
    if not adapter.layers:
        raise ValueError(f"{adapter.folder}: {ADAPTER_FILE} holds no lora_A and lora_B; expected a LoRA adapter.")
    for layer in adapter.layers:
        for pair in _PAIRS:
            _check_pair(adapter, layer, *pair)
        _check_magnitude(adapter, layer)
        _check_rows(adapter, layer)
    if adapter.config.bias == "lora_only" and not any(name.endswith(".bias") for name in adapter.whole):
        warn_once(  # an adapter is read by each who asks what it is
            f"{adapter.folder}: `bias` is lora_only, but the file holds no biases, which older versions of PEFT did "
            "not write; the base's are used, as PEFT does."
        )


def _check_pair(adapter: Adapter, layer: str, down_part: str, up_part: str) -> None:
    down, up = adapter.part(layer, down_part), adapter.part(layer, up_part)
    if down is None and up is None:
        return
    if down is None or up is None:
        raise ValueError(f"{adapter.folder}: {layer} has one of {down_part} and {up_part}; fetch the adapter again.")
    rank = down.shape[0] if adapter.config.rank_pattern and down.shape else adapter.config.rank
    if not (2 <= len(down.shape) == len(up.shape) and down.shape[0] == up.shape[1] == rank):
        raise ValueError(
            f"{adapter.folder}: `r` is {adapter.config.rank}, but {down.name} is {list(down.shape)} and {up.name} "
            f"{list(up.shape)}. Fetch the adapter again."
        )


def _check_magnitude(adapter: Adapter, layer: str) -> None:
    has_product = any(adapter.part(layer, part) is not None for part in (names.DOWN, names.EMBEDDING_DOWN))
    if has_product and adapter.config.dora != (adapter.part(layer, names.MAGNITUDE) is not None):
        held = "no" if adapter.config.dora else "a"
        raise ValueError(
            f"{adapter.folder}: `use_dora` is {str(adapter.config.dora).lower()}, but {layer} has {held} "
            f"{names.MAGNITUDE}. Fetch the adapter again."
        )


def _check_rows(adapter: Adapter, layer: str) -> None:
    rows = adapter.part(layer, names.TOKEN_ROWS)
    if rows is not None and len(tokens_of(adapter, layer)) != rows.shape[0]:
        raise ValueError(
            f"{adapter.folder}: `trainable_token_indices` names {len(tokens_of(adapter, layer))} tokens for {layer}, "
            f"whose file holds {rows.shape[0]} rows. Fetch the adapter again."
        )


def tokens_of(adapter: Adapter, layer: str) -> Sequence[int]:
    """Return the tokens whose rows of a layer are trained."""
    there = f".{adapter.name_in_file(layer)}"
    return next((tokens for end, tokens in adapter.config.token_rows.items() if there.endswith(f".{end}")), ())
