"""What must be settled before forking processes that share all that this one has loaded."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TOKENIZERS = "TOKENIZERS_PARALLELISM"
# Python 3.12 starts with some 400 objects frozen; whoever freezes a program's own has thousands.
_PYTHONS_OWN = 1000


@contextmanager
def ready_to_fork() -> Iterator[None]:
    """Let processes that are forked within tokenize in one thread each, and leave this one's objects alone.

    They share the cores already; the tokenizers' own threads do not survive a fork, and they warn of it where nothing
    is set. Objects in cycles are destroyed by whichever process collects next: a forked one that destroyed one of
    PyAV's scalers waited for ever for that scaler's threads, which only this process has.

    Yields:
        Nothing.
    """
    before, is_frozen = os.environ.get(_TOKENIZERS), gc.get_freeze_count() > _PYTHONS_OWN
    os.environ[_TOKENIZERS] = "false"
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:
            gc.unfreeze()
        if before is None:
            del os.environ[_TOKENIZERS]
        else:
            os.environ[_TOKENIZERS] = before
