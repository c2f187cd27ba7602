"""Denormal numbers, in float32 those below 1.2e-38, as 0: whether they are is a setting of each thread (MXCSR).

Some processors, Intel's among them, take a hundred times as long for them. A new thread and a forked process take the
setting over from the thread that starts them.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import numpy as np

logger = logging.getLogger(__name__)

# "keep" leaves all threads as they are, those of the built ops too.
CHOICE_VARIABLE, FLUSH, KEEP = "PADDLEMIX_DENORMALS", "flush", "keep"
# MXCSR's bits that make results (FTZ) and operands (DAZ) 0, and its place in C's `fenv_t` on x86-64.
_FLUSHED = 0x8040
_MXCSR, _WORDS = 7, 8


@cache
def _warn_once(choice: str) -> None:
    logger.warning(
        "%s is %r, which is neither %r nor %r: denormal numbers are flushed to 0.", CHOICE_VARIABLE, choice, FLUSH, KEEP
    )


def are_to_be_flushed(environ: Mapping[str, str]) -> bool:
    """Tell whether the user lets denormals be 0, which is the default; warn once of a word that says neither."""
    choice = environ.get(CHOICE_VARIABLE, FLUSH)
    if choice not in (FLUSH, KEEP):
        _warn_once(choice)
    return choice != KEEP


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Let denormals be 0 in this thread, and in those that it starts within, unless the environment says otherwise.

    Paddle's own ops compute in this thread, its products on those of OpenMP, which take the setting over at each call.
    The built ops flush by themselves.

    Yields:
        Nothing.
    """
    library, before = _mathematics(), are_flushed()
    if library is None or before or not are_to_be_flushed(os.environ):
        yield
        return
    _describe_dtypes()
    _set(library, True)
    try:
        yield
    finally:
        _set(library, before)


def are_flushed() -> bool:
    """Tell whether denormals are 0 in this thread."""
    library = _mathematics()
    return library is not None and _read(library)[_MXCSR] & _FLUSHED == _FLUSHED


def _set(library: ctypes.CDLL, flushed: bool) -> None:
    environment = _read(library)
    environment[_MXCSR] = environment[_MXCSR] | _FLUSHED if flushed else environment[_MXCSR] & ~_FLUSHED
    library.fesetenv(environment)


@cache
def _describe_dtypes() -> None:
    """Let NumPy describe its dtypes while it can: of a smallest denormal of 0 it would warn. It keeps what it found."""
    for dtype in (np.float16, np.float32, np.float64):
        np.finfo(dtype)


def _read(library: ctypes.CDLL) -> ctypes.Array[ctypes.c_uint32]:
    environment = (ctypes.c_uint32 * _WORDS)()
    library.fegetenv(environment)
    return environment


@cache
def _mathematics() -> ctypes.CDLL | None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    # The C library's own, which Python is linked with.
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fesetenv") else None
