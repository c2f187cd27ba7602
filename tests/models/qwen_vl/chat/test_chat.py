"""`model.chat` with an untrained model of the small vocabulary, whose answers are random but the same each time."""

import json
from itertools import pairwise

import numpy as np
import paddle
import pytest
from PIL import Image

from paddlemix.generation import GenerationConfig
from paddlemix.generation.sampling import TokenChooser
from paddlemix.media.images import ImageError
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.models.qwen_vl.chat import chat as qwen
from paddlemix.models.qwen_vl.chat.answers import decode_tokens
from paddlemix.models.qwen_vl.chat.context import make_context
from paddlemix.models.qwen_vl.chatml import DEFAULT_SYSTEM
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

EOD, IM_START, IM_END = 384, 385, 386
QUERY = "Picture 1: <img>a.png</img>\nFind the bus!"


@pytest.fixture(scope="module")
def untrained(qwen_tokenizer):
    paddle.seed(3)
    visual = {"image_size": 28, "width": 32, "layers": 1, "heads": 2, "n_queries": 16, "image_start_id": 401}
    config = QWenConfig(
        vocab_size=len(qwen_tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        kv_channels=32,
        intermediate_size=256,
        initializer_range=0.5,  # so that answers depend on what was asked
        visual=visual,
    )
    return QWenLMHeadModel(config).eval()


@pytest.fixture
def model(untrained):
    untrained.carried_files = {}
    return untrained


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """Two images in the working folder."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (2, 30, 40, 3), dtype=np.uint8)
    for name, pixels in zip(("a.png", "b.png"), noise, strict=True):
        Image.fromarray(pixels).save(name)


@pytest.fixture
def opened(monkeypatch):
    """The paths that a chat opens."""
    paths, open_image = [], qwen.open_image
    monkeypatch.setattr(qwen, "open_image", lambda path, opening: paths.append(path) or open_image(path, opening))
    return paths


@pytest.fixture
def say(monkeypatch, qwen_tokenizer):
    """Lets the model say a text, special tokens read as such, whatever it would have chosen."""

    def say(text):
        tokens = qwen_tokenizer.encode(text, allowed_special="all")

        def scores(self, logits):
            return np.arange(len(logits)) == tokens[self._chosen]

        monkeypatch.setattr(TokenChooser, "scores", scores)
        return len(tokens)

    return say


class TestAnswers:
    def test_an_answer_is_what_generate_writes_after_the_context(self, model, qwen_tokenizer):
        answer, history = model.chat(qwen_tokenizer, QUERY, [("hi", "ho")], max_new_tokens=8)
        context = make_context(qwen_tokenizer, QUERY, [("hi", "ho")], system=DEFAULT_SYSTEM)
        pixels = QwenVLImageProcessor(28).pixels(Image.open("a.png"))[None]
        ids = model.generate(
            paddle.to_tensor([list(context.ids)]),
            pixel_values=paddle.to_tensor(pixels),
            max_new_tokens=8,
            stop_words_ids=[[IM_END], [IM_START]],
            eos_token_id=EOD,
        )
        assert len(ids[0]) == len(context.ids) + 8
        wanted = decode_tokens(ids.tolist()[0], qwen_tokenizer, context_length=len(context.ids))
        assert answer == wanted.text != ""
        assert history == [("hi", "ho"), (QUERY, answer)]

    def test_the_image_and_the_history_change_the_answer(self, model, qwen_tokenizer):
        answers = {
            model.chat(qwen_tokenizer, query, history, max_new_tokens=8)[0]
            for query in (QUERY, QUERY.replace("a.png", "b.png"))
            for history in ([], [("hi", "ho")])
        }
        assert len(answers) == 4

    def test_the_history_is_left_as_it_was_and_may_be_kept_so(self, model, qwen_tokenizer):
        before = [("hi", "ho")]
        _, grown = model.chat(qwen_tokenizer, "q", before, max_new_tokens=2)
        _, kept = model.chat(qwen_tokenizer, "q", before, max_new_tokens=2, append_history=False)
        assert (len(grown), kept, before) == (2, [("hi", "ho")], [("hi", "ho")])

    @pytest.mark.parametrize("end", ["<|im_end|>", "<|im_start|>"])
    def test_an_answer_ends_with_its_turn(self, model, qwen_tokenizer, say, end):
        say(f"<ref>a</ref><box>(1,2),(3,4)</box>.{end}never said")
        answer, history = model.chat(qwen_tokenizer, "q")
        assert answer == "<ref>a</ref><box>(1,2),(3,4)</box>."
        assert history == [("q", answer)]

    def test_an_answer_may_be_ended_by_further_stop_words_that_stay_in_it(self, model, qwen_tokenizer, say):
        say("Find the bus! Find<|im_end|>")
        # "the bus" is said with a space before it, which is part of its first token.
        answer, _ = model.chat(qwen_tokenizer, "q", stop_words_ids=[qwen_tokenizer.encode(" the bus")])
        assert answer == "Find the bus"

    def test_what_the_model_says_of_images_is_text(self, model, qwen_tokenizer, say, opened):
        say("see <img>b.png</img>!<|im_end|>")
        answer, history = model.chat(qwen_tokenizer, "q")
        assert answer == "see <img>b.png</img>!"
        say("ok<|im_end|>")
        assert model.chat(qwen_tokenizer, "and?", history)[0] == "ok"
        assert opened == []


class TestStream:
    def test_an_answer_grows_by_whole_characters_with_its_tags_and_no_other_special_token(
        self, model, qwen_tokenizer, say
    ):
        said = "<ref>猫</ref><box>(1,2),(3,4)</box>𠮷"
        count = say(said + "<|im_end|>")
        texts = list(model.chat_stream(qwen_tokenizer, "q"))
        # The end of the turn, and the end of the text that follows it, show nothing.
        assert len(texts) == count + 1 and texts[-3:] == [said] * 3
        assert all(text.startswith(before) and "\ufffd" not in text for before, text in pairwise(texts))
        assert texts[-1] == model.chat(qwen_tokenizer, "q")[0]

    def test_a_step_runs_when_its_text_is_asked_for(self, model, qwen_tokenizer, monkeypatch):
        steps, forward = [], model.forward
        monkeypatch.setattr(model, "forward", lambda **inputs: steps.append(1) or forward(**inputs))
        stream = model.chat_stream(qwen_tokenizer, "q", max_new_tokens=3)
        assert steps == []
        next(stream)
        assert len(steps) == 1


class TestImages:
    def test_images_of_the_query_and_of_what_fits_of_the_history_are_opened_in_order(
        self, model, qwen_tokenizer, opened
    ):
        history = [("<img>b.png</img>", "b"), ("<img>a.png</img>", "a")]
        model.chat(qwen_tokenizer, QUERY, history, max_new_tokens=1)
        assert opened == ["b.png", "a.png", "a.png"]
        opened.clear()
        history[0] = (history[0][0] + " long" * 100, "b")
        model.chat(qwen_tokenizer, QUERY, history, max_new_tokens=1, max_window_size=150)
        assert opened == ["a.png", "a.png"]

    def test_an_answer_of_the_history_opens_nothing(self, model, qwen_tokenizer, opened):
        model.chat(qwen_tokenizer, "q", [("a", "see <img>/etc/passwd</img>")], max_new_tokens=1)
        assert opened == []

    def test_an_image_that_is_missing_is_named(self, model, qwen_tokenizer):
        with pytest.raises(ImageError, match=r"image gone\.png does not exist"):
            model.chat(qwen_tokenizer, "<img>gone.png</img>")

    def test_another_normalisation_can_be_given(self, model, qwen_tokenizer):
        grey = QwenVLImageProcessor(28, image_mean=(9.0, 9.0, 9.0), image_std=(0.1, 0.1, 0.1))
        answers = {
            model.chat(qwen_tokenizer, QUERY, max_new_tokens=8, image_processor=images)[0] for images in (None, grey)
        }
        assert len(answers) == 2


class TestSettings:
    def test_the_checkpoints_file_says_how_a_chat_is_held(self, model, qwen_tokenizer, opened):
        published = {"chat_format": "raw", "max_new_tokens": 3, "eos_token_id": EOD, "do_sample": False}
        model.carried_files = {"generation_config.json": json.dumps(published).encode()}
        history = [("<img>b.png</img>", "b")]
        assert len(list(model.chat_stream(qwen_tokenizer, QUERY, history))) <= 3
        assert opened == ["a.png"]
        model.chat(qwen_tokenizer, QUERY, history, chat_format="chatml")
        assert opened == ["a.png", "b.png", "a.png"]

    def test_a_generation_config_wins_over_the_file(self, model, qwen_tokenizer, say):
        say("Find the bus!<|im_end|>")
        model.carried_files = {"generation_config.json": b'{"max_new_tokens": 2}'}
        longer = GenerationConfig(max_new_tokens=20)
        counts = [len(list(model.chat_stream(qwen_tokenizer, "q", generation_config=one))) for one in (None, longer)]
        assert counts == [2, 7]

    def test_an_unknown_option_is_named(self, model, qwen_tokenizer):
        with pytest.raises(TypeError, match="max_tokens is no setting of answers"):
            model.chat(qwen_tokenizer, "q", max_tokens=3)

    def test_another_models_tokenizer_is_refused(self, model, qwen_tokenizer):
        other = QwenTokenizer(qwen_tokenizer.ranks, {"n_queries": 16, "n_extra_tokens": 9})
        with pytest.raises(ValueError, match="writes an image as token 402 and 16 more, the model reads token 401"):
            model.chat(other, "q")
