"""Fine-tunes a vision-language model as a JSON config says.

Example:
    python paddlemix/tools/supervised_finetune.py paddlemix/config/demo/qwen2_vl_shapes.json --learning_rate 1e-4
"""

from __future__ import annotations

import sys

from paddlemix.tools.report_errors import report_errors
from paddlemix.trainer import config_file
from paddlemix.trainer.finetune import load_datasets, load_model, load_processor, sampling_of, save_results


def main(arguments: list[str]) -> None:
    """Check, load, plan, train, evaluate, save."""
    config = config_file.read_command_line(arguments, has_gpu=config_file.gpu_is_usable())
    config_file.check_output_dir(config)
    processor = load_processor(config.model, config.data)
    train, evaluation = load_datasets(config, processor)

    config_file.clear_output_dir(config)
    args = config_file.build_training_arguments(config)
    model = load_model(config.model, args)

    # Slow to import, so a config's mistakes are told before.
    from paddlemix.trainer.plan import describe_plan
    from paddlemix.trainer.sft_trainer import SFTTrainer

    trainer = SFTTrainer(
        model,
        args,
        train,
        evaluation,
        processor,
        sampling=sampling_of(config.data),
        benchmark=config.training["benchmark"],
    )
    if trainer.is_world_process_zero():
        print(describe_plan(model, train, evaluation, args, trainer.train_sampler), flush=True)
    metrics: dict[str, float] = {}
    if args.do_train:
        metrics |= trainer.train(resume_from_checkpoint=args.resume_from_checkpoint or None).metrics
    if args.do_eval:
        metrics |= trainer.evaluate()
    save_results(trainer, metrics)


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
