#!/bin/sh
# Compiles the drivers with a sanitizer and runs them with every kind of kernels this processor has:
#   sh tests/run.sh address      out-of-bounds and uninitialised use, undefined behaviour
#   sh tests/run.sh thread       races
# A second word, `tensors` or `images`, runs one driver alone. That of the tensors needs Paddle and oneDNN: PADDLE names
# Paddle's folder, ONEDNN_INCLUDE the folder of oneDNN's headers; the Python that has them is asked else.
set -eu
cd "$(dirname "$0")/.."
case ${1:-address} in
  address) flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined" ;;
  # libgomp is not compiled for ThreadSanitizer, which does not see its barriers: the driver's own loops run on threads
  # of the standard library instead.
  thread) flags="-fsanitize=thread -DPADDLEMIX_STD_THREADS" ;;
  *) echo "tests/run.sh address|thread [tensors|images]" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

run() {
  for isa in plain avx2 avx512; do
    PADDLEMIX_OPS_ISA=$isa TSAN_OPTIONS="ignore_noninstrumented_modules=1" "$1"
  done
}

# shellcheck disable=SC2086
if [ "${2:-images}" = images ]; then
  ${CXX:-g++} -std=c++17 -O1 -g -pthread $flags -Iinclude tests/image_driver.cc images/dispatch.cc \
    images/kernels_*.cc -o "$folder/images"
  run "$folder/images"
fi

# shellcheck disable=SC2086
if [ "${2:-tensors}" = tensors ]; then
  python=${PYTHON:-python}
  PADDLE=${PADDLE:-$($python -c 'from importlib.util import find_spec; print(find_spec("paddle").submodule_search_locations[0])')}
  ONEDNN_INCLUDE=${ONEDNN_INCLUDE:-$($python -c 'import sys; print(sys.prefix + "/include")')}
  sources="tests/driver.cc cpu/adamw.cc cpu/attention.cc cpu/codes.cc cpu/decode.cc cpu/dispatch.cc cpu/linear.cc cpu/matmul.cc cpu/mkl.cc cpu/product_times.cc cpu/rows.cc cpu/waiting.cc cpu/kernels_avx2.cc cpu/kernels_avx512.cc cpu/kernels_plain.cc"
  ${CXX:-g++} -std=c++17 -O1 -g -fopenmp $flags -Iinclude -I"$ONEDNN_INCLUDE" $sources -o "$folder/driver" \
    "$PADDLE/libs/libdnnl.so.3" -ldl -Wl,-rpath,"$PADDLE/libs"
  run "$folder/driver"
fi
