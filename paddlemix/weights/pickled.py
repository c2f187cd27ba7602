"""The data in a pickle, read without running the pickle.

A pickle is a program: Python's own reader imports and calls whatever it names, and readers that only forbid some names
were broken again and again. This one has no import and no call but those of a table that its caller gives: it knows the
instructions that lay out data, a name stays two words of text, and every other instruction is refused.

Source: the instructions are described in CPython's pickletools.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

LONGEST_TEXT = 1 << 16  # bytes; no name of a tensor comes near


class PickleRefusal(ValueError):
    """A pickle that asks for more than laying out data, or that is damaged."""


@dataclass(frozen=True)
class Name:
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Span:
    """Bytes that were left in the file."""

    offset: int
    length: int


Calls = Mapping[str, Callable[..., Any]]


def read_pickle(file: BinaryIO, calls: Calls, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read the object that a pickle of protocol 2 to 5 describes.

    Dicts, lists, tuples, texts, numbers, True, False and None are themselves; a byte string is the `Span` where it
    lies, a name a `Name`. A state that the pickle gives to an object is passed to its `set_state`; a dict's is dropped.

    Args:
        file: stands at the pickle's first byte; can seek.
        calls: what to call for each dotted name that the pickle may call.
        persistent: gives the object for a persistent id; None refuses such ids.

    Returns:
        The object.

    Raises:
        PickleRefusal: the pickle is damaged, or needs what is not in `calls`.
    """
    machine = _Machine(file, calls, persistent)
    try:
        return machine.run()
    except PickleRefusal:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise PickleRefusal("damaged or cut off, fetch it again") from error


class _Machine:
    """The stack machine that a pickle is written for, as far as data needs it."""

    def __init__(self, file: BinaryIO, calls: Calls, persistent: Callable[[Any], Any] | None) -> None:
        self.file = file
        here = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(here)
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: list[Any] = []

    def run(self) -> Any:
        while (code := self.read(1)) != b".":
            if code not in _INSTRUCTIONS:
                raise PickleRefusal(f"holds more than tensors (pickle instruction {code!r}), which is not read")
            _INSTRUCTIONS[code](self)
        [result] = self.stack
        return result

    def read(self, length: int) -> bytes:
        found = self.file.read(length)
        if len(found) != length:
            raise PickleRefusal("cut off, fetch it again")
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def text(self, length: int) -> str:
        if length > LONGEST_TEXT:
            raise PickleRefusal(f"holds a text of {length} bytes, longer than any tensor's name")
        return self.read(length).decode("utf-8")

    def span(self, length: int) -> Span:
        offset = self.file.tell()
        if length > self.end - offset:
            raise PickleRefusal("cut off, fetch it again")
        self.file.seek(length, os.SEEK_CUR)
        return Span(offset, length)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        split = len(self.stack) - count
        self.stack, popped = self.stack[:split], self.stack[split:]
        return popped

    def mark(self) -> None:
        self.below_marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        popped, self.stack = self.stack, self.below_marks.pop()
        return popped

    def put(self, index: int) -> None:
        # Every writer numbers what it remembers from 0 on.
        if index != len(self.memo):
            raise IndexError("the memo is not in order")
        self.memo.append(self.stack[-1])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only texts: to hash or to compare deeply nested keys would overflow the interpreter's own stack.
            if type(target) is not dict or type(key) is not str:
                raise PickleRefusal("holds a dict whose keys are no texts, which is not read")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items of what is no list")
        self.stack[-1].extend(items)

    def line(self) -> str:
        return self.file.readline(LONGEST_TEXT).decode("utf-8").rstrip("\n")

    def reduce(self) -> None:
        name, arguments = self.pop(2)
        if type(name) is not Name or str(name) not in self.calls:
            raise PickleRefusal(f"asks to call {name if type(name) is Name else 'something'}, which is never done")
        self.push(self.calls[str(name)](*arguments))

    def build(self) -> None:
        [state] = self.pop(1)
        if type(self.stack[-1]) is not dict:
            self.stack[-1].set_state(state)

    def load_persistent(self) -> None:
        [identity] = self.pop(1)
        if self.persistent is None:
            raise PickleRefusal("refers to objects outside of it, which is not read")
        self.push(self.persistent(identity))


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda machine: machine.number("<B"),  # the protocol
    b"\x95": lambda machine: machine.number("<Q"),  # a frame's length, which helps only those who read ahead
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"J": lambda machine: machine.push(machine.number("<i")),
    b"K": lambda machine: machine.push(machine.number("<B")),
    b"M": lambda machine: machine.push(machine.number("<H")),
    b"G": lambda machine: machine.push(machine.number(">d")),
    b"\x8a": lambda machine: machine.push(int.from_bytes(machine.read(machine.number("<B")), "little", signed=True)),
    b"\x8c": lambda machine: machine.push(machine.text(machine.number("<B"))),
    b"X": lambda machine: machine.push(machine.text(machine.number("<I"))),
    b"C": lambda machine: machine.push(machine.span(machine.number("<B"))),
    b"B": lambda machine: machine.push(machine.span(machine.number("<I"))),
    b"\x8e": lambda machine: machine.push(machine.span(machine.number("<Q"))),
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b")": lambda machine: machine.push(()),
    b"(": _Machine.mark,
    b"t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    b"\x85": lambda machine: machine.push(tuple(machine.pop(1))),
    b"\x86": lambda machine: machine.push(tuple(machine.pop(2))),
    b"\x87": lambda machine: machine.push(tuple(machine.pop(3))),
    b"s": lambda machine: machine.set_items(machine.pop(2)),
    b"u": lambda machine: machine.set_items(machine.pop_to_mark()),
    b"a": lambda machine: machine.extend(machine.pop(1)),
    b"e": lambda machine: machine.extend(machine.pop_to_mark()),
    b"q": lambda machine: machine.put(machine.number("<B")),
    b"r": lambda machine: machine.put(machine.number("<I")),
    b"\x94": lambda machine: machine.put(len(machine.memo)),
    b"h": lambda machine: machine.push(machine.memo[machine.number("<B")]),
    b"j": lambda machine: machine.push(machine.memo[machine.number("<I")]),
    b"c": lambda machine: machine.push(Name(machine.line(), machine.line())),
    b"\x93": lambda machine: machine.push(Name(*machine.pop(2))),
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.load_persistent,
}
