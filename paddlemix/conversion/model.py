"""A whole model: Paddle's files of any kind -> the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from paddlemix.contract import ModelConfig
from paddlemix.conversion.joined import join
from paddlemix.conversion.parts import MODEL_STEMS, Order, read_parts
from paddlemix.files import copy_settings_file, read_json_object, write_json
from paddlemix.foreign.invented_ids import without_invented_ids
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.config_file import make_config, read_config
from paddlemix.models.registry import find_family
from paddlemix.models.tensor_parallel import SplitPlan
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.side_files import settings_files
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.loading import match, without_initial_values
from paddlemix.weights.published import published_numbers, published_shape, write_sharded
from paddlemix.weights.safetensors_writer import Entry
from paddlemix.weights.saving import cut
from paddlemix.weights.stored_tensor import Source, StoredTensor

# What says which tokens there are: files of two tokenizers are not mixed.
_VOCABULARY = ("tokenizer.json", "vocab.json", "*.tiktoken")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "merges.txt", *_VOCABULARY)


class ConvertedModel:
    """A model whose files were looked into; no numbers are read yet.

    Args:
        source: the checkpoint's folder.
        described_by: the folder whose config.json describes it.
        dtype: "float32", "float16" or "bfloat16" to store; None stores what the files do.
        order: in which the files' matrices lie, where their own word on it is wrong.

    Attributes:
        config: of the family.
        tensors: what each parameter is made of.

    Raises:
        FileNotFoundError: no config.json or no weights, or a part of them is missing.
        ValueError: a file is damaged, or tensors are missing, unexpected or of another shape; all of them are listed.
    """

    config: ModelConfig
    tensors: dict[str, Source]

    def __init__(
        self, source: Path, described_by: Path, *, dtype: str | None = None, order: Order | None = None
    ) -> None:
        self._source, self._described_by, self._dtype = source, described_by, dtype
        model = empty_model(described_by)
        self.config = model.config
        self._layout = model.weight_layout(self.config)
        parameters = checkpoint_tensors(model)
        shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        wholes = join_ranks(read_parts(source, MODEL_STEMS, order), shapes, self._layout, model.split_plan(self.config))
        self.tensors = match(parameters, wholes, self._layout, source)

    @property
    def bytes(self) -> int:
        """The size of the converted weights."""
        return sum(self._entry(name).bytes for name in self.tensors)

    def write(self, folder: Path, written: Callable[[int], object] = lambda _: None) -> None:
        """Write weights, config.json and the files of tokenizer and processor.

        Args:
            folder: must exist.
            written: told the bytes of each tensor once they are written.
        """
        entries = {name: self._entry(name) for name in self.tensors}
        shards = cut({name: entry.bytes for name, entry in entries.items()})
        write_sharded(folder, [[entries[name] for name in shard] for shard in shards], written)
        [(dtype, _)] = Counter(entry.dtype for entry in entries.values()).most_common(1)
        write_json(folder / CONFIG_FILE, {**self.config.to_published(), "torch_dtype": dtype})
        copy_settings(folder, self._source, self._described_by)

    def _entry(self, name: str) -> Entry:
        source, layout = self.tensors[name], self._layout
        dtype = self._dtype or source.dtype
        shape = published_shape(name, source, layout)
        return Entry(name, dtype, shape, lambda: published_numbers(name, source, layout, dtype))


def empty_model(folder: Path, dtype: str = "float32") -> MixPretrainedModel:
    """Build the model that a folder's config.json describes; its parameters have shapes and no memory.

    Args:
        folder: holds config.json.
        dtype: of the parameters.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it names no family that is known here, or makes no sense.
    """
    family = find_family(folder)
    values = read_config(folder)
    with without_initial_values():
        return family.model_class.from_config(make_config(family.config_class, folder, values), dtype=dtype)


def join_ranks(
    ranks: Sequence[Mapping[str, StoredTensor]], shapes: Mapping[str, list[int]], layout: WeightLayout, plan: SplitPlan
) -> list[Source]:
    """Put together what ranks saved of each tensor.

    Args:
        ranks: the tensors of each, by name.
        shapes: of the parameters, by name.
        layout: of the family.
        plan: of the family; says where query, key and value are one matrix.

    Returns:
        The wholes, in the order of the files.
    """
    wholes: list[Source] = []
    for name in dict.fromkeys(name for tensors in ranks for name in tensors):
        parts = [tensors[name] for tensors in ranks if name in tensors]
        here = layout.name_here(name)
        shape = shapes.get(here, list(parts[0].shape))
        blocks = 3 if any(fnmatchcase(here.rpartition(".")[0], glob) for glob in plan.fused) else 1
        wholes.append(join(parts, layout.reading(here, shape, parts[0])[0], blocks))
    return wholes


def copy_settings(folder: Path, source: Path, base: Path) -> None:
    """Copy the files of tokenizer, processor and generation; what the source lacks is the base's.

    Args:
        folder: to copy to.
        source: whose files go before.
        base: of the rest.
    """
    own = _own_settings(source)
    has_vocabulary = any(_matches(file, _VOCABULARY) for file in own)
    names = {file.name for file in own}
    others = [
        file
        for file in _own_settings(base)
        if file.name not in names and not (has_vocabulary and _matches(file, _TOKENIZER))
    ]
    for file in (*own, *others):
        copy_settings_file(file, folder / file.name)


def _own_settings(folder: Path) -> list[Path]:
    return [file for file in settings_files(folder) if not _is_invented(file)]


def _is_invented(file: Path) -> bool:
    """Tell whether a generation_config.json was made of ids that PaddleNLP invented."""
    if file.name != GENERATION_FILE:
        return False
    values = read_json_object(file)
    return without_invented_ids(values) != values


def _matches(file: Path, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(file.name, glob) for glob in globs)
