"""Numbers of the host where tensors are: constants once, those of a batch all at once, none of them waited for.

On a card every copy that Paddle makes of an array waits until all that was asked of the card before is done. So what a
forward pass needs of the host comes in one piece with its batch, from memory that the card reads by itself, and what is
always the same stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import paddle

# Where each array of a parcel begins: a cache line, and as whole numbers of every dtype.
ALIGNMENT = 64
# Numpy has no bfloat16; Paddle takes its bits in this dtype.
BFLOAT16 = np.dtype(np.uint16)

# Of each array its name, dtype, shape, and the byte at which it begins.
Contents = list[tuple[str, str, tuple[int, ...], int]]

Arrays = Mapping[str, np.ndarray]

# In front of the names of a layout's arrays among those of its batch.
_IN_LAYOUT = "layout."


def constant(make: Callable[..., np.ndarray], *arguments: Any) -> paddle.Tensor:
    """Return an array as a tensor that is made once for each device, and must not be changed.

    Args:
        make: a function that always gives the same array for the same arguments; a function of a module, not a lambda.
        *arguments: hashable.

    Returns:
        `make(*arguments)`, in its dtype.
    """
    return _kept(make, arguments, paddle.get_device())


def constant_array(array: np.ndarray) -> paddle.Tensor:
    """Return a small array as a tensor that is made once for each device, and must not be changed."""
    return constant(_from_bytes, array.tobytes(), array.dtype.str, array.shape)


def _from_bytes(content: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape)


@lru_cache(maxsize=256)
def _kept(make: Callable[..., np.ndarray], arguments: tuple[Any, ...], device: str) -> paddle.Tensor:
    del device  # part of the name
    return paddle.to_tensor(make(*arguments))


def forget_constants() -> None:
    """Let every constant be made again."""
    _kept.cache_clear()


class Layout:
    """What is known of a batch before it is computed: where its targets, images and samples are.

    The host chooses shapes and calls kernels by it, and the card gathers and scatters. Found by `lay_out` of a family's
    model, in a data worker where there is one.

    Args:
        arrays: by name.
        tensors: those of them that are where the model is already.
    """

    def __init__(self, arrays: Arrays, tensors: Mapping[str, paddle.Tensor] | None = None) -> None:
        self._arrays, self._tensors = dict(arrays), dict(tensors or {})

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> np.ndarray:
        """Return one of the arrays."""
        return self._arrays[name]

    def tensor(self, name: str) -> paddle.Tensor:
        """Return one of the arrays as a tensor where the model is; one that has not come with the batch is copied."""
        if name not in self._tensors:
            self._tensors[name] = sent(self._arrays[name])
        return self._tensors[name]


def with_layout(batch: dict[str, np.ndarray], laid: Arrays) -> dict[str, np.ndarray]:
    """Let the arrays of a layout travel with their batch."""
    return {**batch, **{f"{_IN_LAYOUT}{name}": array for name, array in laid.items()}}


def model_inputs(batch: Arrays) -> dict[str, Any]:
    """Make a model's inputs of a batch.

    Args:
        batch: arrays; those of a layout are copied, as their memory may be written over once the next batch comes.

    Returns:
        Tensors by name, and as `layout` the layout of a batch that has one.
    """
    known = {name: array.copy() for name, array in batch.items() if name.startswith(_IN_LAYOUT)}
    return _with_known({name: paddle.to_tensor(batch[name]) for name in batch if name not in known}, known)


def handed_over(batch: Arrays) -> dict[str, Any]:
    """Make a model's inputs of a batch, on a card by one copy that the host does not wait for."""
    if not batch:  # a token that was chosen on the card
        return {}
    return Parcel.of(batch).unpacked() if is_on_card() else model_inputs(batch)


def _with_known(tensors: dict[str, paddle.Tensor], known: Arrays) -> dict[str, Any]:
    """Take a layout's arrays, and those of the tensors that are its, together."""
    if not known:
        return tensors
    own = {name.removeprefix(_IN_LAYOUT): tensors.pop(name) for name in known if name in tensors}
    return {**tensors, "layout": Layout({name.removeprefix(_IN_LAYOUT): one for name, one in known.items()}, own)}


class HostCopies(Mapping[str, np.ndarray]):
    """A batch's inputs as arrays; each tensor is copied, and waited for, once it is asked for.

    Args:
        inputs: by name; arrays, tensors, or None where an input is not given.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._inputs = {name: one for name, one in inputs.items() if one is not None}

    def __getitem__(self, name: str) -> np.ndarray:
        if isinstance(self._inputs[name], paddle.Tensor):
            self._inputs[name] = self._inputs[name].numpy()
        return self._inputs[name]

    def __contains__(self, name: object) -> bool:
        return name in self._inputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


def laid_end_to_end(arrays: Arrays) -> tuple[Contents, int]:
    """Choose where arrays lie in one piece of memory.

    Args:
        arrays: by name.

    Returns:
        Their places, and the bytes of the piece, whole cache lines.
    """
    contents: Contents = []
    end = 0
    for name, array in arrays.items():
        contents.append((name, array.dtype.str, array.shape, end))
        end += _padded(array.nbytes)
    return contents, end


def size_of(contents: Contents) -> int:
    """Return the bytes of the piece of memory that arrays were laid in."""
    return max((start + _padded(int(np.prod(shape)) * np.dtype(dtype).itemsize) for _, dtype, shape, start in contents))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def view(memory: Any, dtype: str, shape: tuple[int, ...], start: int) -> np.ndarray:
    """View an array where it lies in a piece of memory.

    Args:
        memory: anything with a buffer.
        dtype: of the array.
        shape: likewise.
        start: the byte at which it begins.

    Returns:
        The array; one without numbers lies elsewhere.
    """
    return np.empty(shape, dtype) if 0 in shape else np.ndarray(shape, dtype, memory, start)


class Parcel:
    """A batch on its way to a card.

    Made by whichever thread has the time for it: the arrays are copied to memory that the card reads by itself.
    `unpacked` is called by the thread that computes.

    Args:
        contents: of the memory.
        memory: uint8[bytes], as `laid_end_to_end` chose it; may be written over once the parcel is made.
    """

    def __init__(self, contents: Contents, memory: np.ndarray) -> None:
        self._contents, self._pinned = contents, _pinned(memory)
        # What the host reads itself; pixels stay where they are.
        self._known = {
            name: view(memory, dtype, shape, start).copy()
            for name, dtype, shape, start in contents
            if name.startswith(_IN_LAYOUT)
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Parcel:
        """Put a batch into a parcel."""
        contents, size = laid_end_to_end(arrays)
        memory = np.empty(size, np.uint8)
        for name, dtype, shape, start in contents:
            np.copyto(view(memory, dtype, shape, start), arrays[name])
        return cls(contents, memory)

    def unpacked(self) -> dict[str, Any]:
        """Return what `model_inputs` does: the tensors are parts of one copy, which the host does not wait for."""
        memory = _copied_to_card(self._pinned)
        tensors = {name: _part(memory, dtype, shape, start) for name, dtype, shape, start in self._contents}
        return _with_known(tensors, self._known)


def sent(array: np.ndarray) -> paddle.Tensor:
    """Make a tensor of an array that does not travel with a batch; a card copies it while the host goes on."""
    return _copied_to_card(_pinned(array)) if is_on_card() else paddle.to_tensor(array)


def is_on_card() -> bool:
    """Tell whether tensors are made on a card, which computes while the host goes on."""
    return paddle.get_device().startswith("gpu")


def _pinned(memory: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(memory, place=paddle.CUDAPinnedPlace())


def _copied_to_card(pinned: paddle.Tensor) -> paddle.Tensor:
    """Copy behind what was asked of the card before; Paddle keeps the pinned memory until that is done."""
    return pinned.cuda(blocking=False)


def _part(memory: paddle.Tensor, dtype: str, shape: tuple[int, ...], start: int) -> paddle.Tensor:
    """View a part of uint8[bytes] as another dtype and shape."""
    kind = np.dtype(dtype)
    name = "bfloat16" if kind == BFLOAT16 else kind.name
    size = int(np.prod(shape))
    if not size:
        return paddle.zeros(list(shape), name)
    # All of it at first: Paddle 3.3.1 loses its way in a view of another dtype that does not begin at the start.
    first = start // kind.itemsize
    return memory.view(name)[first : first + size].reshape(list(shape))
