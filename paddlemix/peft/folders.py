"""Which folders the parts of a model come from, where some of them are an adapter's."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from paddlemix.foreign.explain import explain
from paddlemix.foreign.listing import Listing
from paddlemix.hub import PADDLEMIX_NAMES, is_hub_name, local_folder
from paddlemix.names import CONFIG_FILE, GENERATION_FILE
from paddlemix.peft.adapter_config import ADAPTER_CONFIG_FILE, read_adapter_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFolders:
    """Where a model is.

    Attributes:
        model: the folder with config.json and weights.
        adapter: the folder of the adapter on it, or None.
    """

    model: Path
    adapter: Path | None = None

    @property
    def generation(self) -> Path:
        """The folder whose generation_config.json counts."""
        adapter = self.adapter
        return adapter if adapter is not None and (adapter / GENERATION_FILE).is_file() else self.model


def find_folders(
    name_or_path: str | os.PathLike[str], lora_path: str | os.PathLike[str] | None = None, *, weights: bool = False
) -> ModelFolders:
    """Find the local folders that names or paths stand for.

    Args:
        name_or_path: a model, or an adapter, whose base is then the one that its adapter_config.json names.
        lora_path: an adapter for the model, or None.
        weights: whether a model of the hub is fetched with its weights.

    Returns:
        The folders.

    Raises:
        OSError: one of them is neither there nor can be fetched.
        ValueError: an adapter where a model was expected, a model where an adapter was, or an adapter that names no
            base.
    """
    folder = local_folder(name_or_path, weights=weights)
    if lora_path is None:
        if not is_adapter(folder):
            return ModelFolders(folder)
        return ModelFolders(local_folder(base_of_adapter(folder), weights=weights), folder)
    adapter = adapter_folder(lora_path, weights=weights)
    if not is_adapter(adapter):
        raise not_an_adapter(lora_path, adapter)
    if is_adapter(folder):
        raise ValueError(f"`model_name_or_path` {name_or_path} is an adapter itself; give the base of `lora_path`.")
    return ModelFolders(folder, adapter)


def adapter_folder(lora_path: str | os.PathLike[str], *, weights: bool = False) -> Path:
    """Find the local folder of an adapter.

    Args:
        lora_path: a folder, or a name of the hub.
        weights: whether an adapter of the hub is fetched with its weights.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: there is no such folder, and no hub has such names.
        OSError: it cannot be fetched.
    """
    if not Path(lora_path).expanduser().exists() and not is_hub_name(str(lora_path)):
        raise FileNotFoundError(
            f"`lora_path` {lora_path} is no local folder, and no `owner/name` of an adapter on the hub. Correct the "
            "path."
        )
    return local_folder(lora_path, weights=weights)


def warn_of_another_base(name_or_path: str, adapter: Path) -> None:
    """Tell of an adapter that was trained on another model than the one that it is put on.

    Weights of the right shapes are all that can be checked, and a model may have moved: its last name decides.

    Args:
        name_or_path: of the model.
        adapter: its folder.
    """
    base = read_adapter_config(adapter).base
    if base is not None and Path(base).name != Path(lasting_name(name_or_path)).name:
        logger.warning(
            "%s says that it was trained on %s and is put on %s; what comes out is right only if both have the same "
            "weights.",
            adapter,
            base,
            name_or_path,
        )


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG_FILE).is_file()


def lasting_name(name_or_path: str) -> str:
    """Write a model's name or path as it can be written into an adapter: the hub's own name, or an absolute path."""
    folder = Path(name_or_path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else PADDLEMIX_NAMES.get(name_or_path, name_or_path)


def base_of_adapter(adapter: Path) -> str:
    """Read which model an adapter is on, and make sure that it is one.

    Args:
        adapter: its folder.

    Returns:
        The base's name or path.

    Raises:
        OSError: the base is neither there nor can be fetched.
        ValueError: no base is named, or it is an adapter too.
    """
    file, base = adapter / ADAPTER_CONFIG_FILE, read_adapter_config(adapter).base
    way_out = "Give the base as `model_name_or_path` and the adapter as `lora_path`."
    if base is None:
        raise ValueError(f"{file} names no `base_model_name_or_path`. {way_out}")
    if not Path(base).expanduser().is_dir() and not is_hub_name(base):
        raise FileNotFoundError(f"{file}: `base_model_name_or_path` {base} is not there. {way_out}")
    if is_adapter(local_folder(base)):
        raise ValueError(
            f"{file}: the base {base} is an adapter too. Merge that one into its base with "
            f"paddlemix/tools/merge_lora_params.py, and give the merged model as `model_name_or_path` and {adapter} as "
            "`lora_path`."
        )
    return base


def not_an_adapter(lora_path: str | os.PathLike[str], folder: Path) -> ValueError:
    """Make the error of a folder that holds no adapter."""
    is_model = (folder / CONFIG_FILE).is_file() and Listing.of(folder).holds_weights
    way_out = " It holds a model: give it as `model_name_or_path`." if is_model else explain(folder)
    return ValueError(
        f"`lora_path` {lora_path} holds no {ADAPTER_CONFIG_FILE}; give the folder of an adapter.{way_out}"
    )
