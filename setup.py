"""Installs `paddlemix`. `constraints.txt` holds the exact versions that were tested together; `make venv` uses it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# What the library imports, with the bounds that something measured stands behind.
INSTALL_REQUIRES = [
    "av",
    "httpcore>=1",
    "httpx",
    "huggingface-hub",
    "jinja2",
    "json-source-map",
    "matplotlib",
    "ml-dtypes",
    "noto-cjk[sans]",
    "numpy<2",  # PaddleNLP 3.0.0b4 needs numpy 1; numpy 2.4 breaks Paddle 3.3.1 itself
    "opencv-python",
    "orjson",
    "paddlenlp==3.0.0b4",
    "pillow>=10.1,<13",  # Pillow 13 resizes differently from what published models were trained with
    "psutil",
    "pyarrow<21",  # newer ones need numpy 2
    "pycocoevalcap",
    "pydantic-core",
    "pydantic>=2",
    "pyyaml",
    "regex",
    "sacrebleu",
    "safetensors",
    "scipy",
    "tiktoken",
    "tokenizers",
    "tqdm",
    "typing-extensions",
    "visualdl",
]

# What PaddleNLP 3.0.0b4 imports without asking for a version that it works with.
FOR_PADDLENLP = [
    "aistudio-sdk==0.2.6",  # 0.3 has no `hub.download`
    "datasets<4",
    "setuptools<81",  # Paddle imports `setuptools.command.easy_install`, PaddleNLP `distutils` (gone from Python 3.12)
]

EXTRAS_REQUIRE = {
    "cpu": ["paddlepaddle==3.3.1"],
    # Not on PyPI: install it first from Paddle's own index, which has one address per CUDA version. 3.1 fails where a
    # model is loaded (`paddle.empty(device=)`, `paddle.is_autocast_enabled`), 3.2 takes no flash attention under O1, of
    # 3.4 nothing is known.
    "gpu": ["paddlepaddle-gpu>=3.3.1,<3.4"],
    "web": ["gradio>=6,<6.18"],
    "dev": ["hypothesis", "mypy", "packaging", "pre-commit", "pydoclint", "pytest", "pytest-xdist", "ruff"],
}


def read_version() -> str:
    """The version that `paddlemix/__init__.py` states, read without importing it."""
    source = (ROOT / "paddlemix" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
    assert match, "paddlemix/__init__.py states no __version__"
    return match[1]


if __name__ == "__main__":
    setup(
        name="paddlemix",
        version=read_version(),
        description="Vision-language models of the Qwen-VL family in PaddlePaddle: fine-tuning, evaluation, grounding",
        license="Apache-2.0",
        python_requires=">=3.10,<3.13",
        packages=find_packages(include=["paddlemix", "paddlemix.*"]),
        package_data={"paddlemix": ["config/**/*.json"]},
        install_requires=INSTALL_REQUIRES + FOR_PADDLENLP,
        extras_require=EXTRAS_REQUIRE,
    )
