"""An adapter: PaddleNLP's files -> PEFT's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from paddlemix.conversion.lora_config import read_lora_config
from paddlemix.conversion.model import copy_settings, empty_model, join_ranks
from paddlemix.conversion.parts import ADAPTER_STEMS, Order, read_parts
from paddlemix.hub import local_folder
from paddlemix.models.base import MixPretrainedModel, read_carried_files
from paddlemix.names import CONFIG_FILE
from paddlemix.peft.adapter import trained_tensors
from paddlemix.peft.adapter_names import DOWN, UP, is_part
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import linear_layers
from paddlemix.weights.dtypes import PARAMETER_DTYPES
from paddlemix.weights.loading import fill, match, without_initial_values
from paddlemix.weights.stored_tensor import StoredTensor


class ConvertedAdapter:
    """An adapter whose files were looked into; no numbers are read yet.

    Args:
        source: the adapter's folder.
        base: the model that it was trained on, a folder or a name of the hub; None where the source says it.
        dtype: "float32", "float16" or "bfloat16" to store; None stores what the files do.
        order: in which the files' matrices lie, where their own word on it is wrong.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, the adapter asks for what PEFT's form cannot say, or tensors are missing,
            unexpected or of another shape; all of them are listed.
    """

    def __init__(
        self, source: Path, base: str | None = None, *, dtype: str | None = None, order: Order | None = None
    ) -> None:
        config = read_lora_config(source, base)
        ranks = read_parts(source, ADAPTER_STEMS, order)
        self._source, self._described_by = source, _described_by(source, base, config.base)
        model = empty_model(self._described_by, dtype or _dtype_of(ranks[0]))
        self._layout = model.weight_layout(model.config)
        plan = model.split_plan(model.config)
        names = [self._layout.name_here(name) for tensors in ranks for name in tensors]
        with without_initial_values():
            self._model = MixLoRAModel.adapting(model, config, _layers(model, names), _whole(model, names))
        self._parameters = trained_tensors(self._model.model)
        shapes = {name: list(parameter.shape) for name, parameter in self._parameters.items()}
        wholes = join_ranks(ranks, shapes, self._layout, plan)
        self._tensors = match(self._parameters, wholes, self._layout, source)

    @property
    def bytes(self) -> int:
        """The size of the converted adapter."""
        return sum(self._size(name) for name in self._tensors)

    def write(self, folder: Path, written: Callable[[int], object] = lambda _: None) -> None:
        """Write adapter_model.safetensors, adapter_config.json and the files of tokenizer and processor.

        Args:
            folder: must exist.
            written: told the bytes of each tensor once they are read.
        """
        for name, source in self._tensors.items():
            parameter = self._parameters[name]
            fill(parameter, source, self._layout.reading(name, list(parameter.shape), source)[1])
            written(self._size(name))
        self._model.model.carried_files = read_carried_files(self._described_by)
        self._model.save_pretrained(folder)
        copy_settings(folder, self._source, self._source)

    def _size(self, name: str) -> int:
        return self._parameters[name].size * self._parameters[name].element_size()


def _described_by(source: Path, base: str | None, named: str | None) -> Path:
    """Find the folder whose config.json says what the adapter is for: PaddleNLP saves it beside the adapter."""
    if base is None and ((source / CONFIG_FILE).is_file() or named is None):
        return source
    return local_folder(base or str(named))


def _layers(model: MixPretrainedModel, names: list[str]) -> list[str]:
    """Name the linear layers that the adapter is put on; factors of other layers remain, to be told as unexpected."""
    adapted = {name.rpartition(".")[0] for name in names if is_part(name)}
    found = [name for name in linear_layers(model) if name in adapted]
    if not found:
        raise ValueError(
            f"the adapter holds no {DOWN} and {UP} of a layer of the model that config.json describes, but "
            f"{', '.join(names[:3])} ...; give the base that it was trained on as --base."
        )
    return found


def _whole(model: MixPretrainedModel, names: list[str]) -> list[str]:
    """Name the parameters that the adapter replaces."""
    parameters = {name for name, _ in model.named_parameters()}
    return [name for name in dict.fromkeys(names) if name in parameters]


def _dtype_of(tensors: Mapping[str, StoredTensor]) -> str:
    found = next(iter(tensors.values())).dtype if tensors else "float32"
    return found if found in PARAMETER_DTYPES else "float32"
