"""Ops on images in numpy arrays, which need no Paddle: data workers start quickly.

Each is one public function that computes with the library that `external_ops` builds, or in its readable form; the
results are the same, bit by bit. The built ones compute on the calling thread and let other threads of Python run.
"""

from paddlemix.ops.images.patchify import patchify
from paddlemix.ops.images.resize import resize_bicubic

__all__ = ["patchify", "resize_bicubic"]
