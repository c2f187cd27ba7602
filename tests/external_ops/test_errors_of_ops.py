"""C++ errors in ops: they are raised in Python, and do not end the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import paddle
import pytest

ROOT = Path(__file__).parents[2]
PADDLE = Path(paddle.__file__).parent

# An op that fails as ops fail, registered as all of them are, beside the bindings' own header.
OP = """
#include "binding.h"
namespace paddlemix {
Tensors Fail(const Tensor& x, int kind) {
  FAILURES
  if (kind == 2) throw std::bad_alloc();
  if (kind == 3) throw std::runtime_error("the card fell off");
  if (kind == 4) PADDLE_THROW(::common::errors::Unimplemented("Paddle's own"));
  return {x};
}
Tensors FailBackwards(const Tensor&, const Tensor& y_grad, int kind) {
  if (kind == 5) throw std::invalid_argument("on the way back");
  return {y_grad};
}
}  // namespace paddlemix
PD_BUILD_OP(paddlemix_fail).Inputs({"X"}).Outputs({"Y"}).Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::Fail));
PD_BUILD_GRAD_OP(paddlemix_fail).Inputs({"X", paddle::Grad("Y")}).Outputs({paddle::Grad("X")}).Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::FailBackwards));
"""
# What of the CUDA bindings fails by itself; the kernels and a card's stream are stood in for.
CUDA_FAILURES = """if (kind == 0) succeeded(-1);
  if (kind == 1) dtype_of(x);"""
CUDA_STANDINS = """
extern "C" const char* paddlemix_cuda_error(void) { return "no kernel image is available"; }
namespace paddle { gpuStream_t Tensor::stream() const { return nullptr; } }
"""
CALLS = """
import sys, paddle
paddle.utils.cpp_extension.extension_utils.load_op_meta_info_and_register_op(sys.argv[1])
for kind in map(int, sys.argv[2:]):
    x = paddle.zeros([2], "float64")
    x.stop_gradient = False
    try:
        paddle._C_ops._run_custom_op("paddlemix_fail", x, kind)[0].sum().backward()
        print(kind, "ok", float(x.grad.sum()))
    except Exception as error:
        print(kind, type(error).__name__, str(error).splitlines()[0])
"""


def calls(folder: Path, binding: str, source: str, kinds: str, *flags: str) -> dict[str, str]:
    """Compile the op beside a binding's header, call it with each kind of failure, and give what each call did."""
    (folder / "op.cc").write_text(source)
    includes = [ROOT / "external_ops/include", ROOT / "external_ops" / binding, PADDLE / "include"]
    command = ["g++", "-std=c++17", "-O0", "-w", "-fPIC", "-shared", *flags, *(f"-I{path}" for path in includes)]
    libraries = [str(PADDLE / "libs" / name) for name in ("libphi.so", "libphi_core.so", "libcommon.so")]
    theirs = f"-I{PADDLE / 'include' / 'third_party'}"
    subprocess.run([*command, theirs, str(folder / "op.cc"), "-o", str(folder / "op.so"), *libraries], check=True)
    words = [sys.executable, "-W", "ignore", "-c", CALLS, str(folder / "op.so"), *kinds]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return {line[0]: line[2:] for line in done.stdout.splitlines()}


def check_common(said: dict[str, str]) -> None:
    assert said["2"].startswith("MemoryError") and "no memory for its intermediate numbers" in said["2"]
    assert said["3"].startswith("OSError") and "the card fell off" in said["3"]
    assert said["4"].startswith("NotImplementedError") and "Paddle's own" in said["4"]
    assert said["5"].startswith("ValueError") and "on the way back" in said["5"]
    assert said["6"] == "ok 2.0"


def test_an_error_in_an_op_on_the_cpu_is_raised(tmp_path):
    check_common(calls(tmp_path, "cpu", OP.replace("FAILURES", ""), "23456"))


def test_an_error_in_a_cuda_op_is_raised(tmp_path, build):
    toolkit = build.cuda_toolkit()
    if toolkit is None or not any((folder / "cuda_runtime.h").is_file() for folder in toolkit.includes):
        pytest.skip("no headers of a CUDA toolkit to compile the bindings with")
    source = OP.replace("FAILURES", CUDA_FAILURES) + CUDA_STANDINS
    headers = [f"-I{folder}" for folder in toolkit.includes]
    said = calls(tmp_path, "cuda", source, "0123456", "-DPADDLE_WITH_CUDA", *headers)
    assert said["0"].startswith("OSError") and "a CUDA op failed: no kernel image is available" in said["0"]
    assert said["1"].startswith("ValueError") and "dtype other than float32" in said["1"]
    check_common(said)
