"""The keys of a fine-tuning config: their types, limits and defaults. Defaults are written here and nowhere else.

`ModelArguments`, `MediaArguments` and `DataArguments` hold keys of our own. `TrainingKeys` holds more of ours and those
of PaddleNLP's TrainingArguments whose type, limits or default we set; all others are taken over as PaddleNLP has them.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from paddlemix.configuration.problems import Place
from paddlemix.contract import AddedTokens, GroundingForm
from paddlemix.datasets.mixing.packs import DEFAULT_WINDOW
from paddlemix.datasets.reading.context import Placeholders
from paddlemix.datasets.train_on import TrainOn
from paddlemix.media.opening import ImageRange

STRICT = ConfigDict(extra="forbid", strict=True)

Reporter = Literal["none", "visualdl"]
Strategy = Literal["no", "steps", "epoch"]
# A number of steps, or a share of all steps of the run.
Interval = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class TokenItem:
    """A token to add to a vocabulary."""

    token: str = Field(min_length=1, description="Its text.")
    special: bool = Field(default=False, description="Whether answers are shown without it.")


@dataclass(frozen=True, config=STRICT)
class ModelArguments:
    """Which model is trained, which of its weights, and in which precision they are held."""

    model_name_or_path: str = Field(min_length=1, description="Folder of a checkpoint, or the name of a published one.")
    freeze_include: list[str] | None = Field(
        default=None, description='Parameters to freeze, as name patterns such as `["*visual*"]`.'
    )
    freeze_exclude: list[str] | None = Field(
        default=None, description="Parameters to train although `freeze_include` names them."
    )
    freeze_vit: bool = Field(default=False, description="Freeze the vision tower.")
    freeze_llm: bool = Field(default=False, description="Freeze the language model.")
    freeze_aligner: bool = Field(
        default=False, description="Freeze the layers that carry vision features to the language model."
    )
    quantize: Literal["nf4", "int8", "int4"] | None = Field(
        default=None,
        description="What the weights of the language model's linear layers are rounded to while they are read, with "
        "`lora`; null leaves them as the files have them, which may be quantised (GPTQ, AWQ, bitsandbytes).",
    )
    quantize_vision: bool = Field(
        default=False, description="With `quantize`, round the weights of the vision tower and the aligner too."
    )
    lora: bool = Field(default=False, description="Train low-rank adapters in place of the weights.")
    lora_rank: int = Field(default=8, ge=1, le=65536, description="Rank of the adapters.")
    lora_alpha: int = Field(default=16, ge=1, description="Adapters are scaled by `lora_alpha / lora_rank`.")
    lora_dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout in front of the adapters.")
    lora_target_modules: str | list[str] | None = Field(
        default=None,
        min_length=1,
        description="Linear layers that get an adapter, as names or their endings (`q_proj`) or regular expressions "
        "for whole names (`.*_proj`), in a list or with commas between; `all-linear` and null: all of the language "
        "model but its head.",
    )
    lora_rank_pattern: dict[str, Annotated[int, Field(ge=1, le=65536)]] = Field(
        default_factory=dict,
        description="Ranks of layers, in place of `lora_rank`, by names, endings or regular expressions for endings: "
        '`{"q_proj": 16, "layers.0.mlp.*": 4}`; the first that fits a layer decides.',
    )
    lora_alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="What `lora_alpha` is for single layers, named as in `lora_rank_pattern`."
    )
    rslora: bool = Field(default=False, description="Scale by `lora_alpha / sqrt(lora_rank)`, for large ranks.")
    lora_dora: bool = Field(
        default=False, description="DoRA: of each output's weights the length is trained, beside their direction."
    )
    lora_bias: Literal["none", "all", "lora_only"] = Field(
        default="none", description="Biases that are trained: `all` of the model, or those of layers with an adapter."
    )
    lora_plus_scale: float = Field(
        default=1.0,
        gt=0,
        description="LoRA+: the factor that starts as zero learns so many times as fast, and so do DoRA's lengths and "
        "the biases of `lora_bias`.",
    )
    lora_modules_to_save: str | list[str] | None = Field(
        default=None,
        description="Layers that are trained and saved whole, named as in `lora_target_modules`; null: embedding and "
        "head where a base model meets the tokens of turns, or any model `new_tokens`, else none.",
    )
    new_tokens: list[str | TokenItem] | str | None = Field(
        default=None,
        description='Tokens to add to the vocabulary, as texts or as `{"token": "<sep>", "special": true}`, or a file '
        "with one a line; special ones are left out where answers are shown.",
    )
    new_tokens_init: Literal["mean", "random"] = Field(
        default="mean",
        description="What the rows of new tokens begin as: the mean of those of the pieces that their texts were cut "
        "to, or random.",
    )
    new_tokens_multiple: int | None = Field(
        default=None, ge=1, description="Where rows are added, add some more up to a multiple of this, such as 64."
    )
    lora_path: str | list[str] | None = Field(
        default=None,
        min_length=1,
        description="Adapter on `model_name_or_path` to train further; of several all but the last become part of the "
        "model.",
    )
    create_new_adapter: bool = Field(
        default=False,
        description="Begin a new adapter on top of those named, which become part of the model.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="Precision of the weights; null follows `bf16` and `fp16`, float32 without them."
    )
    cpu_compute_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="float32",
        description="What float32 weights and activations are rounded to in products on the CPU; auto: the faster, "
        "as measured once on the machine where the run begins.",
    )

    @property
    def lora_paths(self) -> list[str]:
        """The adapters as a list, however they were given."""
        return [self.lora_path] if isinstance(self.lora_path, str) else self.lora_path or []


@dataclass(frozen=True, config=STRICT)
class DatasetItem:
    """One record set of a mixture."""

    name: str = Field(min_length=1, description='Record format, such as `"chatml_dataset"`; `"auto"` finds out.')
    data_files: str | list[str] = Field(
        min_length=1,
        description="Record files, folders of them or patterns; relative ones are looked for in the current folder, "
        "then beside the config.",
    )
    image_root: str | None = Field(
        default=None, description="Folder the records' image paths start from, looked for as `data_files` are."
    )
    prompt: str | None = Field(default=None, description="Question for records that have none, such as captions.")
    max_samples: int | None = Field(default=None, ge=1, description="Use so many records at most.")
    splits: str | list[str] | None = Field(
        default=None, description='Stretches of the records to use, such as `":90%"`, `"90%:"` or `"1000:2000"`.'
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Shuffle the records before `splits` and `max_samples` choose; null takes them as they come.",
    )
    weight: float | None = Field(
        default=None, gt=0, description="Probability mass of this set where sets are interleaved; null is 1."
    )
    repeat: float = Field(
        default=1.0,
        gt=0,
        le=10_000,
        description="How often an epoch goes through this set; 0.5 takes half of it, another half each time.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description='Names that the format reads for keys with others: `{"img_fn": "image"}`.'
    )
    markup: bool | None = Field(
        default=None, description="Whether `<ref>` and `<box>` in texts are markup; null leaves it to the format."
    )
    placeholders: Placeholders = Field(
        default="exact",
        description='`"any"` takes `<Image>`, `<image1>`, `<|image_1|>` and the like for placeholders as well.',
    )
    join_turns: bool = Field(default=False, description="Join consecutive turns of one role by a line end.")
    train_on: TrainOn = Field(
        default="assistant",
        description="What is learned where a record does not say so: what the assistant says, its last turn only, or "
        "the words of every turn.",
    )
    ignore_keys: list[str] | None = Field(
        default=None,
        min_length=1,
        description='Keys of the records that may be ignored, such as `"score"`, or `"messages[].score"` in one place.',
    )
    unpack_limit: int | None = Field(
        default=None,
        ge=1,
        description="Bytes that a `.gz` or `.parquet` file may hold; null is 200 times its size, 32 MiB in any case, "
        "and at most 64 GiB.",
    )

    @property
    def files(self) -> list[str]:
        """The record files as a list, however they were given."""
        return [self.data_files] if isinstance(self.data_files, str) else self.data_files


@dataclass(frozen=True, config=STRICT)
class DatasetArguments:
    """The mixtures to train on and to evaluate on."""

    train: list[DatasetItem] = Field(default_factory=list, description="Record sets to train on.")
    eval: list[DatasetItem] = Field(default_factory=list, description="Record sets to evaluate on.")


@dataclass(frozen=True, config=STRICT)
class MediaArguments:
    """How images and videos are shown; null leaves a setting to the environment, then to the checkpoint."""

    min_pixels: int | None = Field(
        default=None, gt=0, description="Smaller images are enlarged to this many pixels; null asks the model."
    )
    max_pixels: int | None = Field(
        default=None, gt=0, description="Larger images are shrunk to this many pixels; null asks the model."
    )
    resized_height: int | None = Field(
        default=None, gt=0, description="Every image is resized as if it had this height, and `resized_width`."
    )
    resized_width: int | None = Field(
        default=None, gt=0, description="Every image is resized as if it had this width, and `resized_height`."
    )
    fps: float | None = Field(
        default=None, gt=0, description="Frames of a video to take a second; null asks the model."
    )
    nframes: int | None = Field(default=None, gt=0, description="Frames of a video to take, in place of `fps`.")
    min_frames: int | None = Field(
        default=None, gt=0, description="Frames of a video to take at least where `fps` decides; null asks the model."
    )
    max_frames: int | None = Field(
        default=None, gt=0, description="Frames of a video to take at most where `fps` decides; null asks the model."
    )
    video_min_pixels: int | None = Field(
        default=None, gt=0, description="Smaller frames are enlarged to this many pixels; null asks the model."
    )
    video_max_pixels: int | None = Field(
        default=None, gt=0, description="Larger frames are shrunk to this many pixels; null asks the model."
    )
    video_total_pixels: int | None = Field(
        default=None,
        gt=0,
        description="Pixels that all frames of a video have together at most, two frames counting as one; null asks "
        "the model.",
    )
    image_range: ImageRange | None = Field(
        default=None,
        description="What is black and white in grey images of more than 8 bits: `bit_depth` takes the ends of what 16 "
        "bits hold, or floats' 0 and 1, `min_max` each image's least and greatest value; null asks the model.",
    )
    image_pixel_limit: int | None = Field(
        default=None,
        gt=0,
        description="Images of more pixels are refused, since decoding takes memory; null is 89478485.",
    )

    @property
    def media_settings(self) -> dict[str, Any]:
        """The settings by name, as a processor takes them."""
        return {one.name: getattr(self, one.name) for one in fields(MediaArguments)}


@dataclass(frozen=True, config=STRICT)
class DataArguments(MediaArguments):
    """Which records are used, how they are written, and how large a sample may be."""

    dataset: DatasetArguments = Field(
        default_factory=DatasetArguments, description="Record sets, as `train` and `eval` lists of the keys below."
    )
    mix_strategy: Literal["concat", "interleave_under", "interleave_over"] = Field(
        default="concat",
        description="`concat` trains all records of all sets each epoch; `interleave_under` draws from the sets by "
        "`weight` until the first is used up, `interleave_over` until all are.",
    )
    mixtoken: bool = Field(
        default=False,
        description="Pack several records into sequences of `max_length` tokens; batch sizes then count packs.",
    )
    mixtoken_window: int = Field(
        default=DEFAULT_WINDOW, ge=1, description="Records of the shuffled order that are packed together."
    )
    grounding: GroundingForm | None = Field(
        default=None,
        description="Form of boxes and points where the family has several, such as Qwen2.5-VL: a JSON list, or tags "
        "round each, as ms-swift's `QWENVL_BBOX_FORMAT=legacy`; null asks the model.",
    )
    allow_control_tokens: bool = Field(
        default=False,
        description="Read control tokens that texts spell, such as `<|im_end|>`, as such; for texts of your own only.",
    )
    added_tokens: AddedTokens = Field(
        default="read",
        description="What texts hold that spell a token which the checkpoint has added: `read` takes the token, `text` "
        "its letters. Control tokens are `allow_control_tokens`.",
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="Which of the checkpoint's chat templates writes prompts, by its name, where it has several; it is "
        "the default of what is saved. null: the one called `default`.",
    )
    max_length: int = Field(default=2048, gt=0, description="Tokens a record may have, those of images included.")
    on_overlong: Literal["raise", "skip", "truncate_text"] = Field(
        default="raise",
        description="Records of more than `max_length` tokens: `raise` takes them for bad records, `skip` counts and "
        "lists them, `truncate_text` cuts text after their last image.",
    )
    loss_per: Literal["token", "sample"] = Field(
        default="token",
        description="What each optimizer step's loss is a mean of: all target tokens, or records by their own means.",
    )
    group_by_length: bool = Field(
        default=False, description="Batch records of about the same length, so that little is padded."
    )
    shuffle: bool = Field(
        default=True, description="Draw in another order each epoch; false keeps the order of the files."
    )
    on_bad_record: Literal["raise", "skip"] = Field(
        default="raise",
        description="`raise` stops at a record that cannot be used, `skip` counts and lists it; one that turns out to "
        "be bad once it is drawn is replaced.",
    )
    check_media: Literal["headers", "full"] = Field(
        default="headers",
        description="What of images and videos is checked before the first step: `headers` alone, or all by decoding.",
    )
    refetch: bool = Field(
        default=False,
        description="Ask every address of an image or video once more, and replace what earlier runs have kept of it.",
    )

    @property
    def processor_settings(self) -> dict[str, Any]:
        """Collect what a processor is told, by the names that it takes."""
        return {
            **self.media_settings,
            "grounding": self.grounding,
            "allow_control_tokens": self.allow_control_tokens,
            "added_tokens": self.added_tokens,
            "chat_template": self.chat_template,
            "max_length": self.max_length,
            "truncate_text": self.on_overlong == "truncate_text",
        }


@dataclass(frozen=True, config=STRICT)
class TrainingKeys:
    """Training keys that are not PaddleNLP's as they are."""

    output_dir: str = Field(min_length=1, description="Folder for checkpoints, logs and results.")
    seed: int = Field(
        default=42, ge=0, le=2**31 - 1, description="Of all that is random: the order of records, adapters, dropout."
    )
    per_device_train_batch_size: int = Field(
        default=1, ge=1, description="Records (or packs) per card and forward pass."
    )
    per_device_eval_batch_size: int = Field(default=1, ge=1, description="The same for evaluation.")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=65536, description="Forward passes per optimizer step."
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="Highest learning rate of the run.")
    vision_learning_rate: float | None = Field(
        default=None, gt=0, description="The same for the vision tower; null: `learning_rate`."
    )
    aligner_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="The same for the layers that carry vision features to the language model; null: `learning_rate`.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"] = Field(
        default="cosine", description="How the learning rate falls."
    )
    warmup_ratio: float = Field(default=0.01, ge=0, le=1, description="Share of all steps spent on warming up.")
    weight_decay: float = Field(default=0.1, ge=0, description="Weight decay of AdamW.")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="Second moment's decay in AdamW.")
    num_train_epochs: float = Field(
        default=1.0, gt=0, le=1_000_000, description="Passes over the records, unless `max_steps` is set."
    )
    evaluation_strategy: Strategy = Field(default="no", description="When to evaluate.")
    predict_with_generate: bool = Field(
        default=False,
        description="Evaluate by what the model answers too, with the scores of paddlemix/tools/evaluate.py.",
    )
    max_new_tokens: int = Field(default=128, ge=1, description="Tokens of the longest such answer.")
    save_strategy: Strategy = Field(default="steps", description="When to save a checkpoint.")
    save_steps: Interval = Field(
        default=100,
        description='Steps between checkpoints if `save_strategy` is "steps"; below 1, the share of all steps.',
    )
    eval_steps: Interval | None = Field(
        default=None, description="Steps between evaluations, or their share; null: `logging_steps`."
    )
    logging_steps: Interval = Field(default=1, description="Steps between two lines of the log, or their share.")
    dataloader_num_workers: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="Processes that prepare records; null: 1, and 0 where this process has a single core.",
    )
    recompute: bool = Field(
        default=False, description="Keep the inputs of the blocks alone, and compute them again for the gradients."
    )
    recompute_vit: bool | None = Field(
        default=None, description="The same for the vision tower alone; null: as `recompute` says."
    )
    recompute_llm: bool | None = Field(
        default=None, description="The same for the language model alone; null: as `recompute` says."
    )
    fp16_opt_level: Literal["O0", "O1", "O2"] = Field(
        default="O1", description="O1 computes in half precision where that is safe, O2 holds the weights in it too."
    )
    amp_master_grad: bool | None = Field(
        default=None,
        description="Add gradients up in float32 where weights are held in half precision (O2, or `dtype`); null does "
        "so in fp16, and where a step has several forward passes.",
    )
    scale_loss: float = Field(
        default=2.0**15,
        ge=1,
        le=3e38,  # the scale is a float32
        description="What the loss is multiplied by in fp16 at first; halved where gradients overflow, doubled after "
        "2000 steps without.",
    )
    # PaddleNLP lists adafactor too, but cannot make it.
    optim: Literal["adamw", "adamw_mini", "adamw_custom", "adamw_16bit_moment"] = Field(
        default="adamw", description="The optimizer."
    )
    hybrid_parallel_topo_order: Literal["pp_first", "sharding_first"] | None = Field(
        default=None, description="Order of the groups of ranks; null is pp_first."
    )
    report_to: Reporter | list[Reporter] = Field(default="visualdl", description="Where curves are logged.")
    resume_from_checkpoint: bool | str | None = Field(
        default=None,
        description="true goes on from the newest whole checkpoint in `output_dir`, or begins where there is none; a "
        "path goes on from that one.",
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after so many evaluations in a row that are no better than the best."
    )
    early_stopping_threshold: float = Field(
        default=0.0, ge=0, description="Evaluations count as better if they are by more than this."
    )
    device: str | None = Field(default=None, description="null takes a GPU where Paddle has one, else the CPU.")
    release_grads: bool | None = Field(
        default=None,
        description="Free the gradients after each step; false keeps their memory, filled with zeros. null frees them "
        "but where `sharding` shares them out.",
    )
    skip_memory_metrics: bool = Field(default=False, description="Leave out the memory figures of the log.")
    benchmark: bool = Field(default=False, description="Show the samples a second with every log.")


@plain_dataclass(frozen=True)
class FinetuneConfig:
    """A whole config, checked.

    Attributes:
        model: the model's keys.
        data: the records' keys, with file names resolved.
        training: every TrainingArguments key by name, and those of ours beside them; a value for each.
        source: where the config was read from.
        places: where each given key stands; keys left at their default are absent.
    """

    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]
    source: str = ""
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def precision(self) -> dict[str, Any]:
        """The training keys and the model's `dtype`: all that says what weights are held and gradients added up in."""
        return {**self.training, "dtype": self.model.dtype}

    def place(self, key: str) -> Place:
        """Tell where a key was given; the config as a whole where it has its default."""
        return self.places.get(key, Place(self.source))
