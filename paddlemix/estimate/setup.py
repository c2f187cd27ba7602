"""What a config says about memory beside the model: precision, batch, cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddlemix._environment import is_older_than_ampere
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.rules import adds_in_float32, chooses_cpu, recomputes, weights_dtype
from paddlemix.estimate.coded import Coded

FLOAT, HALF = 4, 2


@dataclass(frozen=True)
class Precision:
    """Bytes of a number.

    Attributes:
        weight: of the weights that are held.
        gradient: of their gradients.
        state: of all that the optimizer keeps about a trained weight.
        product: of what products read and give.
        residual: of what runs past the blocks and through their norms.
        score: of one of attention's weights, all its forms together; 0 where no scores are held.
    """

    weight: int
    gradient: int
    state: int
    product: int
    residual: int
    score: int = 0

    @classmethod
    def of(cls, config: FinetuneConfig) -> Precision:
        """Read a run's: O1 holds float32 and computes products in half precision, O2 holds and computes in it."""
        training = config.training
        is_half = training["bf16"] or training["fp16"]
        held = weights_dtype(config.precision)
        holds_half = held != "float32"
        weight = HALF if holds_half else FLOAT
        # Moments in float32, and beside half-precision weights a copy of those; some optimizers keep less.
        moments = {"adamw_16bit_moment": 2 * HALF, "adamw_mini": FLOAT}.get(training["optim"], 2 * FLOAT)
        product = HALF if is_half or holds_half else FLOAT
        return cls(
            weight=weight,
            gradient=FLOAT if adds_in_float32(config.precision) else weight,
            state=moments + (FLOAT if holds_half else 0),
            product=product,
            residual=weight,
            score=_bytes_of_score(training, FLOAT if product == FLOAT else FLOAT + HALF),
        )


@dataclass(frozen=True)
class Batch:
    """What one forward pass sees.

    Attributes:
        tokens: of all rows.
        image_share: of the tokens, 0..1, that stand for images; the others are targets.
        rows: as many tokens each; a sample and an image each, where that matters.
    """

    tokens: int
    image_share: float
    rows: int = 1

    @property
    def image_tokens(self) -> int:
        """Those of images."""
        return round(self.tokens * self.image_share)

    @property
    def targets(self) -> int:
        """Tokens whose logits are asked for."""
        return self.tokens - self.image_tokens


@dataclass(frozen=True)
class Cards:
    """How a run is cut.

    Attributes:
        count: of the cards.
        tensor: cards that share each matrix.
        sharding: cards that share states (stage 1), gradients too (2), or weights too (3).
        stage: of sharding, 0 for none.
        offload: whether what is sharded lies in the machine's memory.
    """

    count: int = 1
    tensor: int = 1
    sharding: int = 1
    stage: int = 0
    offload: bool = False

    @classmethod
    def of(cls, training: Mapping[str, Any], count: int | None = None) -> Cards:
        """Read how a run is cut.

        Args:
            training: the config's keys.
            count: of the cards; None takes as few as the degrees ask for.

        Returns:
            The cut.

        Raises:
            ValueError: the run is cut in a way that is not estimated, or the degrees do not divide the cards.
        """
        for key in ("pipeline_parallel_degree", "sep_parallel_degree", "context_parallel_degree"):
            if training[key] > 1:
                raise ValueError(f"`{key}` is {training[key]}, of which the memory is not estimated; set it to 1.")
        words = str(training["sharding"]).split()
        stage = next((int(word[-1]) for word in words if word in ("stage1", "stage2", "stage3")), 0)
        tensor = max(training["tensor_parallel_degree"], 1)
        asked = max(training["sharding_parallel_degree"], 1) if stage else 1
        count = tensor * asked if count is None else count
        if count < 1 or count % (tensor * asked):
            raise ValueError(
                f"--cards is {count}; expected a multiple of {tensor * asked}, which is `tensor_parallel_degree` "
                f"{tensor} times `sharding_parallel_degree` {asked}."
            )
        # A degree that is not given takes all the cards that there are.
        sharding = asked if asked > 1 or not stage else count // tensor
        return cls(count, tensor, sharding, stage, "offload" in words)

    def shares(self, stage: int) -> int:
        """Return how many cards share what sharding cuts from this stage on."""
        return self.sharding if self.stage >= stage else 1


@dataclass(frozen=True)
class Setup:
    """All of it.

    Attributes:
        precision: bytes of a number.
        batch: of one forward pass.
        cards: how the run is cut.
        recompute_vit: whether the tower's blocks are recomputed.
        recompute_llm: whether the decoder's are.
        coded: the frozen weights that are held as codes; None for none.
    """

    precision: Precision
    batch: Batch
    cards: Cards
    recompute_vit: bool = False
    recompute_llm: bool = False
    coded: Coded | None = None

    @classmethod
    def of(cls, config: FinetuneConfig, *, cards: int | None = None, image_share: float = 0.5) -> Setup:
        """Read all of it of a run.

        Args:
            config: checked.
            cards: how many there are; None takes as few as the config's degrees ask for.
            image_share: of the tokens, 0..1, that stand for images.

        Returns:
            The setup, which does not know of codes yet; rows have `max_length` tokens each, as packs have.

        Raises:
            ValueError: the run trains nothing, or is cut in a way that is not estimated.
        """
        training = config.training
        rows = training["per_device_train_batch_size"]
        if not training["do_train"]:
            raise ValueError("`do_train` is false: there is no training whose memory could be estimated.")
        if not 0 <= image_share <= 1:
            raise ValueError(f"--image_share is {image_share}; expected 0 to 1.")
        return cls(
            Precision.of(config),
            Batch(rows * config.data.max_length, image_share, rows),
            Cards.of(training, cards),
            recomputes(training, "vit"),
            recomputes(training, "llm"),
        )


def _bytes_of_score(training: Mapping[str, Any], bytes_held: int) -> int:
    """Count the bytes of a score: flash attention holds none, nor do the ops that are built for CPUs."""
    has_flash_attention = bytes_held > FLOAT and not is_older_than_ampere()
    return 0 if chooses_cpu(training) or has_flash_attention else bytes_held
