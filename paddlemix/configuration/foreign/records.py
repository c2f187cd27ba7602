"""What others call the records: where they come from, how they are mixed, cut and packed, what of them is learned."""

from __future__ import annotations

from paddlemix.configuration.foreign.rows import ForeignKey, chosen, inverse, never, otherwise, passed_over, same

_SETS = (
    'Each set of `dataset.train` and `dataset.eval` is an object: {"name": "auto", "data_files": "train.json"}, with '
    "`image_root` for the folder of its images and `max_samples` for how many records to use."
)
_SPLITS = (
    'Name the same files in `dataset.train` and in `dataset.eval`, with `splits` ":90%" in the one and "90%:" in the '
    "other, and one `seed` in both to shuffle them before."
)
_LEARNED = (
    'Which turns are learned is `train_on` of each set in `dataset.train`: "assistant", "last" or "all"; a record may '
    "give its turns weights of their own."
)
_READ_WHEN_DRAWN = (
    "Records stay on disk and are read when they are drawn; `dataloader_num_workers` is how many processes prepare "
    "them. Take the key out."
)
_WEIGHTS = (
    'Each set has a `weight` of its own, which counts where `mix_strategy` is "interleave_under" or "interleave_over".'
)
_TOKENS = (
    "Sizes of images are given in pixels: `max_pixels` is the number of tokens times 28 x 28 where a token shows that "
    "many, as in Qwen2-VL."
)
_CUTS = 'Longer records are refused unless `on_overlong` is "skip" or "truncate_text", while others cut them.'

SETS: list[ForeignKey] = [
    *otherwise("dataset", "LS", _SETS),
    *never("dataset_name_or_path data_path meta_path", "LSMV", _SETS),
    *never(
        "val_dataset eval_dataset cached_dataset eval_data_path",
        "LSV",
        "Record sets to evaluate on stand in `dataset.eval`. " + _SETS,
        [],
    ),
    *never("dataset_dir", "L", "`data_files` of each set names its files, from the current folder or the config's on."),
    *never("media_dir image_folder image_dir", "LV", "`image_root` of each set is the folder of its images."),
    *never("val_size split_dataset_ratio data_split", "LS", _SPLITS, 0),
    *never(
        "max_samples max_train_samples max_eval_samples",
        "LT",
        "`max_samples` of each set says how many of its records are used.",
    ),
    *never("interleave_probs interleave_prob", "LS", _WEIGHTS, [], ""),
    *chosen(
        "stopping_strategy",
        "S",
        {"first_exhausted": {"mix_strategy": "interleave_under"}, "all_exhausted": {"mix_strategy": "interleave_over"}},
    ),
    *inverse("disable_shuffling", "L", "shuffle"),
    *same("train_dataloader_shuffle", "S", "shuffle"),
    *never("val_dataset_shuffle", "S", "The loss of an evaluation has no order: take the key out.", False),
    *never(
        "dataset_shuffle",
        "S",
        "`shuffle` draws in another order each epoch; `seed` of a set shuffles it before `splits` and `max_samples` "
        "choose.",
    ),
    *never("streaming", "LS", _READ_WHEN_DRAWN, False),
    *never("shuffle_buffer_size buffer_size tokenized_path", "LS", _READ_WHEN_DRAWN),
    *passed_over(
        "preprocessing_num_workers dataset_num_proc num_proc preprocessing_batch_size lazy_tokenize lazy_preprocess",
        "RLSV",
        "Records are prepared when they are drawn, by `dataloader_num_workers` processes.",
    ),
    *passed_over(
        "overwrite_cache load_from_cache_file",
        "LS",
        "Sizes of records that have changed are measured anew by themselves.",
    ),
    *chosen("strict", "S", {True: {"on_bad_record": "raise"}, False: {"on_bad_record": "skip"}}),
    *never("custom_dataset_info external_plugins custom_register_path", "S", _SETS, []),
    *never("model_name model_author", "S", "Records are used as they stand, whoever they speak of: take the key out."),
    *passed_over("download_mode data_shared_file_system", "LS", "Record files are local."),
    *never("columns", "S", "`columns` of each set renames its keys, the format's name first, then the record's."),
    *never(
        "system default_system system_prompt",
        "LS",
        "A record's `system` key, or its first turn, is the system turn: write it into the records.",
    ),
    *never(
        "tool_format agent_template", "LS", "The checkpoint's chat template writes tools and calls: take the key out."
    ),
    *never(
        "response_prefix enable_thinking",
        "LS",
        "The chat template is the checkpoint's own, and records say what is answered: take the key out.",
    ),
    *chosen(
        "use_chat_template",
        "S",
        {},
        "Records are written by the checkpoint's chat template: take the key out.",
        idle=(True,),
    ),
    *never("dataset_text_field formatting_func", "R", _SETS),
]

LENGTHS: list[ForeignKey] = [
    *same("cutoff_len max_seq_length max_seq_len model_max_length", "RLMV", "max_length", note=_CUTS),
    *chosen(
        "truncation_strategy",
        "S",
        {"delete": {"on_overlong": "skip"}, "raise": {"on_overlong": "raise"}},
        '`on_overlong` is "truncate_text" to cut text behind a record\'s last image, else "skip" or "raise".',
    ),
    *same("packing neat_packing zero_padding", "RLSM", "mixtoken", note="Records of a pack do not see one another."),
    *never("padding_free use_packing_flash", "RS", "`mixtoken` packs records, which leaves nothing to pad.", False),
    *never(
        "packing_length packing_strategy packing_num_proc",
        "RS",
        "Packs hold `max_length` tokens, as many records as fit: take the key out.",
    ),
    *chosen(
        "train_sampling_strategy",
        "T",
        {
            "random": {"shuffle": True},
            "sequential": {"shuffle": False},
            "group_by_length": {"group_by_length": True},
        },
        "`shuffle` and `group_by_length` say how records are drawn.",
    ),
    *passed_over("padding_side", "S", "Batches are padded on the right in training, and on the left for answers."),
    *passed_over("length_column_name", "T", "Lengths are measured, not read from a column."),
]

LEARNED: list[ForeignKey] = [
    *never("mask_history", "L", _LEARNED, False),
    *never("train_on_prompt", "L", _LEARNED, False),
    *never("loss_scale", "S", _LEARNED, "default"),
    *never("assistant_only_loss completion_only_loss", "R", _LEARNED, True),
    *chosen("ignore_pad_token_for_loss", "L", {}, "What is padded is never learned: take the key out.", idle=(True,)),
    *chosen(
        "average_tokens_across_devices",
        "T",
        {True: {"loss_per": "token"}},
        "The loss of a step is a mean over all cards, of tokens or, with `loss_per`, of records: take the key out.",
    ),
    *never(
        "use_dft_loss enable_dft_loss enable_channel_loss loss_type",
        "LS",
        "The loss is that of the next token, each with the weight that its record gives it: take the key out.",
        False,
    ),
    *never("label_smoothing_factor", "T", "Labels are not smoothed: take the key out.", 0),
    *never("neftune_noise_alpha", "TRLS", "Embeddings are trained without noise: take the key out.", 0, False),
]

MEDIA: list[ForeignKey] = [
    *same("image_max_pixels", "L", "max_pixels"),
    *same("image_min_pixels", "L", "min_pixels"),
    *same("video_fps", "L", "fps"),
    *same("video_maxlen fps_max_frames", "LS", "max_frames"),
    *same("fps_min_frames", "S", "min_frames"),
    *never(
        "image_resolution video_resolution",
        "L",
        "`max_pixels` and `video_max_pixels` count pixels: 512 x 512 are 262144.",
    ),
    *never("image_max_token_num image_min_token_num video_max_token_num video_min_token_num", "S", _TOKENS),
    *never(
        "crop_to_patches image_do_pan_and_scan size_factor",
        "L",
        "The family's processor says how images are cut up: take the key out.",
        False,
    ),
    *never(
        "norm_bbox", "S", "A family counts boxes as it was trained to; `grounding` is their form where it has several."
    ),
    *never("use_audio_in_video audio_sampling_rate", "LS", "No family hears: take the key out.", False),
]
