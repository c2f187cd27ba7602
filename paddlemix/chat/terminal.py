"""A chat in a terminal: reads lines, shows answers while they are written, names the files of drawn boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from paddlemix.chat.session import ChatSession

HELP = """\
Type a question. To show an image with it, write /image and a file or an http(s) address on a line of its own before,
once for each image. A Qwen-VL also reads <img>file or address</img> inside the question.
  /image PATH   show an image with the next question
  clear         forget what was said and shown
  help          show this
  exit          end; so do Ctrl-D, and Ctrl-C while nothing is being answered (it stops an answer otherwise)
"""
PROMPT = "you> "
_IMAGE_COMMAND = "/image"


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
    while True:
        try:
            line = read(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line == "exit":
            return
        if line:
            yield line


def _show_or_ask(session: ChatSession, line: str) -> None:
    """Do what a line says; what the user can mend is told in a sentence, and the chat goes on."""
    command, _, path = line.partition(" ")
    try:
        if command == _IMAGE_COMMAND:
            _show(session, path)
        else:
            _ask(session, line)
    except (ValueError, OSError) as error:
        print(f"error: {error}")
    except KeyboardInterrupt:
        print("\n(stopped; this line is forgotten)")


def _show(session: ChatSession, path: str) -> None:
    path = path.strip().strip("'\"")  # a file that is dropped on a terminal comes with quotes
    if not path:
        raise ValueError(f"{_IMAGE_COMMAND} names no image; expected {_IMAGE_COMMAND} and a file or an address.")
    print(f"Picture {session.show(path)} is shown with your next question.")


def _ask(session: ChatSession, question: str) -> None:
    for piece in session.ask(question):
        print(piece, end="", flush=True)
    print()
    for path in session.draw():
        print(f"{path}: the image with the boxes of this answer")
