"""What settings of images and videos checkpoints have, whatever the family: where they stand, and CLIP's colours.

Releases of transformers before 5 write preprocessor_config.json and video_preprocessor_config.json, later ones a
processor_config.json that holds both. Where a folder has both forms, the later one counts, as it does there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import finite_number, shown
from paddlemix.files import read_json_object, write_json
from paddlemix.names import PREPROCESSOR_FILE, PROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE
from paddlemix.processors.settings import log_once, warn_once
from paddlemix.value_kinds import TEXT, Kind, kind_problem, number, whole

# Mean and deviation of red, green and blue in 0..1, over the images that CLIP was trained on.
# Source: Radford et al., "Learning transferable visual models from natural language supervision", 2021,
# arXiv:2103.00020, and its published code.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# By file, the key under which processor_config.json holds the same.
_NESTED = {PREPROCESSOR_FILE: "image_processor", VIDEO_PREPROCESSOR_FILE: "video_processor"}
# What every file can ask for, and the values that are computed.
_BICUBIC = 3
# Of a colour's mean and deviation, which are shares of its range.
_LARGEST_COLOUR = 1e6
_BUILT_IN: Mapping[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "do_convert_rgb": (True,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "resample": (_BICUBIC, "bicubic"),
}
# Pixels of an image, or of all frames of a video together, are counted in 32 bits.
_AREA = whole(1, 2**31 - 1)
_COUNT = whole(1, 2**20)
_SIDE = whole(1, 8192)
_KINDS: Mapping[str, Kind] = {
    "min_pixels": _AREA,
    "max_pixels": _AREA,
    "total_pixels": _AREA,
    "patch_size": _SIDE,
    "image_size": _SIDE,
    "merge_size": whole(1, 64),
    "temporal_patch_size": whole(1, 64),
    "resized_height": whole(1, 2**20),
    "resized_width": whole(1, 2**20),
    "fps": number(0, 10_000),
    "min_frames": _COUNT,
    "max_frames": _COUNT,
    "nframes": _COUNT,
    "image_range": TEXT,
    "grounding": TEXT,
}
_EDGES = {"min_pixels": ("shortest_edge", "min_pixels"), "max_pixels": ("longest_edge", "max_pixels")}


@dataclass(frozen=True)
class StoredSettings:
    """Settings of images, or of videos, as a checkpoint has them.

    Attributes:
        values: by name; empty where nothing was found.
        source: the file and, in processor_config.json, the key; None where nothing was found.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None


def stored_settings(folder: Path, file: str) -> StoredSettings:
    """Find settings of a checkpoint, in either form.

    Args:
        folder: of the checkpoint.
        file: PREPROCESSOR_FILE or VIDEO_PREPROCESSOR_FILE, where releases before 5 have them.

    Returns:
        The settings; a warning says which count where both forms are there and differ, and a line of the log that
        there are none.

    Raises:
        ValueError: a file is no JSON object, or the settings ask for what is not computed.
    """
    both, key, alone = folder / PROCESSOR_FILE, _NESTED[file], folder / file
    older = _checked(read_json_object(alone, missing_ok=True), str(alone))
    nested = read_json_object(both, missing_ok=True).get(key)
    if nested is not None:
        source = f"{both}: `{key}`"
        newer = _checked(nested, source)
        _tell_difference(newer, older, both, alone)
        return StoredSettings(newer, source)
    if alone.is_file():
        return StoredSettings(older, str(alone))
    log_once(f"{folder}: no {file}, and no {PROCESSOR_FILE} with `{key}`: the family's defaults hold.")
    return StoredSettings()


def write_settings(folder: Path, file: str, values: Mapping[str, Any]) -> None:
    """Write settings where all releases of transformers read them.

    Args:
        folder: of the checkpoint; a processor_config.json in it no longer holds the settings.
        file: as in `stored_settings`.
        values: by name.
    """
    write_json(folder / file, dict(values))
    both = read_json_object(folder / PROCESSOR_FILE, missing_ok=True)
    if both.pop(_NESTED[file], None) is not None:
        write_json(folder / PROCESSOR_FILE, both)


def pixel_bounds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the smallest and the largest area of images or frames under all of their names.

    Args:
        values: of a file.

    Returns:
        min_pixels and max_pixels, None where nothing is said.

    Raises:
        ValueError: `size` is no object of edges, or an area no whole number above 0.
    """
    size = values.get("size") or {}
    known = {name for names in _EDGES.values() for name in names}
    if not isinstance(size, Mapping) or (size and not known & size.keys()):
        raise ValueError(
            f"`size` is {shown(size)}; expected the areas `shortest_edge` and `longest_edge`, or `min_pixels` and "
            "`max_pixels`."
        )
    found: dict[str, Any] = {}
    for name, edges in _EDGES.items():
        said = [values.get(name), *(size.get(edge) for edge in edges)]
        area = found[name] = next((one for one in said if one is not None), None)
        if area is not None and not _AREA.is_right(area):
            raise ValueError(f"`{name}` is {shown(area)}; expected a whole number above 0, below 2 to the 31st.")
    return found


def known_settings(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Choose settings by name.

    Args:
        values: of a file. None counts as not set.
        names: the fields of a frozen dataclass.

    Returns:
        Those that are set; lists are tuples, so that they can be hashed.
    """
    found = {name: values.get(name) for name in names}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None
    }


def _checked(values: Any, source: str) -> dict[str, Any]:
    """Return settings that are computed; the error about others names where they stand."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{source} is {shown(values)}; expected an object.")
    try:
        _check(values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return dict(values)


def _check(values: Mapping[str, Any]) -> None:
    """Refuse what is not computed, areas that are no numbers, and colours that are no three numbers."""
    problem = kind_problem(values, _KINDS)
    if problem is not None:
        raise ValueError(problem)
    pixel_bounds(values)
    for name, built in _BUILT_IN.items():
        value = values.get(name)
        if value is not None and value not in built:
            raise ValueError(
                f"`{name}` is {shown(value)}; only {shown(built[0])} is built in. Take the key out if the model was "
                "trained so."
            )
    factor = values.get("rescale_factor")
    if factor is not None and not (isinstance(factor, float) and math.isclose(factor, 1 / 255, rel_tol=1e-6)):
        raise ValueError(f"`rescale_factor` is {shown(factor)}; only 1/255 is built in.")
    for name in ("image_mean", "image_std"):
        colours = values.get(name)
        if colours is not None and not _are_colours(colours, positive=name == "image_std"):
            raise ValueError(f"`{name}` is {shown(colours)}; expected three numbers, of red, green and blue.")


def _are_colours(values: Any, *, positive: bool) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == 3
        and all(finite_number(one) and abs(one) <= _LARGEST_COLOUR for one in values)
        and (not positive or min(values) >= 1 / _LARGEST_COLOUR)
    )


def _tell_difference(nested: Mapping[str, Any], alone: Mapping[str, Any], both: Path, file: Path) -> None:
    named = {name: {**one, **pixel_bounds(one), "size": None} for name, one in (("both", nested), ("alone", alone))}
    differing = sorted(
        key for key, one in named["alone"].items() if one is not None and named["both"].get(key) not in (None, one)
    )
    if differing:
        warn_once(
            f"{both} and {file.name} differ in {', '.join(f'`{key}`' for key in differing)}; {both.name} counts, as in "
            "transformers 5. Remove the one that is out of date."
        )
