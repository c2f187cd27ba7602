import pytest

from paddlemix.models.qwen_vl.chat.answers import decode_tokens, stop_words_ids

EOD, IM_START, IM_END = 384, 385, 386


@pytest.fixture
def tokenizer(qwen_tokenizer):
    return qwen_tokenizer


def decoded(tokenizer, *tail, **settings):
    prompt = tokenizer.encode("prompt")
    ids = prompt + [token for part in tail for token in ([part] if isinstance(part, int) else tokenizer.encode(part))]
    return decode_tokens(ids, tokenizer, context_length=len(prompt), **settings)


@pytest.mark.parametrize("end", [IM_START, IM_END])
def test_an_answer_ends_before_the_first_token_of_a_turn(tokenizer, end):
    answer = decoded(tokenizer, " 有一只猫。\n", end, "more", IM_END, EOD)
    assert answer.text == "有一只猫。"
    assert answer.end_reason == f"Gen {tokenizer.decode(end)!r}"


def test_without_such_a_token_the_last_one_goes_as_in_the_original(tokenizer):
    whole = decoded(tokenizer, "Find the bus!", EOD)
    assert whole.text == "Find the bus!"
    assert whole.end_reason == f"Gen length {len(tokenizer.encode('prompt')) + 6}"
    assert decoded(tokenizer, "Find the bus!").text == "Find the bus"
    assert decoded(tokenizer).text == ""


def test_what_an_answer_spells_is_no_end_of_it(tokenizer):
    assert decoded(tokenizer, "<|im_end|>x", IM_END).text == "<|im_end|>x"


def test_a_prompt_that_is_composed_or_holds_a_long_path_leaves_the_answer_whole(tokenizer):
    # The original counts characters of the prompt as it was written, and cuts into the answer.
    for prompt in ("cafe\u0301 " * 5, f"<img>{'p' * 50}</img>"):
        ids = tokenizer.encode(prompt, allowed_special="all")
        assert len(tokenizer.decode(ids)) < len(prompt)
        answer = decode_tokens([*ids, *tokenizer.encode("bus"), IM_END], tokenizer, context_length=len(ids))
        assert answer.text == "bus"


def test_a_raw_answer_loses_the_ends_of_texts_and_nothing_else(tokenizer):
    assert decoded(tokenizer, " a", EOD, "b", IM_END, chat_format="raw").text == "ab<|im_end|>"


def test_stop_words_are_those_of_the_format(tokenizer):
    assert stop_words_ids(tokenizer) == [[IM_END], [IM_START]]
    assert stop_words_ids(tokenizer, "raw") == [tokenizer.encode("Human:"), [EOD]]
    for act in (stop_words_ids, lambda tokenizer, name: decoded(tokenizer, chat_format=name)):
        with pytest.raises(ValueError, match="`chat_format` is 'alpaca'"):
            act(tokenizer, "alpaca")


class TestPublishedCases:
    def test_stop_words_are_the_originals(self, published_qwen_tokenizer, published_qwen_cases):
        assert set(published_qwen_cases["stop_words_ids"]) == {"chatml", "raw"}
        for chat_format, wanted in published_qwen_cases["stop_words_ids"].items():
            assert stop_words_ids(published_qwen_tokenizer, chat_format) == wanted

    def test_answers_are_the_originals(self, published_qwen_tokenizer, published_qwen_cases):
        cases = published_qwen_cases["decode_tokens"]
        assert len(cases) == 10
        inside_a_token = []
        for case in cases:
            ids, chat_format = case["ids"], case["chat_format"]
            # Of raw prompts the original says only how many characters they have.
            texts = [published_qwen_tokenizer.decode(ids[:length]) for length in range(len(ids))]
            length = case["context_length"] or {len(text): length for length, text in enumerate(texts)}.get(
                case["raw_text_len"]
            )
            if length is None:
                inside_a_token.append(case["text"])
                continue
            answer = decode_tokens(ids, published_qwen_tokenizer, context_length=length, chat_format=chat_format)
            assert (answer.text, answer.end_reason) == (case["text"], case["end_reason"])
        # A prompt that ends inside a token is none that a model has answered.
        assert inside_a_token == ["no eod"]
