"""Which adapters a run starts from: those that become part of the base, and the one that is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddlemix.hub import local_folder
from paddlemix.peft.adapter_config import read_adapter_config
from paddlemix.peft.folders import (
    ModelFolders,
    adapter_folder,
    base_of_adapter,
    is_adapter,
    lasting_name,
    not_an_adapter,
    warn_of_another_base,
)


@dataclass(frozen=True)
class AdapterChain:
    """A model and the adapters on it, in the order in which they were trained.

    Attributes:
        base: the model's name or path, as it can be written into an adapter.
        merged: the folders of adapters that become part of the base, in order.
        continued: the folder of the adapter that is trained on; None where a new one begins, or none at all.
    """

    base: str
    merged: tuple[Path, ...] = ()
    continued: Path | None = None

    @property
    def adapters(self) -> tuple[Path, ...]:
        """The folders of all of them."""
        return (*self.merged, self.continued) if self.continued else self.merged

    def folders(self) -> ModelFolders:
        """Find the model's folder, without its weights, and the last adapter, whose settings go before the model's.

        Returns:
            The folders.

        Raises:
            OSError: there is no such model, or it cannot be fetched.
        """
        return ModelFolders(local_folder(self.base), self.adapters[-1] if self.adapters else None)


def find_chain(name_or_path: str, lora_paths: Sequence[str] = (), *, creates_new: bool = False) -> AdapterChain:
    """Find the adapters that a run starts from, wherever they are named.

    Args:
        name_or_path: a model, or an adapter, whose base is then the one that its adapter_config.json names.
        lora_paths: adapters on the model.
        creates_new: whether a new adapter begins on top of all of them.

    Returns:
        The model and its adapters.

    Raises:
        OSError: one of them is neither there nor can be fetched.
        ValueError: an adapter stands where a model was expected, or the other way round.
    """
    if not is_adapter(local_folder(name_or_path)):
        return chain_on(name_or_path, lora_paths, creates_new=creates_new)
    if others := [one for one in lora_paths if lasting_name(one) != lasting_name(name_or_path)]:
        listed = ", ".join(f'"{one}"' for one in [name_or_path, *others])
        raise ValueError(
            f"`model_name_or_path` {name_or_path} is an adapter itself. Give the base of it, and set `lora_path` to "
            f"[{listed}]."
        )
    if lora_paths:
        raise ValueError(f"`model_name_or_path` and `lora_path` are both the adapter {name_or_path}; take one out.")
    adapter = local_folder(name_or_path, weights=True)
    return _chain(lasting_name(base_of_adapter(adapter)), [adapter], creates_new)


def chain_on(name_or_path: str, lora_paths: Sequence[str], *, creates_new: bool = False) -> AdapterChain:
    """Find adapters on what is known to be no adapter; the model itself is not looked for. See `find_chain`."""
    adapters = [adapter_folder(path, weights=True) for path in lora_paths]
    for path, folder in zip(lora_paths, adapters, strict=True):
        if not is_adapter(folder):
            raise not_an_adapter(path, folder)
    repeated = [path for place, path in enumerate(lora_paths) if adapters[place] in adapters[:place]]
    if repeated:
        raise ValueError(f"`lora_path` names {repeated[0]} twice, which would count twice; name each adapter once.")
    if adapters:
        warn_of_another_base(name_or_path, adapters[0])
    return _chain(lasting_name(name_or_path), adapters, creates_new)


def _chain(base: str, adapters: Sequence[Path], creates_new: bool) -> AdapterChain:
    if creates_new and not adapters:
        raise ValueError(
            "`create_new_adapter` is true, but no adapter is named that it could be put on. Name it in `lora_path`, or "
            "take the key out: `lora` alone begins a new adapter."
        )
    for adapter in adapters:
        read_adapter_config(adapter)  # refused before records are read
    if creates_new or not adapters:
        return AdapterChain(base, tuple(adapters))
    return AdapterChain(base, tuple(adapters[:-1]), adapters[-1])
