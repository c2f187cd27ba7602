"""Weights that trainers write beside an adapter's own file."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from paddlemix.weights.safetensors_file import read_safetensors_file
from paddlemix.weights.stored_tensor import StoredTensor
from paddlemix.weights.torch_file import read_torch_file

# Full weights under the names that they have in the adapted model: of the tower (ms-swift's tuner that trains it whole
# beside adapters), and of all that is trained without an adapter (trainers after LLaVA's).
_WHOLE_WEIGHTS = ("vit.safetensors", "non_lora_state_dict.bin", "non_lora_trainables.bin")
# No part of the model: states of trainers, and the head that values answers in reinforcement learning.
_NO_WEIGHTS = (
    "adapter_model.*", "adapter_model-*", "training_args.bin", "optimizer*", "scheduler*", "scaler*", "rng_state*",
    "trainer_state*", "random_states*", "value_head.*", "v_head.*", ".*",
)  # fmt: skip
# A whole model, as whoever saves a merged one into the adapter's folder leaves it.
_WHOLE_MODELS = ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
_OF_ADAPTERS = "adapter_config.json and adapter_model.*"
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.gguf", "*.pdparams")


def weights_beside(folder: Path) -> list[StoredTensor]:
    """List the full weights that lie beside an adapter.

    Args:
        folder: of the adapter.

    Returns:
        The tensors, under the names that their files have.

    Raises:
        ValueError: a file of weights lies there whose meaning is not known, or one is damaged.
    """
    for file in sorted(folder.iterdir()):
        if any(fnmatch(file.name, pattern) for pattern in _WHOLE_MODELS) and file.is_file():
            raise ValueError(
                f"{file}: a whole model beside an adapter, and one of them is too much. If the adapter is merged into "
                f"it, move {_OF_ADAPTERS} out of the folder, and give the folder as `model_name_or_path`; if it is the "
                "adapter's base, give each a folder of its own, as `model_name_or_path` and as `lora_path`."
            )
        if _is_of_unknown_weights(file):
            raise ValueError(
                f"{file}: weights beside an adapter whose meaning is not known here; without them the model would not "
                f"be the one that was trained. Known are {', '.join(_WHOLE_WEIGHTS)}. Merge the adapter with the "
                "program that made it and give the merged model as `model_name_or_path`, or, if the file does not "
                "belong to the adapter, move it away."
            )
    found = [folder / name for name in _WHOLE_WEIGHTS if (folder / name).is_file()]
    return [tensor for file in found for tensor in _tensors(file)]


def _is_of_unknown_weights(file: Path) -> bool:
    is_weights = file.is_file() and any(fnmatch(file.name, pattern) for pattern in _WEIGHT_FILES)
    is_known = file.name in _WHOLE_WEIGHTS or any(fnmatch(file.name, pattern) for pattern in _NO_WEIGHTS)
    return is_weights and not is_known


def _tensors(file: Path) -> list[StoredTensor]:
    return read_safetensors_file(file) if file.suffix == ".safetensors" else read_torch_file(file)
