// Errors of ops, in a form that Paddle raises in Python.
//
// Paddle turns its own exceptions into Python's, and ends the process (signal 6) where another one leaves an op. So the
// standard library's, which the ops throw, become Paddle's at the op's door. Each op that is registered below this
// header has such a door.
#pragma once

#include <new>
#include <stdexcept>
#include <utility>

#include "paddle/common/enforce.h"
#include "paddle/phi/api/ext/op_meta_info.h"

namespace paddlemix {

template <typename Function, Function function>
struct Guarded;

template <typename Result, typename... Arguments, Result (*function)(Arguments...)>
struct Guarded<Result (*)(Arguments...), function> {
  static Result call(Arguments... arguments) {
    try {
      return function(std::forward<Arguments>(arguments)...);
    } catch (const std::bad_alloc&) {
      PADDLE_THROW(::common::errors::ResourceExhausted("an op found no memory for its intermediate numbers"));
    } catch (const std::logic_error& error) {
      PADDLE_THROW(::common::errors::InvalidArgument("%s", error.what()));
    } catch (const std::runtime_error& error) {
      PADDLE_THROW(::common::errors::External("%s", error.what()));
    }
  }
};

}  // namespace paddlemix

#undef PD_KERNEL
#define PD_KERNEL(...)                                                                                  \
  ::paddle::KernelFuncImpl<decltype(&::paddlemix::Guarded<decltype(&__VA_ARGS__), &__VA_ARGS__>::call), \
                           &::paddlemix::Guarded<decltype(&__VA_ARGS__), &__VA_ARGS__>::call>::Compute
