"""How the weights of a checkpoint are to be quantised, and what its config.json says of it then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal, NamedTuple, get_args

from paddlemix.quantization.scheme import Scheme

Format = Literal["gptq", "awq"]
FORMATS: tuple[Format, ...] = get_args(Format)
_BITS = {"gptq": (4, 8), "awq": (4,)}
_WORD = 32


class Modules(NamedTuple):
    """Which modules programs that read a checkpoint put quantised layers in the places of.

    Attributes:
        replaced: how the names of all of their linear layers begin, and of no others.
        left: words in the names of those that are left as they are.
    """

    replaced: str
    left: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How weights are quantised.

    Attributes:
        format: of the files.
        bits: of a weight.
        group: inputs that share a scale; -1 are all of an output.
        symmetric: whether half of the range of codes means 0; else each group says which code does.
        orders_by_use: whether inputs are rounded, and put into groups, in the order of their magnitudes.
        damping: share of the mean of its diagonal that is added to the diagonal of a Hessian; None where none is used.

    Raises:
        ValueError: the format holds no such weights; checked when the recipe is made.
    """

    format: Format = "gptq"
    bits: int = 4
    group: int = 128
    symmetric: bool = True
    orders_by_use: bool = False
    damping: float | None = 0.1

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"`format` is {self.format!r}; expected one of {', '.join(FORMATS)}.")
        if self.bits not in _BITS[self.format]:
            expected = " or ".join(map(str, _BITS[self.format]))
            raise ValueError(f"`bits` is {self.bits}; expected {expected} for files of {self.format}.")
        if self.group < 1 and self.group != -1:
            raise ValueError(f"`group_size` is {self.group}; expected -1, or how many inputs share a scale.")
        if self.damping is not None and not 0 <= self.damping < float("inf"):
            raise ValueError(f"`damp_percent` is {self.damping}; expected a share of 0 or more, such as 0.1.")
        if self.orders_by_use and self.damping is None:
            raise ValueError("`desc_act` needs a Hessian to order inputs by, and rounding to nearest has none.")
        if self.format == "awq" and self.orders_by_use:
            raise ValueError("`desc_act` is set, but awq's files cannot say which group an input is in; take gptq's.")
        if self.format == "awq" and self.symmetric:
            raise ValueError("`sym` is set, but awq's files say for each group which code means 0; leave it out.")

    @property
    def scheme(self) -> Scheme:
        """How the files are to be read. Of GPTQ's version 1 programs disagree where the code of 0 is not in its middle,
        so that files with such are of version 2."""
        return Scheme(self.format, self.bits, self.group, self.format == "gptq" and self.symmetric)

    def group_of(self, inputs: int) -> int:
        """Tell how many of a layer's inputs share a scale."""
        return inputs if self.group == -1 else self.group

    def check_layers(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Refuse layers that the format cannot hold.

        Args:
            sizes: inputs and outputs of each layer, by name.

        Raises:
            ValueError: groups of that size do not make up the inputs of one, or its outputs do not fill words.
        """
        in_word = _WORD // self.bits
        for name, (inputs, outputs) in sizes.items():
            if inputs % self.group_of(inputs):
                fitting = gcd(self.group, *(one for one, _ in sizes.values()))
                raise ValueError(
                    f"`group_size` {self.group} does not divide the {inputs} inputs of {name}; expected a divisor of "
                    f"those of all layers, such as {fitting}, or -1."
                )
            if outputs % in_word or (self.format == "gptq" and inputs % in_word):
                raise ValueError(
                    f"{name} has {inputs} inputs and {outputs} outputs, which do not fill words of {in_word} codes; "
                    f"files of {self.format} with {self.bits} bits cannot hold it."
                )

    def published(self, modules: Modules) -> dict[str, Any]:
        """Write what config.json says.

        Args:
            modules: which other programs replace, and which they leave.

        Returns:
            `quantization_config`.
        """
        values: dict[str, Any] = {"quant_method": self.format, "bits": self.bits, "group_size": self.group}
        left = {"modules_to_not_convert": [*modules.left]}
        if self.format == "awq":
            return {**values, "version": "gemm", "zero_point": True, **left}
        values |= {"desc_act": self.orders_by_use, "sym": self.symmetric, "lm_head": False}
        if self.damping is not None:
            values |= {"damp_percent": self.damping, "static_groups": False, "true_sequential": True}
        values["checkpoint_format"] = "gptq" if self.scheme.stores_zeros_less_one else "gptq_v2"
        # Of this word optimum asks only how names in memory begin. Releases of transformers differ in these, and where
        # nothing begins so, the quantised layers are silently made anew, of random numbers.
        return {**values, "block_name_to_quantize": modules.replaced, **left}
