from base64 import b64encode

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from paddlemix.models.qwen_vl.tiktoken_file import ranks_of_byte_level, read_ranks, write_ranks

BYTES = {bytes([byte]): byte for byte in range(256)}


def lines(ranks):
    return [b64encode(token).decode() + f" {rank}" for token, rank in ranks.items()]


def test_a_written_vocabulary_is_read_again_in_the_order_of_its_ranks(tmp_path):
    ranks = {b"ab": 256, **BYTES}
    write_ranks(tmp_path / "qwen.tiktoken", ranks)
    assert read_ranks(tmp_path / "qwen.tiktoken") == ranks
    assert (tmp_path / "qwen.tiktoken").read_text().splitlines() == lines({**BYTES, b"ab": 256})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "qwen.tiktoken: holds no content, only the pointer",
        ),
        ("IQ== 0\n!!! 1\n", "qwen.tiktoken:2: .* is no token"),
        ("IQ== 0\nIg== one\n", "qwen.tiktoken:2: .* is no token"),
        ("IQ== 0\n", "255 of the 256 bytes are no token, the first of them 0"),
        ("", "256 of the 256 bytes are no token"),
        ("\n".join(lines({**BYTES, b"ab": 300})), "the ranks of 257 tokens are not 0 to 256"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content, problem):
    (tmp_path / "qwen.tiktoken").write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_ranks(tmp_path / "qwen.tiktoken")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no qwen\.tiktoken"):
        read_ranks(tmp_path / "qwen.tiktoken")


def test_byte_level_names_become_their_bytes():
    names = {name: rank for rank, name in enumerate(sorted(ByteLevel.alphabet()))}
    ranks = ranks_of_byte_level({**names, "Ġthe": 256, "çĮ«": 257})
    assert len(ranks) == 258 and {token for token in ranks if len(token) == 1} == set(BYTES)
    assert ranks[b"!"] == 0
    assert (ranks[b" the"], ranks["猫".encode()]) == (256, 257)
