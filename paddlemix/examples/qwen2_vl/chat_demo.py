"""Chats with a Qwen2-VL in a terminal, about images and videos that you show at any turn; boxes are drawn into files.

Example:
    python paddlemix/examples/qwen2_vl/chat_demo.py --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --output_dir output

    you> /image street.jpg
    Picture 1 is shown with your next question.
    you> Find the bus.
    <|object_ref_start|>bus<|object_ref_end|><|box_start|>(178,279),(806,884)<|box_end|>
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
