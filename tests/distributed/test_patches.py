"""What the patches bring computes what it says."""

from __future__ import annotations

from pathlib import Path

from .conftest import Launch

SCRIPT = """
import paddlemix  # before Paddle, which it prepares for
import paddle
import paddle.distributed as dist

dist.init_parallel_env()
rank = dist.get_rank()
groups = [dist.new_group([0, 1]) for _ in range(3)]
for group in groups:
    for sync in (True, False):
        mean = paddle.full([3], float(rank))
        dist.all_reduce(mean, op=dist.ReduceOp.AVG, group=group, sync_op=sync)
        assert mean.tolist() == [0.5] * 3, mean
        total = paddle.full([3], rank + 1.0)
        dist.reduce(total, 1, group=group, sync_op=sync)
        assert rank == 0 or total.tolist() == [3.0] * 3, total
    part = paddle.empty([2])
    dist.reduce_scatter(part, [paddle.full([2], 1.0), paddle.full([2], 2.0 + rank)], group=group)
    assert part.tolist() == [[2.0, 2.0], [5.0, 5.0]][rank], part
    seen = []
    dist.stream.all_gather(seen, paddle.full([1], rank), group=group, use_calc_stream=True)
    assert [one.item() for one in seen] == [0, 1], seen
print(f"rank {rank} is done", flush=True)
"""


def test_means_scattered_sums_and_groups_are_right_on_two_ranks(launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "collectives.py"
    script.write_text(SCRIPT)
    said = launch(script)
    assert [f"rank {rank} is done" in text for rank, text in enumerate(said)] == [True, True], said
