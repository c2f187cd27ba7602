"""What a forward pass keeps for the backward pass, and what stands beside it when most memory is taken.

Counted are the tensors that the built ops of `external_ops` keep; Paddle's own keep more. What a GPU keeps is held
against the ops of whole training steps by `tests/gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddlemix.estimate.setup import FLOAT, HALF, Setup
from paddlemix.models.decoder import DecoderShape
from paddlemix.models.tower import TowerShape

# Bytes of float32 logits that the built loss holds at once on a GPU, and the least rows of them.
_LOGITS_AT_ONCE, _LEAST_ROWS = 2**30, 16


@dataclass(frozen=True)
class Blocks:
    """Blocks of a tower or a decoder; numbers are counted per token or patch.

    Attributes:
        count: how many blocks.
        positions: tokens or patches of one forward pass.
        width: of what runs past the blocks; beside their input they keep two norms' results and the sum between them.
        inner: what they keep of attention and MLP, which tensor parallelism cuts.
        hidden: width of the MLP's inside, three times of which gradients take for a moment.
        matrices: numbers of one block's linear layers, of which O1 keeps half-precision copies; 0 of codes.
        adapters: what adapters keep.
        is_rounded: whether what runs past the blocks has the products' precision, whatever the weights have.
        scores: of a block's attention, all positions together, where they are held.
        turning: numbers of the cosines and sines that all blocks share.
    """

    count: int
    positions: int
    width: int
    inner: int
    hidden: int
    matrices: int
    adapters: float
    is_rounded: bool = False
    scores: float = 0.0
    turning: int = 0

    def inputs(self, setup: Setup) -> float:
        """Count the bytes of the inputs of all blocks, which recomputing keeps too."""
        return self.count * self.positions * self.width * self._stream(setup)

    def kept(self, setup: Setup) -> float:
        """Count the bytes that one block keeps beside its input."""
        precision = setup.precision
        norms = self.width * (self._stream(setup) + 2 * precision.product)
        inner = (self.inner / setup.cards.tensor + self.adapters) * precision.product
        weights = self.matrices / setup.cards.tensor * precision.product if precision.product < precision.weight else 0
        return self.positions * (norms + inner) + weights + self.scores / setup.cards.tensor * precision.score

    def _stream(self, setup: Setup) -> int:
        return setup.precision.product if self.is_rounded else setup.precision.residual

    def forward(self, setup: Setup, *, recompute: bool) -> float:
        """Count the bytes that all blocks keep from the forward pass on."""
        turning = self.positions * self.turning * FLOAT
        return self.inputs(setup) + turning + (0 if recompute else self.count * self.kept(setup))

    def backward(self, setup: Setup, *, recompute: bool) -> float:
        """Count the bytes that stand beside these while the last block's gradients are computed."""
        precision = setup.precision
        gradients = 3 * self.hidden / setup.cards.tensor * precision.product + 2 * self.width * precision.residual
        # The gradients of weights and of scores, in float32.
        of_scores = 2 * FLOAT * self.scores / setup.cards.tensor if precision.score else 0.0
        # Those of attention and of the MLP do not stand at the same time.
        return max(self.positions * gradients, of_scores) + (self.kept(setup) if recompute else 0)


@dataclass(frozen=True)
class Activations:
    """What the activations of one forward pass are made of, in bytes.

    Attributes:
        batch: pixels, in the products' precision.
        tower: what the tower keeps.
        aligner: what the layers behind it keep.
        decoder: what the decoder keeps.
        moment: what stands beside these when most memory is taken.
        moment_name: which moment that is.
    """

    batch: float
    tower: float
    aligner: float
    decoder: float
    moment: float
    moment_name: str

    @property
    def total(self) -> float:
        """All of it."""
        return self.batch + self.tower + self.aligner + self.decoder + self.moment


@dataclass(frozen=True)
class Trained:
    """What of a model is trained.

    Attributes:
        vision: anything of the tower.
        aligner: anything of the aligner.
        head: numbers of the matrix that gives logits, 0 where it is frozen.
        embedding: numbers of the token embedding, 0 where it is frozen.
        tower_adapter: numbers that an average block's adapters keep of a patch.
        decoder_adapter: the same of the decoder and a token.
    """

    vision: bool
    aligner: bool
    head: int
    embedding: int
    tower_adapter: float = 0.0
    decoder_adapter: float = 0.0


@dataclass(frozen=True)
class Shape:
    """What a family's config comes to.

    Attributes:
        tower: its blocks.
        decoder: its blocks.
        pixels: numbers of a patch.
        aligner: numbers that the layers between tower and decoder keep, all patches together.
        aligner_matrices: numbers of their matrices; 0 of codes.
        embedding_inputs: numbers of what the patch embedding keeps of a patch, beside its pixels.
        vocabulary: tokens.
    """

    tower: Blocks
    decoder: Blocks
    pixels: int
    aligner: int
    aligner_matrices: int
    embedding_inputs: int
    vocabulary: int

    def kept_by_embedding(self, setup: Setup) -> float:
        """Count the bytes that the patch embedding keeps beside the pixels."""
        return self.tower.positions * self.embedding_inputs * setup.precision.product

    def kept_by_aligner(self, setup: Setup) -> float:
        """Count the bytes that the layers between tower and decoder keep."""
        precision = setup.precision
        weights = self.aligner_matrices if precision.product < precision.weight else 0
        return (self.aligner + weights) * precision.product


def activations(shape: Shape, trained: Trained, setup: Setup) -> Activations:
    """Reckon what the activations of one forward and backward pass take at most.

    Args:
        shape: of model and batch.
        trained: what has gradients.
        setup: precision and cut.

    Returns:
        The parts.
    """
    precision, tower, decoder = setup.precision, shape.tower, shape.decoder
    batch = tower.positions * shape.pixels * precision.product
    in_tower = tower.forward(setup, recompute=setup.recompute_vit) if trained.vision else 0.0
    in_tower += trained.vision * shape.kept_by_embedding(setup)
    in_aligner = shape.kept_by_aligner(setup) if trained.vision or trained.aligner else 0.0
    # What leaves the last block is the last norm's input.
    last = decoder.positions * decoder.width * precision.residual
    in_decoder = decoder.forward(setup, recompute=setup.recompute_llm) + last
    everything = in_tower + in_aligner + in_decoder
    # A part of a weight in floating point, and rounded for products of half precision.
    tile = 0 if setup.coded is None else setup.coded.tile * (FLOAT + (0 if precision.product == FLOAT else HALF))
    moments = {
        "the loss": everything + _at_the_loss(shape, trained, setup),
        "the decoder's gradients": everything + tile + decoder.backward(setup, recompute=setup.recompute_llm),
        "the tower's gradients": trained.vision * (in_tower + tower.backward(setup, recompute=setup.recompute_vit)),
        "the embedding's gradient": in_tower + trained.embedding * precision.gradient / setup.cards.tensor,
    }
    name = max(moments, key=lambda one: moments[one])
    parts = {
        "the tower's gradients": (in_tower, 0.0, 0.0),
        "the embedding's gradient": (in_tower, 0.0, 0.0),
    }.get(name, (in_tower, in_aligner, in_decoder))
    return Activations(batch, *parts, moments[name] - sum(parts), name)


def _at_the_loss(shape: Shape, trained: Trained, setup: Setup) -> float:
    """Count the last states, as they leave the last norm, once more without the last token, those of targets and their
    gradients; the head's gradient, which is computed together with the loss."""
    precision, width = setup.precision, shape.decoder.width
    states = 2 * shape.decoder.positions + 2 * setup.batch.targets
    head = trained.head * precision.gradient / setup.cards.tensor
    return states * width * precision.residual + head + _logits_at_once(shape, trained, setup)


def _logits_at_once(shape: Shape, trained: Trained, setup: Setup) -> float:
    """Count the bytes of the logits that the built loss holds at a time, of their gradients, and of what it makes of
    the weight; on the CPU, where products are of float32, those are few."""
    precision, vocabulary = setup.precision, shape.vocabulary / setup.cards.tensor
    if precision.product == FLOAT:
        return 0.0
    rows = min(setup.batch.targets, max(_LEAST_ROWS, _LOGITS_AT_ONCE // (FLOAT * vocabulary)))
    if precision.weight == FLOAT:  # a rounded copy; its gradient is summed where it is held
        of_weight = vocabulary * shape.decoder.width * HALF
    else:
        of_weight = trained.head / setup.cards.tensor * FLOAT if rows < setup.batch.targets else 0
    return rows * vocabulary * (FLOAT + HALF) + of_weight


def shape_of(decoder: DecoderShape, tower: TowerShape, trained: Trained, setup: Setup) -> Shape:
    """Reckon what a model's activations are made of, for one forward pass.

    Args:
        decoder: the language model.
        tower: the vision tower.
        trained: what has gradients.
        setup: batch and precision.

    Returns:
        The shape.
    """
    hidden, tokens, inner = decoder.hidden_size, setup.batch.image_tokens, decoder.intermediate_size
    patches = tower.patches(tokens)
    mlp = 3 if tower.gated else 2
    is_coded = setup.coded is not None
    sees_codes = setup.coded is not None and setup.coded.in_tower
    # Where one layer projects to queries, keys and values, these are views of what it gives, of which the turned ones
    # are copies.
    is_joint = len(decoder.names.projections) == 1
    turned = decoder.query_width + decoder.key_width if is_joint else 0
    return Shape(
        tower=Blocks(
            count=tower.blocks,
            positions=patches,
            width=tower.width,
            # query, key, value and what they give; the MLP before and behind its activation
            inner=4 * tower.width + mlp * tower.inner,
            hidden=tower.inner,
            matrices=0 if sees_codes else 4 * tower.width**2 + mlp * tower.width * tower.inner,
            adapters=trained.tower_adapter,
            is_rounded=not tower.adds_places,
            scores=tower.scores(patches, setup.batch.rows),
        ),
        decoder=Blocks(
            count=decoder.layers,
            positions=setup.batch.tokens,
            width=hidden,
            # query, keys and values and what they give; gate, up and their product
            inner=2 * decoder.query_width + 2 * decoder.key_width + turned + 3 * inner,
            hidden=inner,
            matrices=0 if is_coded else 2 * hidden * (decoder.query_width + decoder.key_width) + 3 * hidden * inner,
            adapters=trained.decoder_adapter,
            scores=decoder.heads * setup.batch.tokens**2 / setup.batch.rows,
            turning=decoder.head_dim,
        ),
        pixels=tower.patch_values,
        aligner=patches * tower.aligner_of_patch + tokens * tower.aligner_of_token,
        aligner_matrices=0 if sees_codes else tower.aligner_matrices,
        embedding_inputs=tower.embedding_inputs,
        vocabulary=decoder.vocab_size,
    )
