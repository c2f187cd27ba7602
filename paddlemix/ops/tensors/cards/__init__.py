"""Attention as GPUs compute it: with Paddle's flash attention, and against a cache with a built op."""
