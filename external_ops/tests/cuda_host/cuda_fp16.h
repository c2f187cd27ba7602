// float16 on the host, where the compiler knows it.
#pragma once

struct __half {
  _Float16 number;
};

inline float __half2float(__half x) { return x.number; }
inline __half __float2half(float x) { return {static_cast<_Float16>(x)}; }
