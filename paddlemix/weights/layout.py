"""Where a family's files differ from its parameters.

Paddle keeps a linear layer's weight as [in, out], the published files as [out, in]; a family's `WeightLayout` says what
else differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paddlemix.weights.stored_tensor import Source

if TYPE_CHECKING:
    import paddle
    from paddle import nn

# What programs that wrap a model, or parts of it, put into the names of its parameters: torch's data parallelism,
# compiler, FSDP and checkpointing, DeepSpeed's engine in Lightning, and PEFT around a model that it has merged.
_WRAPPERS = re.compile(
    r"^(?:(?:module|_forward_module|_orig_mod|_fsdp_wrapped_module|base_model\.model)\.)+"
    r"|(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


def unwrapped(name: str) -> str:
    """Return the name that a stored tensor has without what wrappers of its model put into it.

    Args:
        name: in a file.

    Returns:
        As a published file has it.
    """
    return _WRAPPERS.sub("", name)


@dataclass(frozen=True)
class WeightLayout:
    """Where a family's files differ from its parameters.

    Attributes:
        renamed: (prefix on disk, prefix here), tried in order, for names that later writers changed.
        convolution_kernels: the kernel [C, T, P, P] of each parameter that is a convolution [E, C, T, P, P] on disk
            and a matmul [C * T * P * P, E] here.
        not_transposed: matrices that lie the same way on both sides.
        optional: names on disk that may stand there without a parameter, such as a tied head, and the parameter whose
            numbers each repeats.
        in_memory: (prefix here, prefix in memory), tried in order, where transformers 4.52 and later call layers
            otherwise in memory; PEFT names an adapter's tensors so.
    """

    renamed: tuple[tuple[str, str], ...]
    convolution_kernels: dict[str, tuple[int, ...]]
    not_transposed: tuple[str, ...]
    optional: Mapping[str, str] = field(default_factory=dict)
    in_memory: tuple[tuple[str, str], ...] = ()

    def name_here(self, name: str) -> str:
        """Return the parameter that `name` on disk is for."""
        name = unwrapped(name)
        for there, here in self.renamed:
            if name.startswith(there):
                return here + name.removeprefix(there)
        return name

    def name_in_memory(self, name: str) -> str:
        """Return what transformers 4.52 and later call parameter `name` in memory."""
        for here, there in self.in_memory:
            if name.startswith(here):
                return there + name.removeprefix(here)
        return name

    def sources(self, stored: Iterable[Source]) -> Iterator[tuple[str, Source]]:
        """Tell which parameter each stored tensor is for.

        A family whose files hold one tensor for several parameters, or several for one, overrides this: loading takes
        whatever reads like a stored tensor.

        Args:
            stored: the tensors of a checkpoint.

        Yields:
            The name of a parameter, and what it is read from.
        """
        for one in stored:
            yield self.name_here(one.name), one

    def is_transposed(self, name: str, ndim: int) -> bool:
        """Tell whether parameter `name` of `ndim` axes lies transposed on disk."""
        return ndim == 2 and name not in self.not_transposed

    def stored_shape(self, name: str, shape: list[int]) -> list[int]:
        """Return the shape on disk of parameter `name`, which has `shape` here."""
        if name in self.convolution_kernels:
            return [shape[1], *self.convolution_kernels[name]]
        return shape[::-1] if self.is_transposed(name, len(shape)) else shape

    def reading(self, name: str, shape: list[int], source: Source) -> tuple[list[int], bool]:
        """Tell how `source` is read into parameter `name`, which has `shape` here.

        Args:
            name: of the parameter.
            shape: of the parameter.
            source: what is read.

        Returns:
            The shape that it must have, and whether rows and columns change places on the way.
        """
        is_convolution = name in self.convolution_kernels and len(source.shape) > 2
        if source.in_paddles_order and not is_convolution:
            return shape, False
        return self.stored_shape(name, shape), self.is_transposed(name, len(shape))

    def speaks_for_other_order(self, name: str, shape: list[int], source: Source) -> int:
        """Tell what a matrix says of the order of axes that its file is read in.

        Args:
            name: of the parameter.
            shape: of the parameter.
            source: what is read.

        Returns:
            1 where it would fit only if rows and columns changed places, -1 where it fits only as it is, else 0.
        """
        wanted, found = self.reading(name, shape, source)[0], list(source.shape)
        if wanted == wanted[::-1] or not self.is_transposed(name, len(found)):
            return 0
        return (found == wanted[::-1]) - (found == wanted)


def checkpoint_tensors(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """Return what a checkpoint holds: the parameters, and the constants that the published files hold beside them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
