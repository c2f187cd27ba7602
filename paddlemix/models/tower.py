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
        aligner_normed: numbers of a patch that go into the norms among these layers.
        aligner_matrices: numbers of these layers' matrices.
        aligner_scores: scores of the attention among these layers, of a group; 0 where there is none.
        gated: whether the blocks' MLPs are gated, which keeps a third of what is inside, and their norms RMS norms.
        adds_places: whether learned places are added to the patches, in the precision in which they are held.
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
    aligner_normed: int = 0
    aligner_matrices: int = 0
    aligner_scores: int = 0
    gated: bool = False
    adds_places: bool = False

    def patches(self, tokens: int) -> int:
        """Count the patches from which so many tokens are made."""
        return -(-tokens // self.group) * self.patches_of_group
