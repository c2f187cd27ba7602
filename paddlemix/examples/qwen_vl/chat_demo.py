"""Chats with a Qwen-VL in a terminal, about images that you show at any turn; boxes are drawn into files.

Example:
    python paddlemix/examples/qwen_vl/chat_demo.py --model_name_or_path qwen-vl/qwen-vl-chat-7b --output_dir output

    you> /image street.jpg
    Picture 1 is shown with your next question.
    you> 框出图中公交车的位置
    <ref>公交车</ref><box>(178,279),(806,884)</box>
    output/chat_1.jpg: the image with the boxes of this answer
"""

from paddlemix.tools import chat
from paddlemix.tools.report_errors import report_errors

DEFAULT_MODEL = "qwen-vl/qwen-vl-chat-7b"


def main() -> None:
    """Chat with the model that the command line names."""
    chat.main(__doc__, DEFAULT_MODEL)


if __name__ == "__main__":
    with report_errors():
        main()
