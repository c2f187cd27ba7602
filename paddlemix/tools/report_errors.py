"""How tools end when something is wrong that the user can mend: a sentence, not a stack."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STACK_VARIABLE = "PADDLEMIX_STACK"
# What a shell shows for a process that SIGINT has ended: 128 and the signal's number.
_INTERRUPTED = 130


@contextmanager
def report_errors() -> Iterator[None]:
    """Print the message of an error about input and exit with 1; with 130 where Ctrl-C was pressed, as shells expect.

    Errors about input are ValueError (bad values, RecordError and ConfigError among them) and OSError (files). Others
    are ours and keep their stack, and so do all where the environment sets PADDLEMIX_STACK=1.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("paddlemix").setLevel(logging.INFO)  # what is in effect, such as the bounds of images
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get(STACK_VARIABLE) == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        if os.environ.get(STACK_VARIABLE) == "1":
            raise
        print("error: interrupted; files and checkpoints that were whole before are as they were.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error
