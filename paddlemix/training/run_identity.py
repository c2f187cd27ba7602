"""Whether a checkpoint is of the run that is about to go on from it, and in which keys of the config the two differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.groups import DRAW_KEYS, FREE_KEYS, MODEL_KEYS, SAMPLE_KEYS
from paddlemix.datasets.mixing.sampler import GlobalBatchSampler
from paddlemix.files import write_json

FILE = "run.json"

# Of a model's config: what says nothing about its shape.
_NO_SHAPE = ("torch_dtype", "transformers_version", "_name_or_path")
_FILES = ("data_files", "image_root")


@dataclass(frozen=True)
class RunIdentity:
    """What makes two runs the same.

    Attributes:
        keys: values by config key; those of `configuration/groups.py`.
        model: the model's config.json.
        drawn_from: the sampler's fingerprint.
    """

    keys: Mapping[str, Any]
    model: Mapping[str, Any]
    drawn_from: str

    @classmethod
    def of(
        cls, keys: Mapping[str, Any], model_config: Any, sampler: GlobalBatchSampler, *, ranks: int = 1
    ) -> RunIdentity:
        """Of the run of this process.

        Args:
            keys: of `identity_keys`; empty where there is no config.
            model_config: of the model to train.
            sampler: draws what is trained.
            ranks: how many processes train.

        Returns:
            The identity, as it would be read from a file.
        """
        values = {"keys": {**keys, "cards": ranks}, "model": model_config.to_published()}
        return cls(**json.loads(json.dumps(values)), drawn_from=sampler.fingerprint)

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> RunIdentity:
        """Of the run that wrote a checkpoint."""
        return cls(**json.loads((folder / FILE).read_text("utf-8")))

    def differences(self, earlier: RunIdentity, *, ignore_data: bool) -> list[str]:
        """Why this run cannot go on where `earlier` was.

        Args:
            earlier: of the checkpoint.
            ignore_data: whether the epoch is begun anew anyway.

        Returns:
            What differs, with both values; empty where the runs are one.
        """
        shapes = [
            f"the model's {changed}" for changed in _changes(earlier.model, self.model, set(self.model) - {*_NO_SHAPE})
        ]
        # A checkpoint holds all weights, but for those that adapters were trained on.
        base = ("model_name_or_path",) if self.keys.get("lora") else ()
        found = shapes + list(_changes(earlier.keys, self.keys, (*MODEL_KEYS, *base)))
        if ignore_data:
            return found
        found += _changes(earlier.keys, self.keys, SAMPLE_KEYS)
        if self.drawn_from != earlier.drawn_from:
            found += _changes(earlier.keys, self.keys, DRAW_KEYS)
            found = found or ["the records in the files of `dataset.train` are others than they were"]
        return found

    def changed_freely(self, earlier: RunIdentity) -> list[str]:
        """What the run goes on with other values of, though it goes on."""
        return list(_changes(earlier.keys, self.keys, FREE_KEYS))


def identity_keys(config: FinetuneConfig) -> dict[str, Any]:
    """The values of a config that `RunIdentity` compares, by key; `dataset.train` without its files, which may move."""
    sets = [asdict(one) for one in config.data.dataset.train]
    values = {
        **asdict(config.model),
        **asdict(config.data),
        **config.training,
        "dataset.train": [{name: value for name, value in one.items() if name not in _FILES} for one in sets],
        "dataset.train.data_files": [{name: one[name] for name in _FILES} for one in sets],
    }
    return {name: values[name] for name in (*MODEL_KEYS, *SAMPLE_KEYS, *DRAW_KEYS, *FREE_KEYS) if name in values}


def check_same_run(checkpoint: Path, run: RunIdentity, *, ignore_data: bool) -> list[str]:
    """Make sure that a run can go on from a checkpoint.

    Args:
        checkpoint: its folder.
        run: that is about to go on.
        ignore_data: whether `ignore_data_skip` is set.

    Returns:
        What has changed and may.

    Raises:
        ValueError: the checkpoint is of another run; the keys that differ are named.
    """
    earlier = RunIdentity.read(checkpoint)
    if differences := run.differences(earlier, ignore_data=ignore_data):
        raise ValueError(
            f"{checkpoint} is of another run: {'; '.join(differences)}. Restore what has changed, or start a new run "
            "from its weights: take `resume_from_checkpoint` out, give another `output_dir` and set "
            f"`model_name_or_path` to {checkpoint}."
        )
    return run.changed_freely(earlier)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], names: Collection[str]) -> Iterator[str]:
    """In words, by name; one that either side does not have is none."""
    for name in names if isinstance(names, tuple) else sorted(names):
        if name in before and name in now and before[name] != now[name]:
            yield _change(name, before[name], now[name])


def _change(name: str, before: Any, now: Any) -> str:
    values = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
    return f"`{name}` was {values[0]} and is {values[1]}" if max(map(len, values)) < 60 else f"`{name}` has changed"
