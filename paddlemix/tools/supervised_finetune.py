"""Fine-tunes a vision-language model as a config says, in JSON or YAML.

Example:
    python paddlemix/tools/supervised_finetune.py paddlemix/config/demo/qwen2_vl_shapes.json --learning_rate 1e-4
"""

from __future__ import annotations

import sys

from paddlemix._environment import gpu_is_usable, is_older_than_ampere
from paddlemix.configuration import file as config_file
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.best_metric import check_best_metric
from paddlemix.distributed.peers import watching_peers
from paddlemix.distributed.ranks import only_first
from paddlemix.printable import printable
from paddlemix.tools.report_errors import report_errors
from paddlemix.training.compute_dtype import settle_compute_dtype
from paddlemix.training.finetune import Run, prepare_resume, save_results
from paddlemix.training.run_folder import alone_in_output_dir


@watching_peers()
def main(arguments: list[str]) -> None:
    """Read the config and do what it says."""
    gpu = {"has_gpu": gpu_is_usable(), "before_ampere": is_older_than_ampere()}
    run(config_file.read_command_line(arguments, **gpu))


def run(config: FinetuneConfig) -> None:
    """Do a run, with its `output_dir` for itself.

    Args:
        config: checked.

    Raises:
        OSError: a file is missing or cannot be written, or another run is at work in `output_dir`.
        SystemExit: SIGTERM has ended training; a checkpoint is saved.
        ValueError: records, model and config do not fit one another, or a loss or weight is NaN or inf.
    """
    config_file.check_degrees(config)
    with alone_in_output_dir(config):
        _run(config)


def _run(config: FinetuneConfig) -> None:
    """Load, print the plan, train, evaluate, save."""
    job = Run.of(config)
    job.check_tokens()
    train, evaluation = job.load_datasets()

    args = config_file.build_training_arguments(config)
    answers = job.answer_evaluation(evaluation, ranks=args.dataset_world_size)
    check_best_metric(config, answers)
    checkpoint = prepare_resume(args) if args.do_train else None
    computed = settle_compute_dtype(config.model.cpu_compute_dtype, checkpoint)
    model = job.load_model(args)
    job.set_recompute(model)
    rate_factors = job.set_learning_rates(model) if args.do_train else {}

    # Slow to import, so mistakes in a config are found before.
    from paddlemix.training.intervals import count_intervals
    from paddlemix.training.plan import describe_plan
    from paddlemix.training.run_identity import identity_keys
    from paddlemix.training.schedule import count_steps
    from paddlemix.training.sft import SFTTrainer

    trainer = SFTTrainer(
        model,
        args,
        train,
        evaluation,
        job.processor,
        sampling=job.sampling,
        identity_keys=identity_keys(config, computed),
        early_stopping=job.early_stopping(),
        answers=answers,
        rate_factors=rate_factors,
        benchmark=config.training["benchmark"],
    )
    if trainer.train_sampler is not None:
        count_intervals(args, config.training, count_steps(trainer.train_sampler.steps, args))
    if trainer.is_world_process_zero():
        print(printable(describe_plan(model, train, evaluation, args, trainer.train_sampler)), flush=True)
    # The earlier run is given up only now that nothing is left to be refused.
    only_first(lambda: config_file.clear_output_dir(config))
    only_first(lambda: job.write_merged_base(model))
    metrics: dict[str, float] = {}
    if args.do_train:
        metrics |= trainer.train(checkpoint).metrics
        if trainer.interruption.has_ended_training:
            trainer.interruption.exit()
        metrics |= trainer.bad_record_metrics()
    if args.do_eval:
        metrics |= trainer.evaluate()
    save_results(trainer, metrics)


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
