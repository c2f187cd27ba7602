"""How tools end when something is wrong that the user can mend: a sentence, not a stack."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from paddlemix.printable import printable

STACK_VARIABLE = "PADDLEMIX_STACK"
# What a shell shows for a process that SIGINT has ended: 128 and the signal's number.
_INTERRUPTED = 130


class PrintableFormatter(logging.Formatter):
    """Writes lines of a log that no terminal acts upon, whatever was named in them."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line, or several."""
        return printable(super().format(record))


@contextmanager
def report_errors() -> Iterator[None]:
    """Print the message of an error about input and exit with 1; with 130 where Ctrl-C was pressed, as shells expect.

    Errors about input are ValueError (bad values, RecordError and ConfigError among them), OSError (files) and
    MemoryError (a model or a rank that is too large). Others are ours and keep their stack, and so do all where the
    environment sets PADDLEMIX_STACK=1.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("paddlemix").setLevel(logging.INFO)  # what is in effect, such as the bounds of images
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get(STACK_VARIABLE) == "1":
            raise
        print(printable(f"error: {error}"), file=sys.stderr)
        raise SystemExit(1) from error
    except MemoryError as error:
        if os.environ.get(STACK_VARIABLE) == "1":
            raise
        # Paddle puts a stack of its own around the line that says how much was asked for.
        said = next((line for line in str(error).splitlines() if "ResourceExhausted" in line), str(error))
        print(printable(f"error: there is not enough memory. {said}"), file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        if os.environ.get(STACK_VARIABLE) == "1":
            raise
        print("error: interrupted; files and checkpoints that were whole before are as they were.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error
