"""What a GPU without built ops computes with: Paddle's own ops, but for the backward pass only what cannot be computed
again.

Each op of autograd keeps its inputs or its result. Of a formula of ten ops in float32 that is many times its input in
bfloat16; here a formula is one op to autograd, which keeps its input, or less. CPUs have the built ops, or the readable
forms, whose results these have up to rounding.
"""
