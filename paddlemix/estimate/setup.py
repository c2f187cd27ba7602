"""What a config says about memory beside the model: precision, batch, cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.rules import adds_in_float32, recomputes

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
        logit: of a logit, all its forms together; 0 where the loss holds no logits.
    """

    weight: int
    gradient: int
    state: int
    product: int
    residual: int
    logit: int = 0

    @classmethod
    def of(cls, config: FinetuneConfig) -> Precision:
        """Read a run's: O1 holds float32 and computes products in half precision, O2 holds and computes in it."""
        training = config.training
        is_half = training["bf16"] or training["fp16"]
        holds_half = weights_dtype_of(config) != "float32"
        weight = HALF if holds_half else FLOAT
        # Moments in float32, and beside half-precision weights a copy of those; some optimizers keep less.
        moments = {"adamw_16bit_moment": 2 * HALF, "adamw_mini": FLOAT}.get(training["optim"], 2 * FLOAT)
        return cls(
            weight=weight,
            gradient=FLOAT if adds_in_float32(training) else weight,
            state=moments + (FLOAT if holds_half and training["fp16_opt_level"] == "O2" else 0),
            product=HALF if is_half or holds_half else FLOAT,
            residual=weight,
            # In float16 the logits themselves, in float32 again, and their softmax.
            logit=HALF + 2 * FLOAT if training["fp16"] or weights_dtype_of(config) == "float16" else 0,
        )


@dataclass(frozen=True)
class Batch:
    """What one forward pass sees.

    Attributes:
        tokens: of all rows.
        image_share: of the tokens, 0..1, that stand for images; the others are targets.
        length: of a row.
    """

    tokens: int
    image_share: float
    length: int = 0

    @property
    def image_tokens(self) -> int:
        """Those of images."""
        return round(self.tokens * self.image_share)

    @property
    def targets(self) -> int:
        """Tokens whose logits are asked for."""
        return self.tokens - self.image_tokens


@dataclass(frozen=True)
class Kernels:
    """What is computed in one piece, so that what lies between is not kept.

    Attributes:
        attention: scores of the decoder are not held.
        cross_attention: nor are those of a resampler.
        norms: norms give what products read. Those that do not give float32, of which each product takes a copy.
    """

    attention: bool = True
    cross_attention: bool = True
    norms: bool = True

    @classmethod
    def of(cls, precision: Precision, *, packs: bool) -> Kernels:
        """Tell what a run's are: flash attention takes packs in half precision, and the built norms one dtype.

        Args:
            precision: of the run.
            packs: whether its batches are packs.

        Returns:
            Likewise.
        """
        is_float = precision.product == FLOAT
        return cls(is_float or packs, cross_attention=is_float, norms=precision.product == precision.weight)


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
        kernels: what is computed in one piece.
    """

    precision: Precision
    batch: Batch
    cards: Cards
    recompute_vit: bool = False
    recompute_llm: bool = False
    kernels: Kernels = Kernels()

    @classmethod
    def of(cls, config: FinetuneConfig, *, cards: int | None = None, image_share: float = 0.5) -> Setup:
        """Read all of it of a run.

        Args:
            config: checked.
            cards: how many there are; None takes as few as the config's degrees ask for.
            image_share: of the tokens, 0..1, that stand for images.

        Returns:
            The setup; rows have `max_length` tokens each, as packs have.

        Raises:
            ValueError: the run trains nothing, or is cut in a way that is not estimated.
        """
        training = config.training
        if not training["do_train"]:
            raise ValueError("`do_train` is false: there is no training whose memory could be estimated.")
        if not 0 <= image_share <= 1:
            raise ValueError(f"--image_share is {image_share}; expected 0 to 1.")
        length, precision = config.data.max_length, Precision.of(config)
        return cls(
            precision,
            Batch(training["per_device_train_batch_size"] * length, image_share, length),
            Cards.of(training, cards),
            recomputes(training, "vit"),
            recomputes(training, "llm"),
            Kernels.of(precision, packs=config.data.mixtoken),
        )


def weights_dtype_of(config: FinetuneConfig) -> str:
    """Return the precision of the weights that a run holds."""
    if config.model.dtype is not None:
        return config.model.dtype
    if config.training["fp16_opt_level"] != "O2":
        return "float32"
    return "bfloat16" if config.training["bf16"] else "float16" if config.training["fp16"] else "float32"
