#include "binding.h"

namespace paddlemix {
namespace {

const int32_t* places(const Tensor& x) { return x.numel() ? x.data<int32_t>() : nullptr; }

// `keys` and `values` are written to, in place: they are a cache that the caller owns.
Tensors CachedAttentionForward(const Tensor& query, const Tensor& key, const Tensor& value, Tensor& keys,  // NOLINT
                               Tensor& values, const Tensor& starts, const Tensor& rows, int64_t length) {  // NOLINT
  Tensor y = allocate_like(query);
  const auto query_shape = query.shape(), shape = keys.shape();
  PaddlemixCachedAttention op{numbers(query), numbers(key), numbers(value), place(keys), place(values), places(starts),
                              places(rows), place(y), nullptr, query_shape[0], query_shape[2], shape[2], shape[3],
                              shape[1], length};
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_cached_attention_scratch(&op)), query);
  op.scratch = place(scratch);
  succeeded(paddlemix_cuda_cached_attention(&op, dtype_of(query), stream_of(query)));
  return {y};
}

}  // namespace
}  // namespace paddlemix

PD_BUILD_OP(paddlemix_cuda_cached_attention)
    .Inputs({"Query", "Key", "Value", "Keys", "Values", "Starts", "Rows"})
    .Outputs({"Y", "KeysOut", "ValuesOut"})
    .Attrs({"length: int64_t"})
    .SetInplaceMap({{"Keys", "KeysOut"}, {"Values", "ValuesOut"}})
    .SetKernelFn(PD_KERNEL(paddlemix::CachedAttentionForward));
