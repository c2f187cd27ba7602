#!/bin/sh
# Compiles everything of the CUDA ops without a card: the kernels and the C interface for sm_80 and sm_90a, and Paddle's
# bindings, to object files, against the headers of the Paddle that is installed, with or without CUDA.
#   sh external_ops/cuda/check_compile.sh
# Needs nvcc (NVCC names it), and the headers of cuBLAS beside it or in the folder that CUBLAS_INCLUDE names. Without a
# toolkit, NVIDIA's packages bring both: pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cublas
# PYTHON names the Python that has Paddle. Ends with status 2 where something is missing, and says what.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
missing() { echo "check_compile.sh: $*" >&2; exit 2; }

nvcc=${NVCC:-nvcc}
command -v "$nvcc" >/dev/null || missing "no nvcc: install the CUDA toolkit or nvidia-cuda-nvcc, or name it in NVCC"
# What nvcc itself says it includes: it may be a link, or a script.
include=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/.*INCLUDES="-I\([^"]*\)".*/\1/p' | head -n 1)
[ -f "$include/cuda_runtime.h" ] || missing "no cuda_runtime.h in '$include', nvcc's headers: install nvidia-cuda-runtime"
cublas=${CUBLAS_INCLUDE:-$include}
[ -f "$cublas/cublas_v2.h" ] || missing "no cublas_v2.h in $cublas: install nvidia-cublas and name its headers in CUBLAS_INCLUDE"
python=${PYTHON:-python}
paddle=$("$python" -c 'from importlib.util import find_spec; print(find_spec("paddle").submodule_search_locations[0])' 2>/dev/null) ||
  missing "$python has no Paddle: name one that has in PYTHON"
thrust=$include
[ -f "$thrust/thrust/complex.h" ] || thrust=$include/cccl
[ -f "$thrust/thrust/complex.h" ] || missing "no thrust in $include: install nvidia-cuda-cccl"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for arch in 80 90a; do
  "$nvcc" -std=c++17 -O3 -gencode "arch=compute_$arch,code=sm_$arch" -I"$cublas" -Xcompiler -fPIC,-fvisibility=hidden \
    -Xptxas -v -c "$here/c_api.cu" -o "$folder/c_api.o" 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
  spills=$(grep -c '[1-9][0-9]* bytes spill' "$folder/log" || true)
  registers=$(sed -n 's/.*Used \([0-9]*\) registers.*/\1/p' "$folder/log" | sort -n | tail -n 1)
  echo "c_api.cu compiles for sm_$arch: $spills kernels spill registers, at most $registers in a thread"
done
for binding in "$here"/bind_*.cc; do
  ${CXX:-g++} -std=c++17 -O1 -w -fPIC -DPADDLE_WITH_CUDA -I"$here/../include" -I"$paddle/include" -I"$paddle/include/third_party" \
    -I"$include" -I"$thrust" -c "$binding" -o "$folder/binding.o"
  echo "$(basename "$binding") compiles for Paddle with CUDA"
done
