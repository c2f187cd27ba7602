"""safetensors files: the header's length, a JSON header that says what lies where, the numbers.

The header is read tensor by tensor, so that a bad one ends the reading where it stands, and nothing is held but what a
tensor needs. The library would map the whole file into memory, where a file that shrinks meanwhile ends the process.

Source: the format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, TypeGuard

from paddlemix.files import open_regular, refuse_pointer
from paddlemix.printable import brief
from paddlemix.weights.dtypes import SAFETENSORS_CODES, STORED_DTYPES
from paddlemix.weights.stored_tensor import MOST_AXES, MOST_NUMBERS, MOST_TENSORS, StoredTensor

MOST_HEADER = 16 << 20  # bytes; a tensor takes 150
_LONGEST_TEXT = 4 << 20  # bytes; writers put settings of their training beside the tensors
_LENGTH = 8  # bytes of the header's length
_METADATA = "__metadata__"
_FORMAT = "format"  # the text that says how matrices lie
_DTYPES = {code: dtype for dtype, code in SAFETENSORS_CODES.items()}
# The format's other kinds of numbers, which nothing here reads.
_OTHERS = {"C64": 64, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
_BITS = {code: STORED_DTYPES[dtype].itemsize * 8 for code, dtype in _DTYPES.items()} | _OTHERS
# Who writes these words as the file's `format` keeps a linear layer's weight as [in, out]: Paddle, and PaddleNLP and
# PaddleFormers ("np"). They save bfloat16, of which numpy has none, as the unsigned integers of the same bits.
_PADDLES_FORMATS = ("pd", "np")
_PADDLES_DTYPES = {**_DTYPES, "U16": "bfloat16"}

# All take the spaces before them.
_SPACE = rb"[ \t\r\n]*"
_OPEN, _CLOSE, _COLON, _COMMA, _QUOTE = (
    re.compile(_SPACE + rb"(" + sign + rb")") for sign in (rb"\{", rb"\}", rb":", rb",", rb'"')
)
_NULL = re.compile(_SPACE + rb"(null)")
_FLAT = re.compile(_SPACE + rb"(\{[^{}]{0,1024}\})")  # what is said of a tensor; no name in it has braces
_FLAT_DECODER = json.JSONDecoder(object_pairs_hook=list, parse_constant=str)


class _Damage(ValueError):
    """A header that no writer of the format writes."""


def read_safetensors_file(file: Path) -> list[StoredTensor]:
    """List the tensors of a safetensors file.

    Args:
        file: such as model.safetensors.

    Returns:
        Where the tensors lie, in the header's order.

    Raises:
        ValueError: it is damaged: a header that is none, or tensors that do not fill the file without gap and overlap.
    """
    return _read(file)[0]


def read_texts(file: Path, keys: Collection[str]) -> dict[str, str]:
    """Read what a safetensors file says beside its tensors.

    Args:
        file: such as adapter_model.safetensors.
        keys: of the texts that are wanted; no others are held.

    Returns:
        Those that it has, by key.

    Raises:
        ValueError: as `read_safetensors_file`.
    """
    return {key: text for key, text in _read(file, keys)[1].items() if key in keys}


def _read(file: Path, keys: Collection[str] = ()) -> tuple[list[StoredTensor], dict[str, str]]:
    refuse_pointer(file)
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        length = int.from_bytes(opened.read(_LENGTH), "little")
        if size < _LENGTH or length > size - _LENGTH:
            raise ValueError(f"{file}: damaged or cut off, fetch it again (its header would not end within it).")
        if length > MOST_HEADER:
            raise ValueError(
                f"{file}: its header is said to have {length} bytes, which no model's has; expected {MOST_HEADER} at "
                "most. Fetch it again."
            )
        header = opened.read(length)
    try:
        return _tensors(file, header, size, {_FORMAT, *keys})
    except (_Damage, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        said = str(error) if type(error) is _Damage else "its header is not the format's JSON"
        raise ValueError(f"{file}: damaged or cut off, fetch it again ({said}).") from error


class _Place(NamedTuple):
    begin: int
    end: int
    code: str
    shape: tuple[int, ...]


class _Header:
    """The header's text, taken from its beginning on."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def take(self, pattern: re.Pattern[bytes]) -> bytes | None:
        """Go behind what matches here, if it does."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[1]

    def need(self, pattern: re.Pattern[bytes]) -> bytes:
        """Go behind what must match here."""
        found = self.take(pattern)
        if found is None:
            raise _Damage(f"its header is not the format's JSON from byte {self._at} on")
        return found

    def text(self) -> str:
        """Take a string."""
        self.need(_QUOTE)
        start = end = self._at
        while True:
            end = self._text.find(b'"', end)
            if not 0 <= end - start <= _LONGEST_TEXT:
                raise _Damage("a text in its header does not end, or is too long")
            if self._backslashes_before(end) % 2 == 0:
                break
            end += 1
        self._at = end + 1
        return str(json.loads(self._text[start - 1 : end + 1].decode("utf-8")))

    def _backslashes_before(self, end: int) -> int:
        begin = end
        while self._text[begin - 1] == ord("\\"):
            begin -= 1
        return end - begin

    def keys(self) -> Iterator[str]:
        """Take an object key by key; its value must have been taken before the next one is asked for."""
        known: set[str] = set()
        self.need(_OPEN)
        if self.take(_CLOSE) is not None:
            return
        while True:
            key = self.text()
            if key in known:
                raise _Damage(f"{brief(key)!r} stands there twice")
            if len(known) > MOST_TENSORS:
                raise _Damage(f"its header has more than {MOST_TENSORS} keys, as no model's has")
            known.add(key)
            self.need(_COLON)
            yield key
            if self.take(_COMMA) is None:
                self.need(_CLOSE)
                return

    def require_end(self) -> None:
        """Make sure that nothing but spaces follows."""
        if self._text[self._at :].strip(b" \t\r\n"):
            raise _Damage("something follows its header")


def _tensors(file: Path, header: bytes, size: int, keys: Collection[str]) -> tuple[list[StoredTensor], dict[str, str]]:
    places: dict[str, _Place] = {}
    texts: dict[str, str] = {}
    left = _Header(header)
    for name in left.keys():  # noqa: SIM118 - no mapping
        if name == _METADATA:
            texts = _texts(left, keys)
        else:
            places[name] = _place(name, left.need(_FLAT))
    left.require_end()
    first = _LENGTH + len(header)
    _check_places(places, size - first)
    in_paddles_order = texts.get(_FORMAT) in _PADDLES_FORMATS
    dtypes = _PADDLES_DTYPES if in_paddles_order else _DTYPES
    tensors = [
        StoredTensor(name, file, first + one.begin, one.shape, dtypes.get(one.code, one.code), in_paddles_order)
        for name, one in places.items()
    ]
    return tensors, texts


def _texts(left: _Header, keys: Collection[str]) -> dict[str, str]:
    """Take the texts that a writer put beside the tensors, and return those that are wanted."""
    if left.take(_NULL) is not None:
        return {}
    found = {}
    for key in left.keys():  # noqa: SIM118 - no mapping
        text = left.text()
        if key in keys:
            found[key] = text
    return found


def _place(name: str, flat: bytes) -> _Place:
    """Read what the header says of a tensor."""
    pairs = _FLAT_DECODER.decode(flat.decode("utf-8"))
    said = dict(pairs)
    code, shape, place = (said.get(key) for key in ("dtype", "shape", "data_offsets"))
    if len(said) != len(pairs) or type(code) is not str or code not in _BITS:
        raise _Damage(f"{brief(name)!r} has no dtype of the format, or a key twice")
    if not _are_counts(shape) or len(shape) > MOST_AXES or math.prod(size or 1 for size in shape) >= MOST_NUMBERS:
        raise _Damage(f"{brief(name)!r} has no shape of a model's tensor")
    if not _are_counts(place) or len(place) != 2:
        raise _Damage(f"{brief(name)!r} has no data_offsets")
    begin, end = place
    if (end - begin) * 8 != math.prod(shape) * _BITS[code]:
        raise _Damage(f"{brief(name)!r} has another number of bytes than its shape needs")
    return _Place(begin, end, code, tuple(shape))


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return type(value) is list and all(type(one) is int and 0 <= one < 1 << 63 for one in value)


def _check_places(places: dict[str, _Place], size: int) -> None:
    """Check that tensors fill the file without gap and overlap."""
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][:2]):
        if place.begin != end or place.end < place.begin:
            raise _Damage(f"{brief(name)!r} does not begin where the tensor before it ends")
        end = place.end
    if end != size:
        raise _Damage(f"its tensors take {end} bytes, the file has {size} for them")
