"""The numbers of a vision tower, as whatever reckons with its size asks for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerShape:
    """A tower's blocks, and how patches become tokens of the language model.

    Attributes:
        blocks: how many.
        full_blocks: those whose attention covers an image, or a frame of a video, whole.
        window: patches of the windows in which that of the others stays; 0 where there are none.
        heads: of attention.
        width: of what runs past the blocks.
        inner: width of a block's MLP inside.
        patch_values: numbers of a patch's pixels.
        group: tokens that are made together: 1, or all of an image where every image makes as many.
        patches_of_group: patches that a group is made of.
        embedding_inputs: numbers that the patch embedding keeps of a patch for its gradient, beside the pixels.
        aligner_of_patch: numbers that the layers behind the blocks keep of a patch.
        aligner_of_token: the same of a token.
        aligner_matrices: numbers of these layers' matrices.
        gated: whether the blocks' MLPs are gated, which keeps a third of what is inside.
        adds_places: whether learned places are added to the patches, in the precision in which they are held.
    """

    blocks: int
    full_blocks: int
    window: int
    heads: int
    width: int
    inner: int
    patch_values: int
    group: int
    patches_of_group: int
    embedding_inputs: int
    aligner_of_patch: int
    aligner_of_token: int
    aligner_matrices: int = 0
    gated: bool = False
    adds_places: bool = False

    def patches(self, tokens: int) -> int:
        """Count the patches from which so many tokens are made."""
        return -(-tokens // self.group) * self.patches_of_group

    def scores(self, patches: int, images: int) -> float:
        """Count the scores of an average block's attention, were all of them held.

        Args:
            patches: of all images.
            images: as large as one another, where every image does not make as many tokens anyway.

        Returns:
            How many, of all heads.
        """
        of_image = self.patches_of_group if self.group > 1 else patches / max(images, 1)
        seen = self.full_blocks * of_image + (self.blocks - self.full_blocks) * min(self.window, of_image)
        return self.heads * patches * seen / self.blocks
