"""Chats with a model in a terminal, about images and videos that you show at any turn; boxes are drawn into files.

Example:
    python paddlemix/tools/chat.py --model_name_or_path output/demo/model --output_dir output

    you> /image street.jpg
    Picture 1 is shown with your next question.
    you> Find the bus.
    <|object_ref_start|>bus<|object_ref_end|><|box_start|>(178,279),(806,884)<|box_end|>
    output/chat_1.jpg: the image with the boxes of this answer
"""

from __future__ import annotations

import argparse
from contextlib import closing

from paddlemix.chat.session import ChatSession
from paddlemix.chat.terminal import HELP, run_terminal
from paddlemix.tools.answering import AskedModel, add_model_flags
from paddlemix.tools.report_errors import report_errors


def main(description: str = __doc__, default_model: str | None = None) -> None:
    """Load, talk.

    Args:
        description: the text of --help.
        default_model: the model where none is named; None makes naming one a duty.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: a setting makes no sense here.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser, default_model)
    args = parser.parse_args()
    with closing(ChatSession(AskedModel.of(args).load(), args.output_dir)) as session:
        run_terminal(session)


if __name__ == "__main__":
    with report_errors():
        main()
