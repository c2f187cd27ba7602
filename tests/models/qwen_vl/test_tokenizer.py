import copy
import json
import pickle
import unicodedata
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.contract import Piece
from paddlemix.models.qwen_vl.tags import GROUNDING_TAGS, ImageSpan
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

# The ids of the small vocabulary: 384 byte pairs, 3 control tokens, 8 extras, 6 tags of names and boxes, 3 of images.
IM_START, IM_END, REF, REF_END, IMG, IMG_END, PAD = 385, 386, 395, 396, 401, 402, 403
SPECIAL_WORDS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<imgpad>", "<ref>", "</box>"]
# What the original refuses to encode, and what happens here; each has a test of its own below.
NOT_FOLLOWED = {"The content in <img>..</img> is too long", "expected a bytes-like object"}


class TestSmallVocabulary:
    def test_texts_have_the_ids_that_the_rust_tokenizer_gives_them(self, qwen_reference, qwen_tokenizer):
        cases = json.loads((qwen_reference / "cases.json").read_text("utf-8"))
        assert len(cases) == 9
        for case in cases:
            assert qwen_tokenizer.encode(case["text"]) == case["ids"]
            assert qwen_tokenizer.decode(case["ids"]) == unicodedata.normalize("NFC", case["text"])

    def test_special_tokens_follow_the_vocabulary_in_the_published_order(self, qwen_tokenizer):
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>", "<|extra_7|>", "<ref>", "</quad>"]
        assert [qwen_tokenizer.token_id(name) for name in names] == [384, 385, 386, 387, 394, 395, 400]
        assert (qwen_tokenizer.img_start_id, qwen_tokenizer.img_end_id, qwen_tokenizer.img_pad_id) == (401, 402, 403)
        assert len(qwen_tokenizer) == 404
        assert (qwen_tokenizer.pad_token_id, qwen_tokenizer.eos_token_id) == (384, 386)

    def test_special_tokens_are_text_unless_they_are_asked_for(self, qwen_tokenizer):
        text = "<|im_end|><ref>x</ref>"
        assert max(qwen_tokenizer.encode(text)) < qwen_tokenizer.eod_id
        assert qwen_tokenizer.encode(text, allowed_special="all") == [IM_END, REF, 87, REF_END]
        only_grounding = qwen_tokenizer.encode(text, allowed_special=GROUNDING_TAGS)
        assert only_grounding == [*qwen_tokenizer.encode("<|im_end|>"), REF, 87, REF_END]

    def test_an_image_is_the_bytes_of_its_path_between_its_tags(self, qwen_tokenizer):
        ids = qwen_tokenizer.encode("a<img>猫.png</img>b", allowed_special="all")
        path = list("猫.png".encode())
        assert ids == [64, IMG, *path, *[PAD] * (16 - len(path)), IMG_END, 65]
        assert qwen_tokenizer.decode(ids) == "a<img>猫.png</img>b"

    @pytest.mark.parametrize("length", [0, 1, 15, 16])
    def test_a_path_that_fits_comes_back_from_its_ids(self, qwen_tokenizer, length):
        text = f"<img>{'p' * length}</img>"
        ids = qwen_tokenizer.encode(text, allowed_special="all")
        assert len(ids) == 18 and ids.count(112) == length
        assert qwen_tokenizer.decode(ids) == text

    def test_a_longer_path_is_left_out_and_its_place_stays(self, qwen_tokenizer):
        # The original refuses it: there the ids are the only way on which a path reaches the model.
        ids = qwen_tokenizer.encode(f"<img>{'p' * 17}</img>", allowed_special="all")
        assert ids == [IMG, *[PAD] * 16, IMG_END]
        assert qwen_tokenizer.decode(ids) == "<img></img>"

    def test_a_tag_inside_a_path_is_part_of_it(self, qwen_tokenizer):
        # The original fails with a TypeError.
        ids = qwen_tokenizer.encode("<img>a<ref>b</img>", allowed_special="all")
        assert bytes(ids[1:8]) == b"a<ref>b"

    @pytest.mark.parametrize("text", ["<img>a.png", "<img>a</img> <img>b", "x <img>"])
    def test_an_unclosed_image_is_refused_where_images_are_allowed(self, qwen_tokenizer, text):
        with pytest.raises(ValueError, match="is not closed; expected `<img>path</img>`"):
            qwen_tokenizer.encode(text, allowed_special="all")
        assert qwen_tokenizer.decode(qwen_tokenizer.encode(text)) == text

    def test_an_unknown_special_token_cannot_be_allowed(self, qwen_tokenizer):
        with pytest.raises(ValueError, match="no token <|vision_start|>"):
            qwen_tokenizer.encode("x", allowed_special={"<|vision_start|>"})

    def test_another_span_length_is_read_from_the_settings(self, qwen_tokenizer):
        longer = QwenTokenizer(qwen_tokenizer.ranks, {"n_queries": 20, "n_extra_tokens": 0})
        ids = longer.encode("<img>a</img>", allowed_special="all")
        assert (len(ids), ids[0]) == (22, 384 + 3 + 6)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("n_queries", 0), ("n_queries", "16"), ("n_extra_tokens", -1), ("n_queries", 10**12), ("n_extra_tokens", 1e9)],
    )
    def test_a_count_that_makes_no_sense_is_refused(self, qwen_tokenizer, name, value):
        with pytest.raises(ValueError, match=f"`{name}` is {json.dumps(value)}; expected a whole number"):
            QwenTokenizer(qwen_tokenizer.ranks, {name: value})

    def test_settings_of_a_file_are_refused_by_its_path(self, qwen_tokenizer, tmp_path):
        QwenTokenizer(qwen_tokenizer.ranks).save_pretrained(tmp_path)
        for values, said in (
            ({"n_extra_tokens": 10**9}, "`n_extra_tokens` is 1000000000"),
            ({"padding_side": 1}, "1;"),
        ):
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
            with pytest.raises(ValueError, match=f"^{tmp_path}/tokenizer_config.json: .*{said}"):
                QwenTokenizer.from_pretrained(tmp_path)


class TestProperties:
    @settings(derandomize=True, deadline=None)
    @given(text=st.text() | st.lists(st.sampled_from([*SPECIAL_WORDS, "a", "猫", "\n"])).map("".join))
    def test_plain_text_comes_back_composed_and_without_special_tokens(self, qwen_tokenizer, text):
        ids = qwen_tokenizer.encode(text)
        assert max(ids, default=0) < qwen_tokenizer.eod_id
        assert qwen_tokenizer.decode(ids) == unicodedata.normalize("NFC", text)

    @settings(derandomize=True, deadline=None)
    @given(ids=st.lists(st.integers(0, 450) | st.sampled_from([IMG, IMG_END, PAD, 97]), max_size=40))
    def test_any_ids_have_a_text(self, qwen_tokenizer, ids):
        known = [token for token in ids if token < len(qwen_tokenizer)]
        assert isinstance(qwen_tokenizer.decode(ids, skip_special_tokens=True), str)
        assert bool(qwen_tokenizer.decode(ids)) == bool(known)

    @settings(derandomize=True, deadline=None)
    @given(path=st.text(max_size=5).filter(lambda path: "<" not in path), text=st.text(max_size=5))
    def test_images_and_text_come_back_from_their_ids(self, qwen_tokenizer, path, text):
        pieces = [Piece(text), ImageSpan(path), Piece("<|im_end|>", control=True), Piece(text, weight=2.0)]
        ids, weights = qwen_tokenizer.encode_pieces(pieces)
        composed = unicodedata.normalize("NFC", text)
        kept = path if len(unicodedata.normalize("NFC", path).encode()) <= 16 else ""
        assert qwen_tokenizer.decode(ids) == (
            f"{composed}<img>{unicodedata.normalize('NFC', kept)}</img><|im_end|>{composed}"
        )
        assert weights.sum() == 2 * len(qwen_tokenizer.encode(text))

    def test_neighbouring_texts_are_encoded_as_one(self, qwen_tokenizer):
        ids, _ = qwen_tokenizer.encode_pieces([Piece("Find th"), Piece("e bus!")])
        assert ids.tolist() == qwen_tokenizer.encode("Find the bus!")
        assert len(ids) < len(qwen_tokenizer.encode("Find th")) + len(qwen_tokenizer.encode("e bus!"))

    def test_a_path_that_is_no_utf8_is_encoded_too(self, qwen_tokenizer):
        assert len(qwen_tokenizer.image_ids("\udcff.png")) == 18

    def test_a_copy_and_an_unpickled_one_give_the_same_ids(self, qwen_tokenizer):
        text = "Find <img>a.png</img>!"
        wanted = qwen_tokenizer.encode(text, allowed_special="all")
        for other in (copy.deepcopy(qwen_tokenizer), pickle.loads(pickle.dumps(qwen_tokenizer))):
            assert other.encode(text, allowed_special="all") == wanted


class TestFiles:
    def test_a_saved_tokenizer_is_read_again_with_its_span_length(self, qwen_tokenizer, qwen_reference, tmp_path):
        qwen_tokenizer.save_pretrained(tmp_path)
        again = QwenTokenizer.from_pretrained(tmp_path)
        assert (again.ranks, again.settings) == (qwen_tokenizer.ranks, qwen_tokenizer.settings)
        for name in ("qwen.tiktoken", "tokenizer_config.json"):
            assert (tmp_path / name).read_bytes() == (qwen_reference / name).read_bytes()

    def test_settings_that_mean_nothing_here_are_kept(self, qwen_tokenizer, tmp_path):
        QwenTokenizer(qwen_tokenizer.ranks, {"auto_map": {"AutoTokenizer": ["x", None]}}).save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
        assert saved["auto_map"] == {"AutoTokenizer": ["x", None]}


class TestBatches:
    texts = ("hi", "<img>a.png</img>x", "Find the bus!")

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_short_rows_are_filled_up_on_the_side_that_was_asked_for(self, qwen_tokenizer, side):
        batch = qwen_tokenizer(self.texts, padding=True, padding_side=side, allowed_special="all", return_tensors="np")
        rows = [qwen_tokenizer.encode(text, allowed_special="all") for text in self.texts]
        assert batch.input_ids.shape == batch.attention_mask.shape == (3, 19)
        for row, ids, mask in zip(rows, batch.input_ids, batch.attention_mask, strict=True):
            assert ids[mask == 1].tolist() == row
            assert set(ids[mask == 0].tolist()) <= {qwen_tokenizer.pad_token_id}
            assert mask[-1 if side == "left" else 0] == 1

    def test_without_padding_there_are_lists(self, qwen_tokenizer):
        batch = qwen_tokenizer(list(self.texts))
        assert [len(row) for row in batch["input_ids"]] == [sum(mask) for mask in batch["attention_mask"]]
        assert batch["input_ids"][1] == qwen_tokenizer.encode(self.texts[1])
        assert qwen_tokenizer("hi")["input_ids"] == qwen_tokenizer.encode("hi")

    def test_texts_of_several_lengths_are_no_array_without_padding(self, qwen_tokenizer):
        with pytest.raises(ValueError, match="`padding` is False"):
            qwen_tokenizer(self.texts, return_tensors="np")

    def test_paddles_tensors_are_given_on_request(self, qwen_tokenizer):
        batch = qwen_tokenizer("hi", return_tensors="pd")
        np.testing.assert_array_equal(batch.input_ids.numpy(), [qwen_tokenizer.encode("hi")])


class TestPublishedVocabulary:
    def test_special_tokens_have_their_published_ids(self, published_qwen_tokenizer, published_qwen_cases):
        meta = published_qwen_cases["meta"]
        assert published_qwen_tokenizer.special_tokens == meta["special_tokens"]
        assert len(published_qwen_tokenizer) == meta["len"]

    def test_every_case_has_its_ids(self, published_qwen_tokenizer, published_qwen_cases):
        cases = [case for case in published_qwen_cases["encode"] if "error" not in case]
        assert len(cases) == 378
        for case in cases:
            ids = [
                published_qwen_tokenizer.encode(case["text"], allowed_special=allowed)
                for allowed in ("all", (), QwenTokenizer.IMAGE_ST)
            ]
            assert ids == [case[name] for name in ("ids", "ids_no_special", "ids_image_special_only")], case["text"]

    def test_every_case_has_its_text(self, published_qwen_tokenizer, published_qwen_cases):
        cases = [case for case in published_qwen_cases["encode"] if "decoded" in case]
        assert len(cases) == 377
        for case in cases:
            decode, ids = published_qwen_tokenizer.decode, case["ids"]
            assert decode(ids) == case["decoded"]
            assert decode(ids, skip_special_tokens=True) == case["decoded_skip_special"]
            assert decode(ids, skip_special_tokens=True, keep_image_special=True) == case["decoded_keep_image"]

    def test_what_the_original_cannot_encode_is_refused_or_has_a_reason_above(
        self, published_qwen_tokenizer, published_qwen_cases
    ):
        failing = [case for case in published_qwen_cases["encode"] if "error" in case]
        assert len(failing) == 4
        for case in failing:
            if any(reason in case["error"] for reason in NOT_FOLLOWED):
                assert len(published_qwen_tokenizer.encode(case["text"], allowed_special="all")) == 258
            else:
                with pytest.raises(ValueError, match="is not closed"):
                    published_qwen_tokenizer.encode(case["text"], allowed_special="all")

    def test_a_path_that_fills_the_whole_span_is_decoded_where_the_original_fails(
        self, published_qwen_tokenizer, published_qwen_cases
    ):
        (case,) = [case for case in published_qwen_cases["encode"] if "decoded_error" in case]
        assert case["ids"].count(published_qwen_tokenizer.img_pad_id) == 0
        assert published_qwen_tokenizer.decode(case["ids"]) == case["text"]

    def test_half_characters_are_shown_or_left_out(self, published_qwen_tokenizer, published_qwen_cases):
        cases = published_qwen_cases["decode_partial"]
        assert len(cases) == 10
        for case in cases:
            assert published_qwen_tokenizer.decode(case["ids"]) == case["decoded"]
            assert published_qwen_tokenizer.decode(case["ids"], errors="ignore") == case["decoded_ignore"]

    def test_batches_are_padded_alike(self, published_qwen_tokenizer, published_qwen_cases):
        cases = published_qwen_cases["batch_pad"]
        assert [case["side"] for case in cases] == ["left", "right"]
        texts = ["hi", "hello there 你好", "<img>a.png</img>x"]
        for case in cases:
            batch = published_qwen_tokenizer(texts, padding="longest", padding_side=case["side"], allowed_special="all")
            assert (batch["input_ids"], batch["attention_mask"]) == (case["input_ids"], case["attention_mask"])
            # The original adds token_type_ids, which its model takes and has no use for.
            assert set(batch) == set(case["keys"]) - {"token_type_ids"}

    def test_a_saved_vocabulary_is_the_published_file(self, published_qwen_tokenizer, published_qwen_cases, tmp_path):
        published_qwen_tokenizer.save_pretrained(tmp_path)
        content = (tmp_path / "qwen.tiktoken").read_bytes()
        assert sha256(content).hexdigest() == published_qwen_cases["meta"]["vocab_sha256"]
