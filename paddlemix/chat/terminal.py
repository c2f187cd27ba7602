"""A chat in a terminal: reads lines, shows answers while they are written, names the files of drawn boxes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from paddlemix.chat.session import ChatSession
from paddlemix.conversation import RecordError
from paddlemix.printable import in_one_line, printable

HELP = """\
Type a question. To show an image or a video with it, write /image or /video and a file or an http(s) address on a line
of its own before, once for each. A Qwen-VL also reads <img>file or address</img> inside the question, and no videos.
  /image PATH     show an image with the next question
  /video PATH     show a video with it; several paths are the images of its frames
  clear           forget what was said and shown
  help            show this
  exit            end; so do Ctrl-D, and Ctrl-C twice while nothing is being answered (it stops an answer otherwise)
"""
PROMPT = "you> "
_IMAGE_COMMAND, _VIDEO_COMMAND = "/image", "/video"


def run_terminal(session: ChatSession, read: Callable[[str], str] = input) -> None:
    """Talk until the user ends it.

    Args:
        session: keeps the conversation.
        read: gives the next line after showing a prompt; raises EOFError or KeyboardInterrupt at the end.
    """
    print(HELP)
    for line in _lines(read):
        if line == "clear":
            session.clear()
            print("Everything is forgotten.")
        elif line == "help":
            print(HELP)
        else:
            _show_or_ask(session, line)
    print("Goodbye.")


def _lines(read: Callable[[str], str]) -> Iterator[str]:
    """Read what the user types, without empty lines, until the end."""
    is_leaving = False
    while True:
        try:
            line = read(PROMPT).strip()
        except KeyboardInterrupt:
            print()
            if is_leaving:
                return
            # It may have been meant for an answer that was over just before.
            print("(Ctrl-C once more ends the chat)")
            is_leaving = True
            continue
        except EOFError:
            print()
            return
        is_leaving = False
        if line in ("/clear", "/help", "/exit"):  # spelled like the commands that show something
            line = line[1:]
        if line == "exit":
            return
        if line:
            yield line


def _show_or_ask(session: ChatSession, line: str) -> None:
    """Do what a line says; what the user can mend is told in a sentence, and the chat goes on."""
    command, _, named = line.partition(" ")
    try:
        if command == _IMAGE_COMMAND:
            _show_image(session, named.strip())
        elif command == _VIDEO_COMMAND:
            _show_video(session, named.strip())
        else:
            _ask(session, line)
    except RecordError as error:  # whose place is this conversation
        print(f"error: {error.problem}")
    except (ValueError, OSError, ImportError) as error:
        print(printable(f"error: {error}"))
    except KeyboardInterrupt:
        print("\n(stopped; this question, and what was shown with it, is forgotten)")


def _show_image(session: ChatSession, named: str) -> None:
    if not named:
        raise ValueError(f"{_IMAGE_COMMAND} names no image; expected {_IMAGE_COMMAND} and a file or an address.")
    words = _words(named)
    number = session.show(words[0] if len(words) == 1 else named)
    print(f"Picture {number} is shown with your next question.")


def _show_video(session: ChatSession, named: str) -> None:
    if not named:
        raise ValueError(
            f"{_VIDEO_COMMAND} names no video; expected {_VIDEO_COMMAND} and a file, an address or files of frames."
        )
    print(f"Video {session.show_video(_words(named))} is shown with your next question.")


def _words(named: str) -> list[str]:
    """Take paths apart as a shell does: a file that is dropped on a terminal comes with quotes or backslashes."""
    if Path(named).expanduser().exists():
        return [named]
    try:
        return shlex.split(named)
    except ValueError:  # a quote that is not closed: part of a name
        return [named]


def _ask(session: ChatSession, question: str) -> None:
    for piece in session.ask(question):
        print(printable(piece), end="", flush=True)
    print()
    for path in session.draw():
        print(f"{in_one_line(str(path))}: the image with the boxes of this answer")
