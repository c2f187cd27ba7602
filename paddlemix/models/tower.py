"""The numbers of a vision tower, as whatever reckons with its size asks for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerShape:
    """A tower's blocks, and how patches become tokens of the language model.

    Attributes:
        blocks: how many.
        width: of what runs past them.
        inner: width of a block's MLP inside.
        patch_values: numbers of a patch's pixels.
        group: tokens that are made together: 1, or all of an image where every image makes as many.
        patches_of_group: patches that a group is made of.
        embedding_inputs: numbers that the patch embedding keeps of a patch for its gradient, beside the pixels.
        aligner_of_patch: numbers that the layers behind the blocks keep of a patch.
        aligner_of_token: the same of a token.
    """

    blocks: int
    width: int
    inner: int
    patch_values: int
    group: int
    patches_of_group: int
    embedding_inputs: int
    aligner_of_patch: int
    aligner_of_token: int

    def patches(self, tokens: int) -> int:
        """Count the patches from which so many tokens are made."""
        return -(-tokens // self.group) * self.patches_of_group
