"""Whether an adapter and a base belong together: which weights an adapter was trained on, as far as its norms tell.

AWQ divides inputs by scales that it takes into the norms before them, so that an adapter on its weights sees other
inputs than one on the model that they were made of, of the very same shapes.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import paddle

from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.decoder import DecoderNames
from paddlemix.quantization.scheme import Scheme
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.published import read_whole
from paddlemix.weights.stored_tensor import Source

logger = logging.getLogger(__name__)

_Any = TypeVar("_Any")
_NORMS, _QUANTIZED = "base_norms", "base_quantized"
KEYS = (_NORMS, _QUANTIZED)
# Moves scales into the norms; others leave these alone.
_AWQ = "awq"


@dataclass(frozen=True)
class TrainedOn:
    """What tells a base's weights from those of other models of its shape.

    Attributes:
        norms: SHA-256 of the decoder's norms in bfloat16, so that other precisions of one model are one.
        quantized: who quantised its files, or how they were rounded; "" for plain weights.
    """

    norms: str
    quantized: str = ""

    @classmethod
    def of_model(cls, model: MixPretrainedModel) -> TrainedOn | None:
        """Look at a model that has no adapter yet; None where its parameters have no memory."""
        named = _norms(dict(model.named_parameters()), model.config.decoder_shape.names)
        # A static program's variables are no tensors.
        if not all(isinstance(one, paddle.Tensor) and one._is_initialized() for one in named.values()):
            return None
        digest = _digest((name, one.astype("float32").numpy()) for name, one in named.items())
        return cls(digest, model.quantized_as)

    @classmethod
    def of_files(cls, stored: Mapping[str, Source], names: DecoderNames, scheme: Scheme | None) -> TrainedOn:
        """Look at a checkpoint's tensors, by the parameters that they are for."""
        found = _norms(stored, names)
        digest = _digest((name, read_whole(one, "float32")) for name, one in found.items())
        return cls(digest, "" if scheme is None else scheme.method)

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> TrainedOn | None:
        """Read what an adapter's file says; None where it says nothing, as those of other programs."""
        return cls(texts[_NORMS], texts.get(_QUANTIZED, "")) if _NORMS in texts else None

    @property
    def texts(self) -> dict[str, str]:
        """What an adapter's file says."""
        return {_NORMS: self.norms, _QUANTIZED: self.quantized}


def check_base(adapter: Path, trained_on: TrainedOn | None, base: TrainedOn | None, name: object) -> None:
    """Make sure that an adapter is put on the weights that it was trained on, as far as can be known.

    Args:
        adapter: its folder.
        trained_on: what its file says; None for nothing.
        base: the weights that it is put on; None where they are not there.
        name: of that base.

    Raises:
        ValueError: one of the two is AWQ's, and the norms differ.
    """
    if trained_on is None or base is None or trained_on.norms == base.norms:
        return
    if _AWQ in (trained_on.quantized, base.quantized):
        own, others = (adapter, name) if trained_on.quantized == _AWQ else (name, adapter)
        raise ValueError(
            f"{adapter}: this adapter was not trained on the weights of {name}: {own} has AWQ's, and {others} others. "
            "AWQ moves scales into norms and other layers, so that an adapter fits the weights before it or those "
            "behind it alone. Give the base that it was trained on."
        )
    logger.warning(
        "%s was trained on a model whose norms are other than those of %s; what comes out is right only if both have "
        "the same weights.",
        adapter,
        name,
    )


def _norms(by_name: Mapping[str, _Any], names: DecoderNames) -> dict[str, _Any]:
    """Choose the norms of the decoder's blocks, in an order that does not depend on files."""
    wanted = re.compile(
        rf"(?:.*\.)?{re.escape(names.blocks)}\.\d+\."
        rf"(?:{re.escape(names.attention_norm)}|{re.escape(names.feed_forward_norm)})\.weight"
    )
    return {name: by_name[name] for name in sorted(by_name) if wanted.fullmatch(name)}


def _digest(numbers: Iterable[tuple[str, np.ndarray]]) -> str:
    found = hashlib.sha256()
    for name, array in numbers:
        found.update(name.encode())
        found.update(array.astype(STORED_DTYPES["bfloat16"]).tobytes())
    return found.hexdigest()
