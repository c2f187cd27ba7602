"""What an adapter makes of a head that shares the embedding's weight.

PEFT trains copies: of embedding and head the one may change without the other, and then they are two weights from there
on. Which it was follows from the adapter's config and from what its file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import Adapter
from paddlemix.peft.targets import HEAD, HEAD_WEIGHT
from paddlemix.weights.layout import WeightLayout
from paddlemix.weights.stored_tensor import StoredTensor, same_numbers


@dataclass(frozen=True)
class Tying:
    """Whether head and embedding go on being one weight, and what each is made of.

    Attributes:
        embedding: the embedding's parameter.
        head: the head's.
        is_tied: whether they are one weight in the base.
        unties: whether they are two weights with the adapter, though one in the base.
        starts: what the weight of either is before products are added, where it is not the base's.
    """

    embedding: str
    head: str
    is_tied: bool
    unties: bool = False
    starts: Mapping[str, StoredTensor] = field(default_factory=dict)

    @classmethod
    def of(cls, adapter: Adapter, layout: WeightLayout, embedding_layer: str) -> Tying:
        """Find out what becomes of head and embedding.

        Args:
            adapter: any.
            layout: of the base.
            embedding_layer: what the family calls the embedding in its decoder.

        Returns:
            The answer; of the numbers those are read that the two may share.
        """
        (embedding,) = (one for one in layout.not_transposed if one.endswith(f".{embedding_layer}.weight"))
        is_tied = HEAD_WEIGHT in layout.optional
        starts = {name: adapter.tensors[name] for name in (embedding, HEAD_WEIGHT) if name in adapter.tensors}
        if not is_tied:
            return cls(embedding, HEAD_WEIGHT, is_tied, False, starts)
        return _of_tied(adapter, embedding, starts)

    @property
    def rows(self) -> int | None:
        """How many tokens the adapter's embedding or head has; None where it holds neither."""
        return next((one.shape[0] for one in self.starts.values()), None)


def _of_tied(adapter: Adapter, embedding: str, starts: dict[str, StoredTensor]) -> Tying:
    own = {name for name in starts if adapter.config.copies(names.parse(starts[name].name).place)}
    # What is no copy was saved as the one weight that both are.
    shared = next((starts[name] for name in starts if name not in own), None)
    made = {name: starts[name] if name in own else shared for name in (embedding, HEAD_WEIGHT)}
    if adapter.config.ties_head:
        made[HEAD_WEIGHT] = made[embedding] = made[embedding] or made[HEAD_WEIGHT]
    unties = not adapter.config.ties_head and (_has_product(adapter, embedding) or _differ(made, embedding))
    kept = {name: one for name, one in made.items() if one is not None}
    return Tying(embedding, HEAD_WEIGHT, True, unties, kept)


def _has_product(adapter: Adapter, embedding: str) -> bool:
    """Tell whether one of the two has a product; rows of tokens (`trainable_token_indices`) PEFT changes in both."""
    layers = (embedding.removesuffix(".weight"), HEAD)
    return any(adapter.part(layer, part) is not None for layer in layers for part in (names.EMBEDDING_UP, names.UP))


def _differ(made: Mapping[str, StoredTensor | None], embedding: str) -> bool:
    one, other = made[embedding], made[HEAD_WEIGHT]
    if one is None or other is None:
        return one is not other
    return one is not other and not same_numbers(one, other)
