"""Asks a Qwen2.5-VL about images or a video, prints its answer as it is written, and draws the boxes it names.

Examples:
    python paddlemix/examples/qwen2_5_vl/run_predict.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --input_image street.jpg --prompt "Locate every bus, in JSON." --output_dir output
    python paddlemix/examples/qwen2_5_vl/run_predict.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --input_image before.jpg after.jpg --prompt "What has changed?"
    FPS=1 python paddlemix/examples/qwen2_5_vl/run_predict.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --input_video clip.mp4 --prompt "What happens, and when?"
"""

from paddlemix.tools import predict
from paddlemix.tools.report_errors import report_errors

SCRIPT = predict.Script(__doc__, takes_videos=True, needs_media=True)

if __name__ == "__main__":
    with report_errors():
        predict.main(SCRIPT)
