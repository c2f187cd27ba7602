"""The built ops of `paddlemix`: a library for one version of Paddle, which `paddlemix.ops` loads."""
