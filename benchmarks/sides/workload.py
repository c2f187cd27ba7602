"""The models, batches and images that are timed, the same for every library. Needs numpy and Pillow alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

PATCH, MERGE, FRAMES, CHANNELS = 14, 2, 2, 3


@dataclass(frozen=True)
class Shape:
    """A model and what it is given.

    Attributes:
        depth: blocks of the vision tower.
        embed_dim: width of the vision tower.
        vision_heads: attention heads of the vision tower.
        layers: of the decoder.
        hidden: width of the decoder.
        heads: of the decoder's queries.
        key_heads: of the decoder's keys and values.
        inner: width of the decoder's MLP.
        vocabulary: tokens.
        rows: sequences of a batch.
        tokens: of a sequence, those of its one image included.
        image_side: pixels of an image after resizing.
        source_side: pixels of an image before it.
    """

    depth: int
    embed_dim: int
    vision_heads: int
    layers: int
    hidden: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    rows: int
    tokens: int
    image_side: int
    source_side: int

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_side // PATCH) ** 2

    def config(self) -> dict[str, Any]:
        """Return the flat config.json of the published checkpoints."""
        pairs = self.hidden // self.heads // 2
        rest = (pairs - pairs // 4) // 2
        vision = {
            "depth": self.depth,
            "embed_dim": self.embed_dim,
            "num_heads": self.vision_heads,
            "hidden_size": self.hidden,
            "mlp_ratio": 4,
        }
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "rope_scaling": {"type": "mrope", "mrope_section": [pairs - 2 * rest, rest, rest]},
            "tie_word_embeddings": False,
            "vision_start_token_id": self.vocabulary - 4,
            "vision_end_token_id": self.vocabulary - 3,
            "image_token_id": self.vocabulary - 2,
            "video_token_id": self.vocabulary - 1,
            "vision_config": vision,
        }

    def batch(self, rows: int) -> dict[str, np.ndarray]:
        """Draw `rows` sequences that begin with an image; every token of their text is asked for."""
        rng = np.random.default_rng(0)
        start, end, image = (self.vocabulary - back for back in (4, 3, 2))
        shown = [start, *[image] * (self.patches // MERGE**2), end]
        ids = rng.integers(0, start, (rows, self.tokens))
        ids[:, : len(shown)] = shown
        side = self.image_side // PATCH
        pixels = rng.standard_normal((rows * self.patches, CHANNELS * FRAMES * PATCH**2))
        return {
            "input_ids": ids,
            "labels": np.where(ids < start, ids, -100),
            "pixel_values": pixels.astype(np.float32),
            "image_grid_thw": np.array([[1, side, side]] * rows),
        }

    def prompt(self, rows: int) -> dict[str, np.ndarray]:
        """Draw the batch without labels."""
        return {key: array for key, array in self.batch(rows).items() if key != "labels"}

    def image(self) -> Image.Image:
        """Draw a decoded image that has to be resized."""
        noise = np.random.default_rng(0).integers(0, 256, (self.source_side // 8, self.source_side // 8, CHANNELS))
        return Image.fromarray(noise.astype(np.uint8)).resize((self.source_side, self.source_side))


SMALL = Shape(
    depth=8,
    embed_dim=256,
    vision_heads=4,
    layers=8,
    hidden=512,
    heads=8,
    key_heads=4,
    inner=1408,
    vocabulary=32000,
    rows=2,
    tokens=512,
    image_side=448,
    source_side=640,
)
SHAPES = {
    "small": SMALL,
    # The published checkpoints' vocabulary: what the head's logits cost.
    "large_vocabulary": replace(SMALL, vocabulary=151936),
    # So small that a run takes seconds: its times are those of the calls, not of the arithmetic.
    "tiny": Shape(
        depth=1,
        embed_dim=32,
        vision_heads=2,
        layers=1,
        hidden=32,
        heads=2,
        key_heads=1,
        inner=64,
        vocabulary=64,
        rows=2,
        tokens=12,
        image_side=56,
        source_side=80,
    ),
}
