"""The data in a pickle, read without running the pickle.

A pickle is a program: Python's own reader imports and calls whatever it names, and readers that only forbid some names
were broken again and again. This one has no import and no call but those of a table that its caller gives: it knows the
instructions that lay out data, a name stays two words of text, and every other instruction is refused. A pickle cannot
make it work longer than its bytes explain either: each instruction takes the same time, however large what it moves is,
and what all of them may take is bounded.

Source: the instructions are described in CPython's pickletools.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from paddlemix.printable import brief

LONGEST_TEXT = 1 << 12  # bytes; no name of a tensor comes near
LONGEST_WORD = 1 << 8  # bytes of a module's or a function's name
MOST_STREAM = 16 << 20  # bytes beside the numbers; a tensor takes 150
MOST_STACKED = 1 << 16  # values between two marks; writers put 1000 pairs at once
MOST_REMEMBERED = 1 << 19  # values in the memo; a tensor has 10
DEEPEST = 32  # containers in one another; a state dict has 5
MOST_ARGUMENTS = 16
# What reading may take, in bytes of memory: as much as the file has, and the first for small ones. Every instruction
# counts for 64, so that the last bounds their number too, to a million; a tensor has 35. Those that make an object or
# call something take three times as long, and count so.
_ROOM, _MOST_ROOM, _INSTRUCTION, _PLACE, _OBJECT = 8 << 20, 64 << 20, 64, 160, 192


class PickleRefusal(ValueError):
    """A pickle that asks for more than laying out data, or that is damaged."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that were left in the file."""

    offset: int
    length: int


Calls = Mapping[str, Callable[..., Any]]
_CONTAINERS = (dict, list, tuple)
_TOO_MUCH = "holds more than any model's list of tensors; fetch it again, as safetensors if there are any"


def read_pickle(
    file: BinaryIO, calls: Calls, persistent: Callable[[Any], Any] | None = None, *, file_size: int = 0
) -> Any:
    """Read the object that a pickle of protocol 2 to 5 describes.

    Dicts, lists, tuples, texts, numbers, True, False and None are themselves; a byte string is the `Span` where it
    lies, a name a `Name`. A state that the pickle gives to an object is passed to its `set_state`; a dict's is dropped.
    Nothing holds itself, and nothing is nested more than `DEEPEST` deep. But tuples may be long, and one may stand in
    many places: what is called must not copy, compare, hash or print what it has not found to be short.

    Args:
        file: stands at the pickle's first byte; can seek.
        calls: what to call for each dotted name that the pickle may call.
        persistent: gives the object for a persistent id; None refuses such ids.
        file_size: bytes of the file that the pickle describes, if it is larger than the pickle's own.

    Returns:
        The object.

    Raises:
        PickleRefusal: the pickle is damaged, needs what is not in `calls`, or more memory than its file explains.
    """
    machine = _Machine(file, calls, persistent, file_size)
    try:
        return machine.run()
    except PickleRefusal:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise PickleRefusal("damaged or cut off, fetch it again") from error


class _Machine:
    """The stack machine that a pickle is written for, as far as data needs it."""

    def __init__(self, file: BinaryIO, calls: Calls, persistent: Callable[[Any], Any] | None, file_size: int) -> None:
        self.file = file
        here = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(here)
        self.stream_left = MOST_STREAM
        self.room = min(_ROOM + max(self.end - here, file_size), _MOST_ROOM)
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: list[Any] = []
        # Of containers that hold others: how deep they are. Of dicts and lists: those that stand in another one, which
        # change no more, or depths would be wrong. Both by identity, and kept, so that no other takes the same one.
        self.depths: dict[int, tuple[Any, int]] = {}
        self.placed: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self.read(1)) != b".":
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise PickleRefusal(
                    f"holds more than tensors (pickle instruction {code!r}), which is not read; fetch it as safetensors"
                )
            self.spend(_INSTRUCTION)
            instruction(self)
        [result] = self.stack
        if self.below_marks:
            raise IndexError("a mark is left")
        return result

    def spend(self, room: int) -> None:
        self.room -= room
        if self.room < 0:
            raise PickleRefusal(_TOO_MUCH)

    def read(self, length: int) -> bytes:
        self.stream_left -= length
        if self.stream_left < 0:
            raise PickleRefusal(_TOO_MUCH)
        found = self.file.read(length)
        if len(found) != length:
            raise PickleRefusal("cut off, fetch it again")
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def text(self, length: int) -> str:
        if length > LONGEST_TEXT:
            raise PickleRefusal(f"holds a text of {length} bytes, longer than any tensor's name; fetch it again")
        self.spend(_INSTRUCTION + 4 * length)
        return self.read(length).decode("utf-8")

    def integer(self, length: int) -> int:
        self.spend(_INSTRUCTION)
        return int.from_bytes(self.read(length), "little", signed=True)

    def frame(self) -> None:
        # Helps only those who read ahead.
        if self.number("<Q") > self.end - self.file.tell():
            raise PickleRefusal("cut off, fetch it again")

    def span(self, length: int) -> Span:
        self.spend(_OBJECT)
        offset = self.file.tell()
        if length > self.end - offset:
            raise PickleRefusal("cut off, fetch it again")
        self.file.seek(length, os.SEEK_CUR)
        return Span(offset, length)

    def push(self, value: Any) -> None:
        if len(self.stack) == MOST_STACKED:
            raise PickleRefusal(_TOO_MUCH)
        self.stack.append(value)

    def push_tuple(self, items: list[Any]) -> None:
        held = tuple(items)
        self.place(held, items)
        self.push(held)

    def place(self, holder: Any, items: Sequence[Any]) -> None:
        """Note that a container holds items: how deep it is by that, and that they change no more."""
        inner = [item for item in items if type(item) in _CONTAINERS]
        if not inner:
            return
        changing = [item for item in inner if type(item) is not tuple]
        self.spend(_INSTRUCTION * len(inner) + _PLACE * (1 + len(changing)))
        depth = 1 + max(self.depth(item) for item in inner)
        if depth > DEEPEST:
            raise PickleRefusal(f"nested more than {DEEPEST} deep, as no model's tensors are; fetch it again")
        self.placed.update((id(item), item) for item in changing)
        self.depths[id(holder)] = holder, max(depth, self.depth(holder))
        if id(holder) in self.placed:
            raise TypeError("it holds itself")

    def depth(self, container: Any) -> int:
        return self.depths.get(id(container), (None, 1))[1]

    def changing(self, kind: type) -> Any:
        """Return the container on top of the stack, which is to change."""
        target = self.stack[-1]
        if type(target) is not kind or id(target) in self.placed:
            raise TypeError("items of what holds none, or holds all already")
        return target

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        popped = self.stack[-count:]
        del self.stack[-count:]
        return popped

    def mark(self) -> None:
        if len(self.below_marks) == DEEPEST:
            raise PickleRefusal(f"nested more than {DEEPEST} deep, as no model's tensors are; fetch it again")
        self.below_marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        popped, self.stack = self.stack, self.below_marks.pop()
        return popped

    def put(self, index: int) -> None:
        # Every writer numbers what it remembers from 0 on.
        if index != len(self.memo):
            raise IndexError("the memo is not in order")
        if index == MOST_REMEMBERED:
            raise PickleRefusal(_TOO_MUCH)
        self.memo.append(self.stack[-1])

    def set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        # Only texts: to hash or to compare deeply nested keys would overflow the interpreter's own stack.
        if type(self.stack[-1]) is not dict or not all(type(key) is str for key in keys):
            raise PickleRefusal("holds a dict whose keys are no texts, which is not read; fetch it as safetensors")
        target = self.changing(dict)
        self.spend(_PLACE * len(keys))
        self.place(target, values)
        target.update(zip(keys, values, strict=True))

    def extend(self, items: list[Any]) -> None:
        target = self.changing(list)
        self.place(target, items)
        target.extend(items)

    def line(self) -> str:
        found = self.file.readline(LONGEST_WORD)
        self.stream_left -= len(found)
        self.spend(4 * len(found))
        if not found.endswith(b"\n"):
            raise PickleRefusal("damaged or cut off, fetch it again")
        return found[:-1].decode("utf-8")

    def push_name(self, module: Any, name: Any) -> None:
        self.spend(_OBJECT)
        # Nothing else: what is hashed and printed must not be a tuple that holds others, over and over.
        if any(type(word) is not str or not 0 < len(word) <= LONGEST_WORD for word in (module, name)):
            raise TypeError("no name")
        self.push(Name(module, name))

    def reduce(self) -> None:
        self.spend(_OBJECT)
        name, arguments = self.pop(2)
        if type(name) is not Name or str(name) not in self.calls:
            named = brief(str(name)) if type(name) is Name else "something"
            raise PickleRefusal(f"asks to call {named}, which is never done; fetch it as safetensors")
        if type(arguments) is not tuple or len(arguments) > MOST_ARGUMENTS:
            raise TypeError("no arguments")
        self.push(self.calls[str(name)](*arguments))

    def build(self) -> None:
        self.spend(_OBJECT)
        [state] = self.pop(1)
        if type(self.stack[-1]) is not dict:
            self.stack[-1].set_state(state)

    def load_persistent(self) -> None:
        self.spend(_OBJECT)
        [identity] = self.pop(1)
        if self.persistent is None:
            raise PickleRefusal("refers to objects outside of it, which is not read; fetch it as safetensors")
        self.push(self.persistent(identity))


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda machine: machine.number("<B"),  # the protocol
    b"\x95": _Machine.frame,
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"J": lambda machine: machine.push(machine.number("<i")),
    b"K": lambda machine: machine.push(machine.number("<B")),
    b"M": lambda machine: machine.push(machine.number("<H")),
    b"G": lambda machine: machine.push(machine.number(">d")),
    b"\x8a": lambda machine: machine.push(machine.integer(machine.number("<B"))),
    b"\x8c": lambda machine: machine.push(machine.text(machine.number("<B"))),
    b"X": lambda machine: machine.push(machine.text(machine.number("<I"))),
    b"C": lambda machine: machine.push(machine.span(machine.number("<B"))),
    b"B": lambda machine: machine.push(machine.span(machine.number("<I"))),
    b"\x8e": lambda machine: machine.push(machine.span(machine.number("<Q"))),
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b")": lambda machine: machine.push(()),
    b"(": _Machine.mark,
    b"t": lambda machine: machine.push_tuple(machine.pop_to_mark()),
    b"\x85": lambda machine: machine.push_tuple(machine.pop(1)),
    b"\x86": lambda machine: machine.push_tuple(machine.pop(2)),
    b"\x87": lambda machine: machine.push_tuple(machine.pop(3)),
    b"s": lambda machine: machine.set_items(machine.pop(2)),
    b"u": lambda machine: machine.set_items(machine.pop_to_mark()),
    b"a": lambda machine: machine.extend(machine.pop(1)),
    b"e": lambda machine: machine.extend(machine.pop_to_mark()),
    b"q": lambda machine: machine.put(machine.number("<B")),
    b"r": lambda machine: machine.put(machine.number("<I")),
    b"\x94": lambda machine: machine.put(len(machine.memo)),
    b"h": lambda machine: machine.push(machine.memo[machine.number("<B")]),
    b"j": lambda machine: machine.push(machine.memo[machine.number("<I")]),
    b"c": lambda machine: machine.push_name(machine.line(), machine.line()),
    b"\x93": lambda machine: machine.push_name(*machine.pop(2)),
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.load_persistent,
}
