"""Chats with a Qwen2.5-VL in a terminal, about images and videos that you show at any turn; boxes are drawn into files.

Example:
    python paddlemix/examples/qwen2_5_vl/chat_demo.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --output_dir output

    you> /image street.jpg
    Picture 1 is shown with your next question.
    you> Locate the bus, in JSON.
    [{"bbox_2d": [114, 182, 516, 574], "label": "bus"}]
    output/chat_1.jpg: the image with the boxes of this answer
    you> /video clip.mp4
    Video 1 is shown with your next question.
    you> Is it in the video too?
"""

from paddlemix.tools import chat
from paddlemix.tools.report_errors import report_errors


def main() -> None:
    """Chat with the model that the command line names."""
    chat.main(__doc__)


if __name__ == "__main__":
    with report_errors():
        main()
