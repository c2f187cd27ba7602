from __future__ import annotations

import pickle
import shutil

import pytest

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration.arguments import DataArguments, FinetuneConfig, ModelArguments
from paddlemix.files import refuse_pointer
from paddlemix.foreign.explain import explain
from paddlemix.foreign.kinds import KINDS, LAST_KINDS
from paddlemix.peft.folders import find_folders
from paddlemix.training.finetune import Run

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698592\n"
# What lies in a folder, and what is said of it.
FOLDERS = [
    (["latest", "zero_to_fp32.py", "global_step10/mp_rank_00_model_states.pt"], "python zero_to_fp32.py"),
    (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"], "python zero_to_fp32.py . out"),
    (["latest_checkpointed_iteration.txt", "iter_0000010/mp_rank_00/model_optim_rng.pt"], "swift export --mcore_model"),
    (["common.pt", "__0_0.distcp", "metadata.json"], "swift export --mcore_model"),
    (["mp_rank_00/model_optim_rng.pt"], "swift export --mcore_model"),
    (["pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/x"], "accelerate merge-weights {}/pytorch_model_fsdp_0 out"),
    ([".metadata", "__0_0.distcp", "__1_0.distcp"], "accelerate merge-weights {} out"),
    (["pytorch_model_fsdp.bin"], "mv {}/pytorch_model_fsdp.bin {}/pytorch_model.bin"),
    (["global_step_5/actor/model_world_size_2_rank_0.pt"], "verl.model_merger merge --backend fsdp"),
    (["pytorch_model.bin/pytorch_model-00001-of-00002.bin"], "mv {}/weights/* {}"),
    (["lora_config.json", "lora_model_state.pdparams"], "convert_checkpoint.py {} --output out --base MODEL"),
    (["peft_model-00001-of-00001.safetensors"], "convert_checkpoint.py {} --output out --base MODEL"),
    (["prefix_config.json", "prefix_model_state.pdparams"], "another kind than LoRA"),
    (["model_state.tp00.pdparams", "model_state.tp01.pdparams"], "convert_checkpoint.py {} --output out"),
    (["model_state.tp00_pp01.pdparams"], "convert_checkpoint.py {} --output out"),
    (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "convert_checkpoint.py {} --output out"),
    (["master_weights-00001-of-00001.safetensors", "optimizer-00001-of-00001.safetensors"], "convert_checkpoint.py {}"),
    (["adapter_model.safetensors"], "without their adapter_config.json"),
    (["consolidated.safetensors", "params.json"], "mv {}/consolidated.safetensors {}/model.safetensors"),
    (["consolidated.00.pth"], "Take the repository's files for transformers (model.safetensors, or"),
    (["params.json"], "Take the repository's files for transformers (model.safetensors, or"),
    (["model.safetensors"], "holds the weights of a whole model, and config.json says what they are"),
    (["._____temp/model.safetensors"], "modelscope download --model OWNER/NAME --local_dir {}"),
    ([".cache/huggingface/download/x.incomplete"], "huggingface-cli download OWNER/NAME --local-dir {}"),
    (["default/adapter_config.json", "reference/adapter_config.json"], "give one of {}/default, {}/reference."),
    (["model-Q4_K_M.gguf", "mmproj-f16.gguf"], "take the checkpoint that it was made from"),
    (["model_index.json", "unet/diffusion_pytorch_model.safetensors"], "a pipeline of diffusers"),
    (["diffusion_pytorch_model.safetensors"], "a pipeline of diffusers"),
    (["model.safetensors.incomplete"], "was not fetched to its end"),
    (["tf_model.h5"], "weights for another program"),
    (["weights.safetensors"], "mv {}/weights.safetensors {}/model.safetensors"),
    (["model.pt"], "mv {}/model.pt {}/pytorch_model.bin"),
    (["checkpoint-90/model.safetensors", "checkpoint-100/model.safetensors", "args.json"], "give {}/checkpoint-100,"),
    (["v0-20250101/checkpoint-20/adapter_config.json", "v0-20250101/args.json"], "give {}/v0-20250101/checkpoint-20."),
    (["runs/events", "checkpoint-9/model.safetensors.index.json"], "give {}/checkpoint-9."),
    (["checkpoint-7/global_step7/mp_rank_00_model_states.pt"], "Of {}/checkpoint-7, below it: global_step7"),
    (["optimizer.bin", "scheduler.bin", "random_states_0.pkl"], "hold no weights"),
    (["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"], "hold no weights"),
    (["optimizer.pdopt", "scheduler.pdparams"], "hold no weights"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder of empty files."""

    def make(names, name="model"):
        made = tmp_path / name
        for name in names:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).touch()
        return made

    return make


@pytest.mark.parametrize(("names", "said"), FOLDERS, ids=[names[0] for names, _ in FOLDERS])
def test_a_folder_without_weights_is_told_with_what_to_do(folder, names, said):
    made = folder(names)
    found = explain(made)
    assert said.replace("{}", str(made)) in found
    with pytest.raises(FileNotFoundError, match="no config.json") as caught:
        AutoModelMIX.from_pretrained(made)
    assert str(caught.value).endswith(found)


def test_a_path_is_written_as_a_shell_reads_it(folder):
    made = folder(["pytorch_model_fsdp_0/__0_0.distcp"], name="my $model")
    assert f"`accelerate merge-weights '{made}/pytorch_model_fsdp_0' out`" in explain(made)


def test_every_kind_is_tested(folder, tmp_path):
    said = []
    for names, _ in FOLDERS:
        said.append(explain(folder(names)))
        shutil.rmtree(tmp_path / "model")
    for kind in (*KINDS, *LAST_KINDS):
        first_words = kind.says.format(found="", folder="", path="", parent="").strip()[:40]
        assert any(first_words in text for text in said), kind


def test_a_folder_of_which_nothing_is_known_is_told_nothing(folder, tmp_path):
    assert explain(folder(["notes.txt", "config.json"])) == explain(tmp_path / "nowhere") == ""


def test_a_folder_that_leads_back_to_itself_ends(folder):
    made = folder(["a/b/c"])
    (made / "a" / "again").symlink_to(made)
    assert explain(made) == ""


def test_a_config_beside_them_does_not_hide_what_is_missing(folder, tiny_checkpoint):
    made = folder(["global_step1/mp_rank_00_model_states.pt", "latest"])
    shutil.copy(tiny_checkpoint / "config.json", made)
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors; .* python zero_to_fp32.py \. out"):
        AutoModelMIX.from_pretrained(made)


def test_fine_tuning_tells_before_it_reads_records(tiny_checkpoint, tmp_path):
    made = shutil.copytree(tiny_checkpoint, tmp_path / "run")
    (made / "model.safetensors").rename(made / "model.gguf")
    run = Run.of(FinetuneConfig(ModelArguments(str(made)), DataArguments(), {}))
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors; .* model.gguf in it is llama.cpp's"):
        run.load_datasets()


def test_weights_that_are_a_folder_are_told_with_the_command(folder, tiny_checkpoint):
    made = folder(["pytorch_model.bin/pytorch_model-00001-of-00002.bin"])
    shutil.copy(tiny_checkpoint / "config.json", made)
    with pytest.raises(ValueError, match=r"a folder stands where a file .* && mv .*/weights/\* "):
        AutoModelMIX.from_pretrained(made)


def test_a_file_is_told_as_what_it_is(folder):
    made = folder(["model.gguf"])
    with pytest.raises(NotADirectoryError, match=r"is a file; .* model.gguf in it is llama.cpp's"):
        AutoModelMIX.from_pretrained(made / "model.gguf")


def test_an_adapter_of_paddlenlps_is_told_with_the_command(folder, tiny_checkpoint):
    made = folder(["lora_config.json", "lora_model_state.pdparams"])
    with pytest.raises(ValueError, match=r"holds no adapter_config.json; .*/convert_checkpoint.py "):
        find_folders(tiny_checkpoint, made)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model_state.pdparams"])
def test_a_pointer_of_git_lfs_is_told_with_the_command(tiny_checkpoint, tmp_path, name):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{name}: holds no content, .* && git lfs pull"):
        AutoModelMIX.from_pretrained(tmp_path)
    refuse_pointer(tiny_checkpoint / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_pointer_in_place_of_json_is_told_too(tiny_checkpoint, tmp_path, name):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{name}: holds no content, .* && git lfs pull"):
        AutoModelMIX.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_pointer_in_place_of_a_file_of_the_processor_is_told_too(tiny_checkpoint, tmp_path, name):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (copy / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{name}: holds no content, .* && git lfs pull"):
        AutoProcessorMIX.from_pretrained(copy)


def test_a_model_in_place_of_an_adapter_is_told_where_to_give_it(tiny_checkpoint):
    with pytest.raises(ValueError, match=r"holds no adapter_config.json; .* It holds a model: give it as `model_name_"):
        find_folders(tiny_checkpoint, tiny_checkpoint)


def test_a_pickle_beside_safetensors_is_never_read(tiny_checkpoint, tmp_path):
    class Runs:
        def __reduce__(self):
            return (tmp_path / "marker").touch, ()

    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    for name in (".metadata", "model.safetensors.metadata", "training_args.bin", "pytorch_model.bin"):
        (model / name).write_bytes(pickle.dumps(Runs()))
    AutoModelMIX.from_pretrained(model)
    assert not (tmp_path / "marker").exists() and len(list(model.iterdir())) == len(list(tiny_checkpoint.iterdir())) + 4
