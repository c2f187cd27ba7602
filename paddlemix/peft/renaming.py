"""An adapter's folder again, with the names of other versions of transformers.

PEFT finds an adapter's tensors by the names that layers have in memory. transformers 4.52 gave Qwen2-VL's and
Qwen2.5-VL's layers other names; versions on either side read only their own, but for a few that know both.
"""

from __future__ import annotations

import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from paddlemix.files import read_json_object, write_json
from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import stored_adapter, trained_on_in, write_tensors
from paddlemix.peft.adapter_config import ADAPTER_CONFIG_FILE, Product, read_adapter_config
from paddlemix.peft.patterns import with_patterns
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.published import read_whole

# How the names of the files begin that are written again.
_OF_ADAPTERS = ("adapter_model.", "adapter_model-", ADAPTER_CONFIG_FILE)
# Say nothing of what is computed, and older versions of PEFT refuse to read a config with keys that they do not know.
_OF_LATER_VERSIONS = (
    "peft_version",
    "qalora_group_size",
    "megatron_core",
    "eva_config",
    "corda_config",
    "loftq_config",
)


def rename_adapter(folder: Path, target: Path, layout: WeightLayout, *, in_memory: bool) -> None:
    """Write an adapter again, with other names.

    Args:
        folder: of the adapter.
        target: the folder to fill; must exist.
        layout: the family's.
        in_memory: whether names are those of transformers 4.52 and later; else those of the published checkpoints.
    """
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith(_OF_ADAPTERS):
            shutil.copyfile(file, target / file.name)
    tensors: dict[str, np.ndarray] = {}
    config = read_json_object(folder / ADAPTER_CONFIG_FILE)
    has_patterns = any(config.get(key) for key in ("rank_pattern", "alpha_pattern"))
    read = read_adapter_config(folder) if has_patterns else None
    layers: dict[str, None] = {}
    products: dict[str, Product] = {}
    for stored in stored_adapter(folder):
        tensors[names.PREFIX + _renamed(stored.name.removeprefix(names.PREFIX), layout, in_memory)] = read_whole(
            stored, stored.dtype
        )
        found = names.parse(stored.name)
        if found.part in (names.DOWN, names.EMBEDDING_DOWN):
            ending = _shared_ending(found.place, layout)
            layers[ending] = None
            if read is not None:
                products[ending] = Product(stored.shape[0], read.product_of(found.place).alpha)
    write_tensors(target, tensors, trained_on_in(folder))
    # Theirs may be about names that layers do not have any more.
    if read is not None:
        read = with_patterns(read, products)
        config |= {"rank_pattern": dict(read.rank_pattern), "alpha_pattern": dict(read.alpha_pattern)}
    write_json(target / ADAPTER_CONFIG_FILE, _config(config, list(layers), layout))


def _renamed(name: str, layout: WeightLayout, in_memory: bool) -> str:
    here = layout.name_here(name)
    return layout.name_in_memory(here) if in_memory else here


def _shared_ending(layer: str, layout: WeightLayout) -> str:
    """Return the ending that a layer's names have in common: some versions know both, and look for either."""
    here = layout.name_here(layer)
    pairs = zip(reversed(here.split(".")), reversed(layout.name_in_memory(here).split(".")), strict=False)
    return ".".join(reversed([one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]))


def _config(values: dict[str, Any], layers: list[str], layout: WeightLayout) -> dict[str, Any]:
    """Name the very layers, whichever patterns chose them, and leave out what asks for nothing."""
    kept = {key: one for key, one in values.items() if one not in (None, False, {}, []) or key == "inference_mode"}
    for key in _OF_LATER_VERSIONS:
        kept.pop(key, None)
    saved = dict.fromkeys(_shared_ending(name, layout) for name in values.get("modules_to_save") or ())
    return {**kept, "target_modules": layers, **({"modules_to_save": list(saved)} if saved else {})}
