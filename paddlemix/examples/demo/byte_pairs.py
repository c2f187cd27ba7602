"""A small byte-level vocabulary of Qwen's kind, trained on the demo's own text."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from paddlemix.processors.qwen_byte_pairs import untrained_tokenizer


def train_byte_pairs(corpus: Path, vocab_size: int) -> Tokenizer:
    """Train byte pairs on the lines of a text file; the single bytes come first, then the pairs as they were merged."""
    backend = untrained_tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    backend.train([str(corpus)], trainer)
    return backend
