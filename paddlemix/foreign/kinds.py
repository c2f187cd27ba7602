"""The kinds of folders that hold no weights as they are, and what makes weights of each.

Sources: the documentation and the sources of the programs that write them, as of 2025: DeepSpeed's zero_to_fp32.py,
Accelerate's `merge-weights`, verl's model_merger, ms-swift's `export`, PaddleNLP's trainer and unified checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

CONVERT = "python paddlemix/tools/convert_checkpoint.py"
_THEN = " Then copy config.json and the files of tokenizer and processor beside them."


@dataclass(frozen=True)
class Kind:
    """A kind of folder, known by a name in it.

    Attributes:
        says: what the folder is, and the command; `{found}` is the name that was found, `{path}` where it is,
            `{folder}` the folder, `{parent}` the folder above, the last three quoted for a shell.
        files: globs of names of files, one of which suffices.
        folders: the same of folders.
    """

    says: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


# The first that fits counts: what was written on purpose goes before what may lie anywhere.
KINDS = (
    Kind(
        "{found} in it holds what DeepSpeed's ranks each kept of weights and optimizer (ZeRO). Make weights of it: `cd "
        "{folder} && python zero_to_fp32.py . out` (or `python -m deepspeed.utils.zero_to_fp32 {folder} out`)."
        + _THEN,
        folders=("global_step[0-9]*",),
    ),
    Kind(
        "{found} in it is a rank's part of what DeepSpeed saved (ZeRO). Make weights of it in the folder above: `cd "
        "{parent} && python zero_to_fp32.py . out`." + _THEN,
        files=("zero_pp_rank_*", "*_optim_states.pt", "*mp_rank_*_model_states.pt"),
    ),
    Kind(
        "{found} in it is Megatron's, whose ranks each hold a part of the weights under other names. Make weights of "
        "it with the program that wrote it, such as ms-swift: `swift export --mcore_model {folder} --to_hf true "
        "--output_dir out`.",
        files=("latest_checkpointed_iteration.txt", "common.pt", "model_optim_rng.pt"),
        folders=("mp_rank_*", "iter_[0-9]*"),
    ),
    Kind(
        "{found} in it holds the parts of weights that FSDP's ranks each kept. Make weights of it: `accelerate "
        "merge-weights {path} out`." + _THEN,
        folders=("pytorch_model_fsdp_*",),
    ),
    Kind(
        "{found} in it is a rank's part of what FSDP saved (torch.distributed.checkpoint). Make weights of it: "
        "`accelerate merge-weights {folder} out`." + _THEN,
        files=("*.distcp",),
    ),
    Kind(
        "{found} in it is the whole model that FSDP gathered (FULL_STATE_DICT). Give it the expected name: `mv {path} "
        "{folder}/pytorch_model.bin`.",
        files=("pytorch_model_fsdp.bin",),
    ),
    Kind(
        "{found} in it is a rank's part of what verl saved. Make weights of it: `python -m verl.model_merger merge "
        "--backend fsdp --local_dir {folder} --target_dir out`.",
        files=("model_world_size_*_rank_*.pt",),
    ),
    Kind(
        "{found} in it is a folder, as newer versions of zero_to_fp32.py make of what they are given for a file. Move "
        "its files to where they are looked for: `mv {path} {folder}/weights && mv {folder}/weights/* {folder}`.",
        folders=("pytorch_model.bin", "model.safetensors"),
    ),
    Kind(
        f"It is an adapter of PaddleNLP's. Make PEFT's form of it, which is read here: `{CONVERT} {{folder}} --output "
        "out --base MODEL`, with the folder of the model that it was trained on.",
        files=("lora_config.json", "peft_model*.safetensors", "lora_model_state*"),
    ),
    Kind(
        "{found} in it says that it is an adapter of PaddleNLP's of another kind than LoRA, which is not done here; "
        "merge it into its base with PaddleNLP, and take the merged model.",
        files=("vera_config.json", "prefix_config.json", "lokr_config.json", "reft_config.json"),
    ),
    Kind(
        f"{{found}} in it is a part of the weights: PaddleNLP's, or one whose index was not fetched. Put them "
        f"together: `{CONVERT} {{folder}} --output out`.",
        files=(
            "model_state.*.pdparams", "model_state-?????-of-?????.pdparams", "model-?????-of-?????.safetensors",
            "pytorch_model-?????-of-?????.bin", "master_weights*.safetensors", "master_weights*.pdparams",
        ),
    ),
    Kind(
        "{found} in it are the weights of an adapter without their adapter_config.json; fetch that file too.",
        files=("adapter_model.*",),
    ),
    Kind(
        "{found} in it is in the original layout of another publisher, under other names. Take the repository's files "
        "for transformers (model.safetensors, or model-00001-of-... with their index); if it holds the names of those, "
        "as a merge of a run's parts may, name it so: `mv {path} {folder}/model.safetensors`.",
        files=("consolidated*.safetensors",),
    ),
    Kind(
        "{found} in it is in the original layout of another publisher, under other names. Take the repository's files "
        "for transformers (model.safetensors, or model-00001-of-... with their index).",
        files=("consolidated*.pth", "params.json"),
    ),
    Kind(
        "{found} in it is llama.cpp's: mostly rounded to a few bits, and without the tower or with it in another "
        "file. No weights are made of it; take the checkpoint that it was made from.",
        files=("*.gguf",),
    ),
    Kind(
        "{found} in it is of a pipeline of diffusers, whose parts are models in folders of their own; its text_encoder "
        "may be a vision-language model, the pipeline is none.",
        files=("model_index.json", "diffusion_pytorch_model*"),
    ),
    Kind(
        "{found} in it was not fetched to its end. Fetch it again: `huggingface-cli download OWNER/NAME --local-dir "
        "{folder}` goes on where it stopped.",
        files=("*.incomplete", "*.part", "*.crdownload", "*.aria2"),
    ),
    Kind(
        "{found} in it is of ModelScope's client, which did not fetch all. Fetch it again: `modelscope download "
        "--model OWNER/NAME --local_dir {folder}` goes on where it stopped.",
        folders=("._____temp",),
    ),
    Kind(
        "{found} in it holds weights for another program. Take the repository's safetensors, or export again from the "
        "model that it was made from.",
        files=("*.h5", "*.msgpack", "*.onnx", "openvino_model*", "*.npz", "*.ot", "*.engine", "*.mnn", "*.tflite"),
    ),
)  # fmt: skip

# What may lie in any folder, so that folders below are looked into before.
LAST_KINDS = (
    Kind(
        "{found} in it holds the weights of a whole model, and config.json says what they are. Take it, and the files "
        "of tokenizer and processor, from the model that this one was made from, if they are not there.",
        files=("model.safetensors", "pytorch_model.bin", "model_state.pdparams"),
    ),
    Kind(
        "{found} in it has another name than weights are looked for by. If it holds the whole model, name it "
        "model.safetensors: `mv {path} {folder}/model.safetensors`.",
        files=("*.safetensors",),
    ),
    Kind(
        "{found} in it has another name than weights are looked for by. If it holds a state dict of the whole model "
        "and nothing else, name it pytorch_model.bin: `mv {path} {folder}/pytorch_model.bin`.",
        files=("pytorch_model*", "model*.pt", "model*.pth", "*.ckpt"),
    ),
    Kind(
        "{found} in it is of a run's optimizer and progress, which hold no weights. Take a checkpoint that was saved "
        "with its model.",
        files=(
            "optimizer*", "scheduler.*", "rng_state*", "trainer_state.json", "training_args.bin", "random_states*",
            "*.pdopt",
        ),
        folders=("optimizer_*",),
    ),
    Kind(
        "{found} in it is of the hub's client, which did not fetch all. Fetch it again: `huggingface-cli download "
        "OWNER/NAME --local-dir {folder}` goes on where it stopped.",
        folders=(".cache",),
    ),
)  # fmt: skip
