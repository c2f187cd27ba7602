"""How much a chat template may do: a budget of work, of which every step and all that grows is paid before it is done.

A template is a program of a stranger's. jinja2's sandbox keeps it from everything outside of it, and lets it loop, call
itself and multiply texts for as long as it likes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sized
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

# Units: a node of the template that is run, a character that is written. Published templates take some hundreds of
# them a turn.
_WORK = 2_000_000
_WORK_PER_CHARACTER = 64
# Of time, which bounds what the units do not weigh right: first on the wall, then as much of the thread's own, which
# other programs do not shorten, but which costs more to ask for than most templates take.
_SECONDS = 1.0
_SECONDS_PER_CHARACTER = 5e-6
# Units between two looks at the clock.
_LOOK_AFTER = 20_000
# What an item of a list takes, in characters.
_ITEM = 16
# Whole numbers of more bits have no use in a template, and their powers fill memory.
_MOST_BITS = 4096
_LONG_NUMBER = re.compile(r"\d{4}")


class OverBudget(TemplateError):
    """A template does more than a template may."""


class Budget:
    """What is left of a rendering's work.

    Args:
        given: the values that the template is rendered with; larger ones may take more work.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given: Mapping[str, Any] | None = given  # None once it has counted: what is ordinary needs no more
        self._left = _WORK
        self._seconds = _SECONDS
        self._until = time.perf_counter() + _SECONDS
        self._own_until: float | None = None
        self._look_at = self._left - _LOOK_AFTER

    def spend(self, units: int) -> None:
        """Pay for work that is about to be done.

        Args:
            units: of work.

        Raises:
            OverBudget: less is left, in units or in time.
        """
        self._left -= units
        if self._left < self._look_at:
            if self._is_spent() and not (self._grows() and not self._is_spent()):
                raise OverBudget(
                    "it does more work than any template needs (loops, or texts that grow); take the published "
                    "checkpoint's"
                )
            self._look_at = self._left - _LOOK_AFTER

    def spend_on_text(self, value: Any, *, times: int = 1, a_level: int = 0) -> None:
        """Pay for writing a value as text, with all that it holds.

        Args:
            value: any.
            times: how much longer the text may be than what it is made of.
            a_level: characters that stand in front of each value for each level that it is within others.

        Raises:
            OverBudget: less is left.
        """
        if isinstance(value, str):
            self.spend(times * len(value))
            return
        units = times * measured(value, limit=self._left // times + 1, a_level=a_level)
        if units > self._left and self._grows():
            units = times * measured(value, limit=self._left // times + 1, a_level=a_level)
        self.spend(units)

    def _is_spent(self) -> bool:
        if self._left < 0 or time.perf_counter() < self._until:
            return self._left < 0
        if self._own_until is None:
            self._own_until = time.thread_time() + self._seconds
        return time.thread_time() > self._own_until

    def _grows(self) -> bool:
        """Add what the size of the values allows for, once; tell whether anything was added."""
        if self._given is None:
            return False
        size, self._given = measured(self._given), None
        self._left += _WORK_PER_CHARACTER * size
        self._seconds += _SECONDS_PER_CHARACTER * size
        self._own_until = None
        return True


_BUDGET: ContextVar[Budget | None] = ContextVar("budget of a chat template", default=None)


def begin(given: Mapping[str, Any]) -> None:
    """Give a rendering, the one that is about to begin in this thread, its budget.

    Args:
        given: the values that the template is rendered with.
    """
    _BUDGET.set(Budget(given))


def budget() -> Budget:
    """Return the budget of the rendering that is under way in this thread."""
    found = _BUDGET.get()
    assert found is not None, "a rendering begins with its budget"
    return found


def cost(value: Any) -> int:
    """Count units for making a value, without what its items hold."""
    if isinstance(value, str):
        return len(value)
    return _ITEM * len(value) if isinstance(value, Sized) else 1


def measured(value: Any, *, limit: float = float("inf"), a_level: int = 0) -> int:
    """Count the characters of a value written as text; what is held twice is counted twice.

    Args:
        value: any; one that holds itself has no end.
        limit: where counting stops.
        a_level: as in `Budget.spend_on_text`.

    Returns:
        About so many characters; more than `limit` where there are more.
    """
    total, pending = 0, [(value, 0)]
    while pending and total <= limit:
        one, level = pending.pop()
        total += a_level * level
        if isinstance(one, str):
            total += len(one) + 2
        elif isinstance(one, Mapping):
            total += _ITEM
            pending += [(part, level + 1) for pair in one.items() for part in pair]
        elif isinstance(one, (list, tuple, set, frozenset)):
            total += _ITEM
            pending += [(part, level + 1) for part in one]
        elif isinstance(one, Namespace):
            total += _ITEM
            pending.append((vars(one).get("_Namespace__attrs", {}), level + 1))
        elif isinstance(one, int):
            total += one.bit_length() // 3 + 1
        else:
            total += 4 * _ITEM
    return total


def spend_on_operator(operator: str, left: Any, right: Any) -> None:
    """Pay for what an operator between two values makes.

    Args:
        operator: such as "*".
        left: of it.
        right: of it.

    Raises:
        OverBudget: less is left, or a number gets too long.
    """
    if operator == "+" and isinstance(left, str) and isinstance(right, str):
        budget().spend(len(left) + len(right))
    elif isinstance(left, int) and isinstance(right, int):
        bits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * max(right, 1)}
        if bits.get(operator, 0) > _MOST_BITS:
            raise OverBudget(f"it computes a number of more than {_MOST_BITS} bits")
    elif operator == "%" and isinstance(left, str):
        spend_on_format(left, right)
    elif operator == "*":
        many, times = (left, right) if isinstance(right, int) else (right, left)
        budget().spend(cost(many) * max(int(times), 0) if isinstance(times, int) else 1)
    elif operator == "+":
        budget().spend(cost(left) + cost(right))


def spend_on_format(form: str, values: Any) -> None:
    """Pay for values put into a text.

    Args:
        form: of `%` or of `str.format`.
        values: all of them.

    Raises:
        OverBudget: less is left, or a value would be filled up to a great width.
    """
    if _LONG_NUMBER.search(form) or "*" in form or re.search(r"\{[^{}]*\{", form):
        raise OverBudget(f"it fills values up to a width that is great or not said, in {form[:80]!r}")
    budget().spend_on_text(values, times=2 * (form.count("%") + form.count("{")) + 1)
    budget().spend(len(form))
