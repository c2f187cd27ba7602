"""`new_tokens` of a config: a vocabulary that grows before it is trained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paddlemix.configuration.arguments import ModelArguments, TokenItem
from paddlemix.contract import Model, NewToken, Tokenizer
from paddlemix.peft.targets import token_layers

if TYPE_CHECKING:
    from paddlemix.models.base import MixPretrainedModel
    from paddlemix.models.vocabulary import FirstRows

# Many times what one vocabulary has of its own; each costs a row of the embedding, and time at every start.
_MOST_TOKENS = 16_384

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Growth:
    """What a model needs so that all tokens of its tokenizer have rows.

    Attributes:
        rows: of the embedding.
        pieces: by token whose row begins now the tokens that its text was cut to before.
        first_rows: what such a row begins as.
    """

    rows: int
    pieces: Mapping[int, Sequence[int]] = field(default_factory=dict)
    first_rows: FirstRows = "mean"

    @classmethod
    def of(cls, keys: ModelArguments, tokenizer: Tokenizer, rows: int) -> Growth:
        """Add the tokens that a config lists to a tokenizer.

        Args:
            keys: the config's.
            tokenizer: of the checkpoint; gets the tokens.
            rows: that the checkpoint's embedding has; those behind the last token are used first.

        Returns:
            What the model needs.

        Raises:
            ValueError: a token is blank or listed twice, or the vocabulary takes no others.
        """
        tokens = listed_tokens(keys.new_tokens)
        known = tokenizer.size
        added = tokenizer.add_tokens(tokens)
        texts = dict(zip(added, (one.token for one in tokens), strict=True))
        begun = {token_id: pieces for token_id, pieces in added.items() if token_id >= min(known, rows)}
        if old := [texts[token_id] for token_id in added if token_id not in begun]:
            logger.warning(
                "`new_tokens`: the vocabulary has these already, which stay as they are: %s.", ", ".join(old)
            )
        wanted = max([rows, *(token_id + 1 for token_id in begun)])
        multiple = keys.new_tokens_multiple or 1
        if wanted > rows:
            wanted = -(-wanted // multiple) * multiple
        if begun:
            logger.info("`new_tokens`: %d tokens are new; the embedding has %d rows of %d.", len(begun), wanted, rows)
        return cls(wanted, begun, keys.new_tokens_init)

    def apply(self, model: MixPretrainedModel, *, seed: int) -> MixPretrainedModel:
        """Give a model rows for the tokens.

        Args:
            model: as its checkpoint has it.
            seed: of what is random.

        Returns:
            The model with them.
        """
        from paddlemix.models.vocabulary import set_first_rows, with_rows  # takes seconds, so only with a model

        larger = with_rows(model, self.rows)
        set_first_rows(larger, self.pieces, self.first_rows, seed=seed)
        return larger

    def warn_of_frozen_rows(self, model: Model) -> None:
        """Tell where the rows of new tokens would stay as they began.

        Args:
            model: with what is frozen, or with adapters.
        """
        frozen = [name for name, layer in token_layers(model).items() if layer.weight.stop_gradient]
        if self.pieces and frozen:
            logger.warning(
                "`new_tokens`: %s %s frozen, so that the rows of new tokens stay as they began. Name them in "
                "`lora_modules_to_save` with `lora`, in `freeze_exclude` without.",
                " and ".join(frozen),
                "is" if len(frozen) == 1 else "are",
            )


def listed_tokens(new_tokens: Sequence[str | TokenItem] | str | None) -> list[NewToken]:
    """Give the tokens that a config lists as one kind.

    Args:
        new_tokens: the key's value; a file's name was replaced by what it lists when the config was read.

    Returns:
        The tokens.

    Raises:
        ValueError: one is blank or listed twice.
    """
    assert not isinstance(new_tokens, str), "a config is read with the file's tokens"
    tokens = [NewToken(one) if isinstance(one, str) else NewToken(one.token, one.special) for one in new_tokens or ()]
    texts = [one.token for one in tokens]
    if len(texts) > _MOST_TOKENS:
        raise ValueError(f"`new_tokens` lists {len(texts):,} tokens; expected at most {_MOST_TOKENS:,}.")
    twice = {text for text, times in Counter(texts).items() if times > 1}
    wrong = [text for text in texts if text != text.strip() or not text or text in twice]
    if wrong:
        raise ValueError(
            f"`new_tokens` lists {wrong[0][:80]!r}, which is blank, begins or ends with white space or is listed "
            "twice; expected texts such as <loc_1>, each once."
        )
    return tokens
