"""Asks a Qwen-VL about images, prints its answer as it is written, and draws the boxes it names.

Examples:
    python paddlemix/examples/qwen_vl/run_predict.py --model_name_or_path qwen-vl/qwen-vl-7b \\
        --input_image street.jpg --prompt "Generate the caption in English with grounding:" --dtype bfloat16
    python paddlemix/examples/qwen_vl/run_predict.py --model_name_or_path qwen-vl/qwen-vl-chat-7b \\
        --input_image street.jpg --prompt "框出图中公交车的位置" --output_dir output
"""

from paddlemix.tools import predict
from paddlemix.tools.report_errors import report_errors

SCRIPT = predict.Script(__doc__, default_model="qwen-vl/qwen-vl-7b")

if __name__ == "__main__":
    with report_errors():
        predict.main(SCRIPT)
