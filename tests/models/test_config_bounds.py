"""A config.json of strangers: kinds and bounds of its values, checked before a layer is built."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from paddlemix.auto import AutoConfigMIX, AutoModelMIX
from tests.families import each_family

# Each is wrong for every key that a model is built from.
WRONG: tuple[Any, ...] = ("a", "1", [[]], {"a": [1]}, [None, "b"], True, -7, 10**19, 10**400, 1e300)
SIZES = ("size", "heads", "layers", "depth", "width", "queries")
LAYERS = ("num_hidden_layers", "depth", "layers")


def places(values: dict[str, Any], way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """List the ways to all values of sections."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from places(value, (*way, name))
        else:
            yield (*way, name)


def put(values: dict[str, Any], way: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Put one value in place of another."""
    first, *others = way
    return {**values, first: put(values[first], tuple(others), value) if others else value}


@pytest.fixture
def checkpoint(case, request, tmp_path):
    return shutil.copytree(case.folder(request), tmp_path / "checkpoint")


def values_of(folder):
    return json.loads((folder / "config.json").read_text())


def refusal(folder) -> str | None:
    """Return what is said of a config.json, None where it is read."""
    try:
        config = AutoConfigMIX.from_pretrained(folder)
    except ValueError as error:
        return str(error)
    assert config.decoder_shape.layers <= 1024 and config.tower_shape.blocks <= 1024
    return None


@each_family
def test_every_value_of_another_kind_is_refused_by_its_file(checkpoint):
    published, path = values_of(checkpoint), checkpoint / "config.json"
    refused = []
    for way in places(published):
        for wrong in WRONG:
            path.write_text(json.dumps(put(published, way, wrong)))
            said = refusal(checkpoint)
            assert said is None or (said.startswith(f"{path}: ") and "\n" not in said and len(said) < 900)
            refused += [] if said is None else [way[-1]]
    # Of what decides how large a model is every value is refused.
    sizes = [way[-1] for way in places(published) if any(word in way[-1] for word in SIZES)]
    assert len(sizes) >= 8
    assert {name: refused.count(name) for name in sizes} == {name: len(WRONG) * sizes.count(name) for name in sizes}


@each_family
@pytest.mark.parametrize("number", [1025, 10**6, 10**12, 2**63, 10**400])
def test_a_million_layers_are_refused_before_any_is_built(checkpoint, number):
    published, path = values_of(checkpoint), checkpoint / "config.json"
    for way in places(published):
        if way[-1] not in LAYERS:
            continue
        path.write_text(json.dumps(put(published, way, number)))
        for read in (AutoConfigMIX.from_pretrained, AutoModelMIX.from_pretrained):
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
            with pytest.raises(ValueError, match=rf"config\.json: `[\w.]*{way[-1]}` is .*from 1 to 1024"):
                read(checkpoint)
            assert time.thread_time() - began < 1
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes


@each_family
def test_more_layers_than_the_files_have_tensors_are_refused_unbuilt(checkpoint):
    published, path = values_of(checkpoint), checkpoint / "config.json"
    way = next(way for way in places(published) if way[-1] == "num_hidden_layers")
    path.write_text(json.dumps(put(published, way, 1024)))
    began = time.thread_time()
    with pytest.raises(
        ValueError, match=r"config\.json: asks for 10\d\d layers, but the weights beside it are \d+ ten"
    ):
        AutoModelMIX.from_pretrained(checkpoint)
    assert time.thread_time() - began < 2


@each_family
def test_sections_that_are_none_are_refused(checkpoint):
    published, path = values_of(checkpoint), checkpoint / "config.json"
    sections = [name for name, one in published.items() if isinstance(one, dict)]
    assert sections
    for section in sections:
        for wrong in ([1], "a", 5):
            path.write_text(json.dumps({**published, section: wrong}))
            with pytest.raises(ValueError, match=rf"config\.json: `{section}` is "):
                AutoConfigMIX.from_pretrained(checkpoint)
