"""Make tests/fixtures/yarn/: what the reference implementation computes with YaRN; needs torch and transformers.

    python tests/models/make_yarn_reference.py    # with transformers 4.57.6

`<family>.npz` has, for every case of `cases.json`, `<case>/logits` of the tiny model `<family>/tied` on its batch
`mixed_left`, with positions that are three times as far apart as that batch's, and `<case>/frequencies` and
`<case>/length` of the published sizes.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from reference_batches import inputs_of
from reference_families import FAMILIES, FIXTURES
from reference_numbers import Batch, tensors_of

FOLDER = FIXTURES / "yarn"
BATCH, STRETCH = "mixed_left", 3
PUBLISHED = {"hidden_size": 3584, "num_attention_heads": 28, "max_position_embeddings": 32768, "rope_theta": 1e6}


def main() -> None:
    """Write the files."""
    torch.set_num_threads(1)
    cases = json.loads((FOLDER / "cases.json").read_text("utf-8"))
    for name, family in FAMILIES.items():
        arrays: Batch = {}
        for case, scaling in cases.items():
            arrays[f"{case}/logits"] = logits(family, scaling)
            arrays[f"{case}/frequencies"], arrays[f"{case}/length"] = published(family, scaling)
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def logits(family, scaling: dict) -> np.ndarray:
    """Run the tiny model with another `rope_scaling`."""
    folder = family.root / "tied"
    config = family.config_class.from_pretrained(folder)
    config.text_config.rope_scaling = {**config.text_config.rope_scaling, **scaling}
    model = family.model_class.from_pretrained(
        folder, config=config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with np.load(folder / "reference.npz") as stored:
        batch = inputs_of(dict(stored), BATCH)
        positions = torch.from_numpy(stored[f"{BATCH}/position_ids"] * STRETCH)
    with torch.no_grad():
        return model(**tensors_of(batch), position_ids=positions).logits.numpy()


def published(family, scaling: dict) -> tuple[np.ndarray, np.ndarray]:
    """Compute the frequencies of a published size."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    sections = {"mrope_section": [16, 24, 24]}
    text = family.config_class(text_config={**PUBLISHED, "rope_scaling": {**sections, **scaling}}).text_config
    frequencies, length = ROPE_INIT_FUNCTIONS["yarn"](text, "cpu")
    return frequencies.numpy(), np.array(length)


if __name__ == "__main__":
    main()
