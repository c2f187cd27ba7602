"""Writes tests/fixtures/qwen_vl_processor: a small vocabulary of Qwen-VL's kind, and cases from other code than ours.

The byte pairs are trained by the Rust tokenizers, and the ids of the cases are theirs: paddlemix reads the same
vocabulary with tiktoken. Run from the repository's root: python tests/models/qwen_vl/make_tokenizer_reference.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.models.qwen_vl.tiktoken_file import ranks_of_byte_level
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer
from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer

FOLDER = Path(__file__).parents[2] / "fixtures" / "qwen_vl_processor"
CORPUS = [
    "system user assistant You are a helpful assistant. Picture 1: Picture 2: ",
    "The red circle is on the left, the bus is behind it. Find the bus!",
    "图中有一只猫和一辆红色的巴士。巴士在哪里？",
    "A small green square stands above two blue triangles; nothing else is in this image, and there is no text.",
] * 3
# As the tiny model of the shared fixtures: 384 byte pairs, 16 ids an image, the image's tags from 401 on.
VOCABULARY, N_QUERIES, N_EXTRA_TOKENS = 384, 16, 8
TEXTS = [
    "",
    "\n",
    "Find the bus!",
    "  The red   circle\n\n is on\tthe left, 123 times. ",
    "图中有一只猫吗？\r\n有。",
    "cafe\u0301 \u1112\u1161\u11ab \u212b",
    "👨‍👩‍👧 𠮷",
    "It's HE'LL <b>not</b> a tag",
    "<img>a.png</img><ref>x</ref><|im_end|>",
]


def main() -> None:
    """Train, and write the vocabulary and the cases."""
    backend = untrained_tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    assert backend.get_vocab_size() == VOCABULARY
    settings = {"n_queries": N_QUERIES, "n_extra_tokens": N_EXTRA_TOKENS}
    FOLDER.mkdir(exist_ok=True)
    QwenTokenizer(ranks_of_byte_level(backend.get_vocab()), settings).save_pretrained(FOLDER)
    cases = [{"text": text, "ids": backend.encode(text).ids} for text in TEXTS]
    (FOLDER / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
