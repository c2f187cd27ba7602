"""The CUDA kernels, compiled for the host, where a block's threads run one after another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest

ROOT = Path(__file__).parents[2]
CUDA, SHIM = ROOT / "external_ops" / "cuda", ROOT / "external_ops" / "tests" / "cuda_host"


@pytest.fixture(scope="module", autouse=True)
def sides():
    """The benchmark's own cases: what is checked here is what it checks on a card."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks" / "sides"))
        yield


class HostMemory:
    """numpy's arrays; what is not written yet is no number."""

    stream = 0
    kinds = {"bfloat16": ml_dtypes.bfloat16}  # noqa: RUF012

    def put(self, values, dtype, shift=0):
        array = self.empty(values.shape, dtype, shift)
        array[...] = values
        return array

    def empty(self, shape, dtype, shift=0):
        kind = np.dtype(self.kinds.get(dtype, dtype))
        room = np.empty(16 + (int(np.prod(shape)) + shift) * kind.itemsize, np.uint8)
        room[...] = 0xFF  # NaN in every dtype
        first = -room.ctypes.data % 16 + shift * kind.itemsize
        return room[first : first + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)

    def address(self, array):
        return array.ctypes.data

    def dtype(self, array):
        return str(array.dtype)


def gradients(formula, arrays, constants, upstream):
    """Values and gradients of a formula, by Paddle in float64."""
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in arrays]
    if not all(array.size for array in arrays):  # Paddle has no gradients of nothing
        return [np.zeros(up.shape) for up in upstream], [np.zeros(array.shape) for array in arrays]
    values = formula(*tensors, *(paddle.to_tensor(array) for array in constants))
    paddle.autograd.backward(
        values, [paddle.to_tensor(up).reshape(v.shape) for v, up in zip(values, upstream, strict=True)]
    )
    return [v.numpy() for v in values], [t.grad.numpy() for t in tensors]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels with")
    path = tmp_path_factory.mktemp("cuda_host") / "ops.so"
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-x", "c++", "-w", f"-I{SHIM}", str(CUDA / "c_api.cu")]
    subprocess.run([*command, "-o", str(path)], check=True)
    return path


@pytest.fixture
def ops(library):
    from cuda_library import CudaOps

    return CudaOps(library, HostMemory())


def wide(array):
    return np.asarray(array, dtype=np.float64)


@pytest.mark.parametrize(("dtype", "shift"), [("float32", 0), ("bfloat16", 0), ("float16", 1)])
def test_values_and_gradients_are_those_of_the_formulas(ops, dtype, shift):
    from cuda_cases import cases, check

    found = {
        case.name: check(case, ops, dtype, gradients, wide, shift) for case in cases(ops, np.random.default_rng(shift))
    }
    assert len(found) >= 60
    wrong = {name: error for name, error in found.items() if not error <= 1}
    assert not wrong


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_a_norm_of_float32_rows_in_a_narrower_dtype_is_the_float32_norm_rounded(ops, narrow):
    rng, memory = np.random.default_rng(6), HostMemory()
    for size in (17, 520):
        x, more = (memory.put(rng.standard_normal((3, size)), "float32") for _ in range(2))
        weight, bias = (memory.put(rng.standard_normal(size), "float32") for _ in range(2))
        branch = memory.put(more, narrow)
        for op, inputs in (
            (ops.rms_norm, (x, weight)),
            (ops.layer_norm, (x, weight, bias)),
            (ops.add_rms_norm, (x, branch, weight)),
        ):
            widened = [memory.put(one, "float32") for one in inputs]
            (*sums, exact), _ = op(*widened)
            (*found_sums, found), _ = op(*inputs, result=narrow)
            assert (found == exact.astype(found.dtype)).all() and memory.dtype(found) == narrow, op
            assert all((one == other).all() for one, other in zip(sums, found_sums, strict=True))


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [
        ((1, 1, 2, 0, 0), "two narrow dtypes are mixed"),
        ((2, 0, 2, 0, 0), "a float32 branch is added to narrower rows"),
        ((0, 0, 1, 2, 0), "a weight is of another narrow dtype"),
        ((0, 0, 3, 0, 0), "dtype is 3"),
    ],
)
def test_dtypes_that_no_norm_mixes_are_told(ops, dtypes, message):
    import ctypes

    from cuda_library import NormDtypes

    x = HostMemory().put(np.ones((1, 4)), "float32")
    given = ctypes.pointer(NormDtypes(*dtypes))
    with pytest.raises(RuntimeError, match=message):
        ops.call("rms_norm", x, x, x, x, x, x, 1, 4, 1e-6, given, 0)


def test_products_of_float32_are_rounded_to_tf32_where_that_is_asked(ops):
    rng, memory = np.random.default_rng(7), HostMemory()
    hidden, weight = rng.standard_normal((4, 8)), rng.standard_normal((8, 16))
    target, scale = memory.put(np.arange(4), "int64"), memory.put(np.ones(4), "float32")

    def rounded(x):
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32)

    losses = []
    for x, w, tf32 in ((hidden, weight, True), (rounded(hidden), rounded(weight), False), (hidden, weight, False)):
        given = memory.put(x, "float32"), memory.put(w, "float32"), target, scale
        (loss,), _ = ops.linear_cross_entropy(*given, tf32=tf32, with_gradients=False)
        losses.append(float(loss))
    assert losses[0] == losses[1] != losses[2]


def test_a_check_notices_a_wrong_result(ops):
    from cuda_cases import cases, check

    case = next(case for case in cases(ops, np.random.default_rng(0), "swiglu (2051,)"))
    # One number is off by a hundredth of itself.
    nearly = lambda gate, up: [gate * gate.sigmoid() * up * (1 + 0.01 * (gate == gate.max()))]  # noqa: E731
    object.__setattr__(case, "formula", nearly)
    assert check(case, ops, "float32", gradients, wide) > 10


def test_threads_that_run_in_another_order_compute_the_same(library, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(ROOT / 'benchmarks' / 'sides')]!r}\n"
        "import numpy as np\n"
        "from test_cuda_kernels import HostMemory\n"
        "from cuda_library import CudaOps, QuantizedWeight\n"
        f"ops, memory, rng = CudaOps({str(library)!r}, HostMemory()), HostMemory(), np.random.default_rng(0)\n"
        "x, weight, up = (memory.put(rng.standard_normal(s), 'float32') for s in ((9, 1030), (1030,), (9, 1030)))\n"
        "values, saved = ops.layer_norm(x, weight, weight)\n"
        "hidden, head = (memory.put(rng.standard_normal(s), 'float32') for s in ((5, 8), (8, 2051)))\n"
        "target, scale = memory.put(np.arange(5), 'int64'), memory.put(np.ones(5), 'float32')\n"
        "loss, grads = ops.linear_cross_entropy(hidden, head, target, scale, rows_at_once=2)\n"
        "query, held = (memory.put(rng.standard_normal(s), 'float32') for s in ((1, 3, 64), (1, 300, 1, 64)))\n"
        "mixed = ops.cached_attention(query, held[:, 0], held[:, 1], held, held.copy(), 270)\n"
        "codes, scales = memory.put(rng.integers(0, 256, 64 * 320), 'uint8'), memory.put(rng.random(640), 'float32')\n"
        "weight = QuantizedWeight((64, 640), 64, codes, memory.put(rng.random((256, 2)), 'float32'), scales)\n"
        "few, more = (memory.put(rng.random((rows, 640)), 'float32') for rows in (3, 20))\n"
        "products = [ops.quantized_linear(x, weight)[0][0] for x in (few, more)]\n"
        "out = [*values, *ops.layer_norm_grad(saved, up), *loss, *grads, mixed, held, *products]\n"
        "print(b''.join(array.tobytes() for array in out).hex())\n"
    )
    ways = [{}, {"PADDLEMIX_HOST_ORDER": "reverse"}]
    found = [
        subprocess.run([sys.executable, str(script)], env={**os.environ, **way}, capture_output=True, check=True).stdout
        for way in ways
    ]
    assert len(found[0]) > 100_000 and found[0] == found[1]


def test_slices_of_the_vocabulary_give_the_loss_and_gradients_of_the_whole(ops):
    from cuda_library import GRADIENTS, STATISTICS

    rng, memory = np.random.default_rng(3), HostMemory()
    hidden, weight = memory.put(rng.standard_normal((7, 12)), "float32"), rng.standard_normal((12, 50))
    target, scale = (
        memory.put(np.array([48, 34, 32, 5, 42, 0, 19]), "int64"),
        memory.put(rng.uniform(0.5, 1, 7), "float32"),
    )
    (loss,), (hidden_grad, weight_grad) = ops.linear_cross_entropy(
        hidden, memory.put(weight, "float32"), target, scale, rows_at_once=3
    )
    assert np.unique(target // 20).size == 3  # every slice has a target

    slices = [(first, memory.put(weight[:, first : first + 20], "float32")) for first in (0, 20, 40)]
    found = [memory.empty([3, 7], "float32") for _ in slices]
    for (first, part), statistics in zip(slices, found, strict=True):
        choice = {"first_token": first, "rows_at_once": 3}
        ops.cross_entropy_phase(STATISTICS, hidden, part, target, scale, statistics, [None, None], **choice)
    top = np.max([s[0] for s in found], axis=0)
    total = sum(s[1] * np.exp(s[0] - top) for s in found)
    joined = memory.put(np.stack([top, total, sum(s[2] for s in found)]), "float32")
    joined_loss, shares = memory.empty([], "float32"), []
    ops.call("cost", joined, scale, 7, joined_loss, 0)
    for first, part in slices:
        grads = [memory.empty(hidden.shape, "float32"), memory.empty(part.shape, "float32")]
        choice = {"first_token": first, "rows_at_once": 3}
        ops.cross_entropy_phase(GRADIENTS, hidden, part, target, scale, joined, grads, **choice)
        shares.append(grads)

    np.testing.assert_allclose(joined_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(sum(grads[0] for grads in shares), hidden_grad, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([grads[1] for grads in shares], 1), weight_grad, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotation_and_swiglu_may_overwrite_their_inputs(ops, dtype):
    import ctypes

    from cuda_library import DTYPES, RotaryPart

    rng, memory = np.random.default_rng(4), HostMemory()
    x, up = (memory.put(rng.standard_normal((5, 3, 32)), dtype) for _ in range(2))
    cos, sin = (memory.put(rng.uniform(-1, 1, (5, 16)), "float32") for _ in range(2))
    (turned,), _ = ops.rotary(x, cos, sin)
    (opened,), _ = ops.swiglu(x, up)
    place = memory.put(x, dtype)
    part = RotaryPart(memory.address(place), memory.address(place), 96, 96, 3, 1)
    ops.call("rotary", ctypes.pointer(part), 1, cos, sin, 5, 16, 0, DTYPES[dtype], 0)
    assert (wide(place) == wide(turned)).all() and (wide(place) != wide(x)).any()
    ops.call("swiglu", x, up, up, up.size, DTYPES[dtype], 0)
    assert (wide(up) == wide(opened)).all()


def slow_cached_attention(query, key, value, keys, values, length, starts, rows):
    """Attend one query head of one row at a time, in float64."""
    batch, heads, size = query.shape
    share = heads // keys.shape[2]
    y = np.empty(query.shape)
    for row in range(batch):
        places = np.arange(starts[row], length)
        past = rows[row, places], places
        row_keys = np.concatenate([wide(keys)[past], wide(key)[row][None]])
        row_values = np.concatenate([wide(values)[past], wide(value)[row][None]])
        for head in range(heads):
            scores = row_keys[:, head // share] @ wide(query)[row, head] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            y[row, head] = weights @ row_values[:, head // share] / weights.sum()
    return y


def cache_of(memory, rng, dtype, *, batch=2, heads=4, groups=2, size=16, capacity=40, length=21, spare=0, shift=0):
    """A query, a new key and value, and a cache in which what was not written is NaN."""
    query, key, value = (
        memory.put(rng.standard_normal((batch, count, size)), dtype, shift) for count in (heads, groups, groups)
    )
    held = [np.full((batch + spare, capacity, groups, size), np.nan) for _ in range(2)]
    for one in held:
        one[:, :length] = rng.standard_normal((batch + spare, length, groups, size))
    return query, key, value, *(memory.put(one, dtype, shift) for one in held)


CACHES = {
    "one token before it": {"length": 1},
    "nothing before it": {"length": 0},
    "full": {"length": 39},
    "three parts, one of them short": {"batch": 1, "groups": 1, "heads": 3, "capacity": 300, "length": 270},
    "no head shares a key": {"heads": 3, "groups": 3, "size": 128},
    "7 heads of 128": {"heads": 14, "size": 128, "length": 33},
    "more heads than a block": {"heads": 12, "groups": 1, "size": 32},
    "5 heads of 256": {"heads": 5, "groups": 1, "size": 256},
    "odd size": {"heads": 6, "size": 75},
    "large odd size": {"heads": 2, "size": 131},
    "rows to spare": {"spare": 2},
}


@pytest.mark.parametrize(("dtype", "shift"), [("float32", 0), ("bfloat16", 0), ("float16", 1)])
@pytest.mark.parametrize("name", CACHES)
def test_a_token_is_attended_to_what_the_cache_holds_and_written_to_it(ops, name, dtype, shift):
    rng, memory, shape = np.random.default_rng(5), HostMemory(), CACHES[name]
    query, key, value, keys, values = cache_of(memory, rng, dtype, shift=shift, **shape)
    batch, length = query.shape[0], shape.get("length", 21)
    ways = {
        "plain": ([0] * batch, None),
        "padded": ([length // 2, *[length] * (batch - 1)], None),
        "through a table": ([0, *[length // 3] * (batch - 1)], rng.integers(0, len(keys), (batch, keys.shape[1]))),
    }
    for way, (starts, rows) in ways.items():
        given = (query, key, value, keys, values, length)
        own = np.repeat(np.arange(batch)[:, None], keys.shape[1], axis=1)
        wanted = slow_cached_attention(*given, starts, own if rows is None else rows)
        before = wide(keys), wide(values)
        found = ops.cached_attention(
            *given,
            starts=memory.put(np.array(starts), "int32") if any(starts) else None,
            rows=None if rows is None else memory.put(rows, "int32"),
        )
        rounding = {"float32": 2e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
        np.testing.assert_allclose(
            wide(found), wanted, atol=rounding * np.abs(wide(values)[:, :length]).max(initial=3), err_msg=way
        )
        # The new place of each row is written, and nothing else.
        for cache, old, new in zip((keys, values), before, (key, value), strict=True):
            old[:batch, length] = wide(new)
            np.testing.assert_array_equal(wide(cache), old, err_msg=way)


def test_a_cache_is_cut_into_parts(ops):
    import ctypes

    from cuda_library import CachedAttention

    def parts(length):
        op = CachedAttention(*[None] * 9, 1, 3, 1, 16, 1000, length)
        return ops.call("cached_attention_scratch", ctypes.pointer(op)) / (4 * 3 * 18)

    assert [parts(length) for length in (127, 128, 270, 900)] == [0, 2, 3, 4]


def weight_of(memory, blocks):
    """A weight as `paddlemix.quantization` holds it, in the library's memory."""
    from cuda_cases import values_of_bytes
    from cuda_library import QuantizedWeight

    arrays = [memory.put(blocks.codes, "uint8")]
    arrays += [memory.put(one, "float32") for one in (values_of_bytes(blocks.values), blocks.scales)]
    zeros = None if blocks.zeros is None else memory.put(blocks.zeros, "float32")
    return QuantizedWeight(blocks.shape, blocks.block, *arrays, zeros)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["nf4", "int4", "int8"])
def test_parts_of_weights_are_put_into_floating_point_bit_by_bit(ops, kind, dtype):
    from paddlemix.quantization.rounding import rounded

    rng, memory = np.random.default_rng(8), HostMemory()
    # In packs of 8, several to a thread; and numbers by themselves, since packs would run over the ends of rows.
    for outputs, inputs in ((40, 384), (300, 128), (9, 72), (6, 5), (7, 3), (3, 1001)):
        blocks = rounded(rng.standard_normal((outputs, inputs)).astype(np.float32), kind)
        weight, whole = weight_of(memory, blocks), blocks.numbers(slice(None))
        parts = [(range(outputs), range(inputs)), (range(1, outputs), range(inputs // 2))]
        # From inputs on at which no pack begins; and at which one does.
        parts += [(range(outputs - 2, outputs), range(1, inputs)), (range(outputs), range(inputs // 16 * 8, inputs))]
        for part in parts:
            found = ops.dequantize(weight, *part, dtype)
            wanted = whole[part[0].start : part[0].stop, part[1].start : part[1].stop].astype(found.dtype)
            np.testing.assert_array_equal(wide(found), wide(wanted), err_msg=str((outputs, inputs, part)))
            assert np.abs(wide(found)).max() > 0.1


def test_few_rows_need_no_scratch_and_more_no_larger_part_of_a_weight_than_fills_a_card(ops):
    import ctypes

    from cuda_library import Codes, QuantizedProduct

    aligned = HostMemory().put(np.zeros(64), "uint8").ctypes.data

    def scratch(rows, shape=(3584, 18944), *, block=128, dtype=1, backwards=0, x=aligned, codes=aligned, at_once=0):
        weight = Codes(codes, None, None, None, *shape, block, 4)
        op = QuantizedProduct(weight, x, None, None, None, rows, at_once, backwards, 0)
        return ops.call("quantized_linear_scratch", ctypes.pointer(op), dtype)

    assert [scratch(rows) for rows in (0, 1, 16)] == [0, 0, 0]
    # The widest layer of 7B has 129.5 MiB: two parts; in float32 three, of a multiple of 128 outputs.
    assert scratch(17) == 2 * 1792 * 18944 and scratch(17, dtype=0) == 4 * 1280 * 18944
    assert scratch(17, backwards=1) == 2 * 9472 * 3584
    assert scratch(17, (3584, 3584)) == 2 * 3584 * 3584 and scratch(17, at_once=8) == 2 * 8 * 18944
    for odd in ({"x": aligned + 2}, {"codes": aligned + 8}, {"block": 100}, {"shape": (5, 36)}, {"backwards": 1}):
        assert scratch(1, **odd) > 0, odd
    with pytest.raises(RuntimeError, match="no outputs, no inputs or empty blocks"):
        scratch(17, block=0)


def test_what_the_library_cannot_do_is_told(ops):
    from cuda_library import QuantizedWeight

    x = HostMemory().put(np.ones(4), "float32")
    with pytest.raises(RuntimeError, match="dtype is 7; expected 0, 1 or 2"):
        ops.call("swiglu", x, x, x, 4, 7, 0)
    with pytest.raises(RuntimeError, match="activation is 3"):
        ops.call("activation", 3, x, x, 4, 0, 0)
    weight = QuantizedWeight((1, 4), 4, x, HostMemory().put(np.ones((256, 3)), "float32"), x)
    with pytest.raises(RuntimeError, match="a code has 2 bits; expected 4 or 8"):
        ops.quantized_linear(x.reshape(1, 4), weight)
    for change, words in (({"length": 40}, "the cache is full"), ({"size": 257}, "of 1 to 256 numbers")):
        shape = {"length": 21, **change}
        given = cache_of(
            HostMemory(), np.random.default_rng(0), "float32", **{**shape, "length": min(39, shape["length"])}
        )
        with pytest.raises(RuntimeError, match=words):
            ops.cached_attention(*given, shape["length"])
