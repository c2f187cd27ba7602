"""Training on texts of mixed lengths, padded, in transformers on torch.

`python transformers_mixed.py SHAPE REPEATS ROWS` prints a JSON object with the
real tokens a second of each batch, after one that is not counted.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
from data_shape import TEXTS, mixed_lengths, padded_batches, text_of
from torch.nn.utils.rnn import pad_sequence
from transformers_side import build
from workload import SHAPES

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    shape, repeats, rows = SHAPES[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])
    lengths = mixed_lengths(TEXTS)
    model = build(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    rates = []
    for batch in padded_batches(lengths, rows)[: repeats + 1]:
        texts = [map(torch.from_numpy, text_of(int(lengths[one]), shape.vocabulary)) for one in batch]
        ids, labels = zip(*texts, strict=True)
        inputs = {
            "input_ids": pad_sequence(ids, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
        }
        start = time.perf_counter()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rates.append(lengths[batch].sum() / (time.perf_counter() - start))
    json.dump({"tokens_a_second": rates[1:]}, sys.stdout)
