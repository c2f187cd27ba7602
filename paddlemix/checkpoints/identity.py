"""Whether a checkpoint is of the run that is about to go on from it, and in which keys of the config the two differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import OWN_STATES
from paddlemix.contract import ModelConfig
from paddlemix.datasets.records.content import SetContent
from paddlemix.files import read_json_object, write_json

FILE = "run.json"
# How many changes of a set's files one sentence names.
_LISTED = 5
# Of a model's config: what says nothing about its shape.
_NO_SHAPE = ("torch_dtype", "transformers_version", "_name_or_path")


@dataclass(frozen=True)
class IdentityKeys:
    """What the keys of a config mean to a run that goes on; who knows the keys makes one.

    Attributes:
        model: a resumed run must share these with the one it goes on with.
        samples: likewise, unless its epoch is begun anew.
        draws: these may change as long as the same records are drawn together: files may be moved, and a global batch
            cut anew.
        free: these may change; the run then goes on with the new values.
        adapter: those of `model` that say which shape an adapter has.
        forms: by key, what makes one of all ways to write a value that mean the same; takes values as JSON has them.
    """

    model: tuple[str, ...]
    samples: tuple[str, ...]
    draws: tuple[str, ...]
    free: tuple[str, ...]
    adapter: tuple[str, ...] = ()
    forms: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    def changes(self, before: Mapping[str, Any], now: Mapping[str, Any], names: Collection[str]) -> list[str]:
        """Say which of some keys have other values.

        Args:
            before: values by key, of the earlier run.
            now: of this run.
            names: the keys; one that either side does not have is no change.

        Returns:
            The changes in words.
        """
        return list(_changes(before, now, names, self.forms))

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.model, *self.samples, *self.draws, *self.free)


@dataclass(frozen=True)
class RunIdentity:
    """What makes two runs the same.

    Attributes:
        keys: values by config key; those of an `IdentityKeys`.
        model: the model's config.json.
        drawn_from: the sampler's fingerprint.
        contents: what each set's files hold; none where nobody has looked, as in checkpoints of earlier releases.
    """

    keys: Mapping[str, Any]
    model: Mapping[str, Any]
    drawn_from: str
    contents: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(
        cls,
        keys: Mapping[str, Any],
        model_config: ModelConfig,
        drawn_from: str,
        *,
        ranks: int = 1,
        contents: Sequence[SetContent] = (),
    ) -> RunIdentity:
        """Describe the run of this process.

        Args:
            keys: values by config key; empty where there is no config.
            model_config: of the model to train.
            drawn_from: the fingerprint of the sampler that draws what is trained.
            ranks: how many processes train, which becomes the key `cards`.
            contents: of the sets to train on.

        Returns:
            The identity, as it would be read from a file.
        """
        values = {
            "keys": {**keys, "cards": ranks},
            "model": model_config.to_published(),
            "contents": [one.as_json() for one in contents],
        }
        return cls(**json.loads(json.dumps(values)), drawn_from=drawn_from)

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> RunIdentity:
        """Read that of the run that wrote a checkpoint; ValueError where the file is of another shape."""
        try:
            return cls(**read_json_object(folder / FILE, limits=OWN_STATES))
        except TypeError as error:
            raise ValueError(f"{folder / FILE}: says other things than a run of ours ({error}).") from error

    def differences(self, earlier: RunIdentity, known: IdentityKeys, *, ignore_data: bool) -> list[str]:
        """Say why this run cannot go on where `earlier` was.

        Args:
            earlier: of the checkpoint.
            known: what the keys mean.
            ignore_data: whether the epoch is begun anew anyway.

        Returns:
            What differs, with both values; empty where the runs are one.
        """
        shapes = [
            f"the model's {changed}"
            for changed in _changes(earlier.model, self.model, sorted(set(self.model) - {*_NO_SHAPE}), {})
        ]
        # A checkpoint holds all weights, but for those that adapters were trained on.
        base = ("model_name_or_path",) if self.keys.get("lora") else ()
        found = shapes + known.changes(earlier.keys, self.keys, (*known.model, *base))
        if ignore_data:
            return found
        found += known.changes(earlier.keys, self.keys, known.samples)
        if self.drawn_from != earlier.drawn_from:
            found += known.changes(earlier.keys, self.keys, known.draws)
            found = found or ["the records in the files of `dataset.train` are others than they were"]
        return found

    def content_changes(self, earlier: RunIdentity) -> list[str]:
        """Say in which sets files hold something else, though records of the same sizes are drawn.

        Args:
            earlier: of the checkpoint.

        Returns:
            A sentence a set.
        """
        pairs = zip(earlier.contents, self.contents, strict=False)
        changes = [
            (now.name, now.changes_since(before))
            for before, now in ((SetContent(**one), SetContent(**other)) for one, other in pairs)
        ]
        return [
            f"{name}, set {place} of `dataset.train`: {_listed(found)}. The run goes on with what is there"
            for place, (name, found) in enumerate(changes, 1)
            if found
        ]

    def free_changes(self, earlier: RunIdentity, known: IdentityKeys) -> list[str]:
        """Say what the run goes on with other values of, though it goes on."""
        return known.changes(earlier.keys, self.keys, known.free)


def check_same_run(checkpoint: Path, run: RunIdentity, known: IdentityKeys, *, ignore_data: bool) -> list[str]:
    """Make sure that a run can go on from a checkpoint.

    Args:
        checkpoint: its folder.
        run: that is about to go on.
        known: what the keys of its config mean.
        ignore_data: whether `ignore_data_skip` is set.

    Returns:
        What has changed and may.

    Raises:
        ValueError: the checkpoint is of another run; the keys that differ are named.
    """
    earlier = RunIdentity.read(checkpoint)
    if differences := run.differences(earlier, known, ignore_data=ignore_data):
        raise ValueError(
            f"{checkpoint} is of another run: {'; '.join(differences)}. Restore what has changed, or start a new run "
            "from its weights: take `resume_from_checkpoint` out, give another `output_dir` and "
            f"{_begun_with(checkpoint, earlier, run, known)}."
        )
    return run.free_changes(earlier, known)


def _begun_with(checkpoint: Path, earlier: RunIdentity, run: RunIdentity, known: IdentityKeys) -> str:
    """Tell which keys begin a new run with a checkpoint's weights, an adapter or a whole model."""
    begun = f"set `model_name_or_path` to {checkpoint}"
    if not earlier.keys.get("lora"):
        return begun
    if not run.keys.get("lora"):
        return (
            "set `model_name_or_path` to what paddlemix/tools/merge_lora_params.py makes of its adapter and "
            f"{earlier.keys.get('model_name_or_path')}"
        )
    if run.keys.get("lora_path"):
        begun = f"take `lora_path` out, and {begun}"
    if known.changes(earlier.keys, run.keys, known.adapter):
        begun += ", with `create_new_adapter` true: a new adapter of any shape on top of that one"
    return begun


def _listed(found: Sequence[str]) -> str:
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return "; ".join([*found[:_LISTED], *more])


def _changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    names: Collection[str],
    forms: Mapping[str, Callable[[Any], Any]],
) -> Iterator[str]:
    """Yield the changes in words, by name; a name that either side does not have is none."""
    for name in names:
        form = forms.get(name, _as_it_is)
        if name in before and name in now and form(before[name]) != form(now[name]):
            yield _change(name, before[name], now[name])


def _as_it_is(value: Any) -> Any:
    return value


def _change(name: str, before: Any, now: Any) -> str:
    values = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
    return f"`{name}` was {values[0]} and is {values[1]}" if max(map(len, values)) < 60 else f"`{name}` has changed"
