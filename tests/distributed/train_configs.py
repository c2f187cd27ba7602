"""Trains as the tool does, one config after the other: train_configs.py CONFIG ...; by itself or once a rank."""

from __future__ import annotations

import sys

import paddlemix  # before Paddle, which it prepares for
from paddlemix.tools.supervised_finetune import main

del paddlemix

if __name__ == "__main__":
    for config in sys.argv[1:]:
        main([config])
