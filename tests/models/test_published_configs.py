"""Config files of transformers 4.45 to 5.24, and what those releases read from ours: `make_published_configs.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddlemix.files import read_json_object
from paddlemix.models.registry import FAMILIES
from tests.references import FIXTURES

ROOT = FIXTURES / "published_configs"
SAVED = sorted((*ROOT.glob("*/resaved/*.json"), *ROOT.glob("*/nested/*.json")))
HUB = sorted(ROOT.glob("hub/*.json"))
READ = sorted(ROOT.glob("*/reads.json"))
CLASSES = {family.model_type: family.config_class for family in FAMILIES}


def config_of(path):
    values = read_json_object(path)
    return CLASSES[values["model_type"]](**values)


def published(path):
    """What is written of the config of a file."""
    return json.loads(json.dumps(config_of(path).to_published()))


def name_of(path):
    return "/".join(path.with_suffix("").parts[-3:])


def test_files_of_every_release_are_there():
    releases = {path.parts[-3] for path in SAVED}
    assert releases == {"4.45", "4.49", "4.52", "4.55", "4.57", "5.24"} and len(SAVED) == 57 and len(HUB) == 6


@pytest.mark.parametrize("path", SAVED, ids=name_of)
def test_what_a_release_saved_is_the_config_that_it_was_made_of(path, caplog):
    assert published(path) == published(ROOT / "hub" / path.name)
    assert not [record for record in caplog.records if "counts" in record.message]


@pytest.mark.parametrize("path", HUB, ids=lambda path: path.stem)
def test_what_is_written_is_what_the_releases_were_given_to_read(path):
    assert {**published(path), "torch_dtype": "bfloat16"} == read_json_object(ROOT / "ours" / path.name)


@pytest.mark.parametrize("reads", READ, ids=lambda path: path.parent.name)
def test_every_release_reads_the_numbers_that_are_written(reads):
    found = read_json_object(reads)
    assert len(found) == (3 if reads.parent.name == "4.45" else 6)
    for name, numbers in found.items():
        ours = read_json_object(Path(ROOT, "ours", f"{name}.json"))
        scaling = ours["rope_scaling"]
        kind = scaling["type"].replace("mrope", "default")
        assert (numbers.pop("rope_type"), numbers.pop("mrope_section")) == (kind, scaling["mrope_section"])
        assert numbers.pop("factor") == scaling.get("factor")
        tower, vision = numbers.pop("vision_config"), ours["vision_config"]
        shared = vision.keys() - {"model_type"}
        assert {key: tower.get(key) for key in shared} == {key: vision[key] for key in shared}, name
        assert numbers == {key: ours[key] for key in numbers}, name
