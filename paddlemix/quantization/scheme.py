"""What a checkpoint's config.json says of how its weights are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paddlemix.bounded_json import shown, whole_number
from paddlemix.names import CONFIG_FILE

Method = Literal["gptq", "awq", "bitsandbytes", "compressed-tensors"]
KEY = "quantization_config"
# Where files have the key: transformers writes it at the top, some tools beside what it is about.
_OLDER_KEY = "compression_config"
_SECTIONS = ("text_config",)
_LARGEST_GROUP = 1 << 20
_READ = (
    "GPTQ of versions 1 and 2 with 4 or 8 bits, AWQ's gemm, bitsandbytes' 4 bits, and "
    "compressed-tensors' pack-quantized"
)


@dataclass(frozen=True)
class Scheme:
    """How the weights of a checkpoint are quantised.

    Attributes:
        method: who wrote them.
        bits: of a weight.
        group: inputs that share a scale; -1 are all of an output. Of bitsandbytes the file says it for each weight.
        stores_zeros_less_one: whether stored zeros are to be raised by one.
    """

    method: Method
    bits: int = 4
    group: int = -1
    stores_zeros_less_one: bool = False


def read_scheme(values: Mapping[str, Any], folder: Path) -> Scheme | None:
    """Read how a checkpoint's weights are quantised.

    Args:
        values: of its config.json.
        folder: the checkpoint's, for errors.

    Returns:
        The scheme; None where its weights are plain numbers.

    Raises:
        ValueError: they are quantised in a way that is not read; the message names it.
    """
    found = quantization_of(values)
    if not found:
        return None
    file = folder / CONFIG_FILE
    if not isinstance(found, Mapping):
        raise ValueError(f"{file}: `{KEY}` is {shown(found)}; expected an object.")
    method = found.get("quant_method")
    readers = {
        "gptq": _gptq,
        "awq": _awq,
        "bitsandbytes": _bitsandbytes,
        "compressed-tensors": _compressed_tensors,
    }
    if not isinstance(method, str) or method not in readers:
        raise _refused(file, f"`quant_method` {shown(method)}")
    return readers[method](found, file)


def quantization_of(values: Mapping[str, Any]) -> Any:
    """Return what a config.json says of quantisation, at its top or in its text model's section; None for nothing."""
    sections = [values, *(values.get(name) for name in _SECTIONS)]
    found = (one.get(key) for one in sections if isinstance(one, Mapping) for key in (KEY, _OLDER_KEY))
    return next((one for one in found if one), None)


def without_quantization(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the config.json of the same model with plain weights says."""
    kept = {key: value for key, value in values.items() if key not in (KEY, _OLDER_KEY)}
    for name in _SECTIONS:
        if isinstance(kept.get(name), Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key not in (KEY, _OLDER_KEY)}
    return kept


def _gptq(found: Mapping[str, Any], file: Path) -> Scheme:
    form = found.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2") or found.get("is_marlin_format"):
        raise _refused(file, f"GPTQ's `checkpoint_format` {shown('marlin' if found.get('is_marlin_format') else form)}")
    return Scheme("gptq", _bits(found, "bits", file), _group(found, "group_size", file), form == "gptq")


def _awq(found: Mapping[str, Any], file: Path) -> Scheme:
    version = found.get("version", "gemm")
    if not isinstance(version, str) or version.lower() != "gemm":
        raise _refused(file, f"AWQ's `version` {shown(version)}")
    bits = found.get("bits", found.get("w_bit", 4))
    if bits != 4:
        raise _refused(file, f"AWQ of {shown(bits)} bits")
    return Scheme("awq", 4, _group(found, "group_size" if "group_size" in found else "q_group_size", file))


def _bitsandbytes(found: Mapping[str, Any], file: Path) -> Scheme:
    if not (found.get("load_in_4bit") or found.get("_load_in_4bit")):
        raise _refused(file, "bitsandbytes' 8 bits")
    return Scheme("bitsandbytes")


def _compressed_tensors(found: Mapping[str, Any], file: Path) -> Scheme:
    groups = found.get("config_groups")
    one = next(iter(groups.values())) if isinstance(groups, Mapping) and len(groups) == 1 else None
    if not isinstance(one, Mapping) or not isinstance(one.get("weights"), Mapping):
        raise _refused(file, "compressed-tensors with other than one of `config_groups`")
    form = one.get("format") or found.get("format")
    if form != "pack-quantized":
        raise _refused(file, f"compressed-tensors' `format` {shown(form)}")
    weights = one["weights"]
    if one.get("input_activations") or weights.get("type", "int") != "int" or not weights.get("symmetric", True):
        raise _refused(file, "compressed-tensors' weights that are not symmetric integers alone")
    group = -1 if weights.get("strategy") == "channel" else _group(weights, "group_size", file)
    return Scheme("compressed-tensors", _bits(weights, "num_bits", file), group)


def _bits(found: Mapping[str, Any], key: str, file: Path) -> int:
    bits = found.get(key)
    if bits not in (4, 8) or not isinstance(bits, int):
        raise _refused(file, f"`{key}` {shown(bits)}")
    return bits


def _group(found: Mapping[str, Any], key: str, file: Path) -> int:
    group = found.get(key, -1)
    if group != -1 and not whole_number(group, 1, _LARGEST_GROUP):
        raise ValueError(f"{file}: `{key}` of `{KEY}` is {shown(group)}; expected -1, or how many inputs are a group.")
    return int(group)


def _refused(file: Path, what: str) -> ValueError:
    return ValueError(
        f"{file}: the weights are quantised in a way that is not read: {what}. Read are {_READ}. Take another file of "
        "the model, or the one that this was made from and `quantize`."
    )
