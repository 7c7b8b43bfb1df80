"""CLoRA's update of keys and values alone, and its memory use."""

import statistics

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from nestkala.adapters import CLoRA

from .comparison import Row, Work, in_turn

BATCH, TOKENS, WIDTH, CLASSES = 64, 50, 768, 10  # of ViT-B/32


def run() -> list[Row]:
    """Compared to a width x width update for every image, applied by a batched matrix product."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, TOKENS, WIDTH, generator=generator)
    directions = torch.randn(CLASSES, WIDTH, generator=generator)
    adapter = CLoRA(WIDTH, num_blocks=1)
    update = adapter.bind(directions)[0]
    found: dict[str, Tensor] = {}

    def plain() -> None:
        found["plain"] = plain_update(x, directions, adapter.q[0][:, 0])

    def ours() -> None:
        found["ours"] = torch.stack(list(update(x, ("k", "v")).values()))

    with torch.no_grad():
        timing = in_turn(plain, ours, repeats=30)
        torch.testing.assert_close(found["plain"], found["ours"], rtol=1e-3, atol=1e-3)
        # Memory beyond the result of both, and beyond stacking it here.
        returned = found["ours"].nbytes
        taken = {"plain": _peak_bytes(plain) - returned, "ours": _peak_bytes(lambda: update(x, ("k", "v"))) - returned}
    share = taken["ours"] / taken["plain"]
    return [
        Row(
            f"CLoRA's update alone, keys and values, {TOKENS} tokens of width {WIDTH}, batch {BATCH}",
            "a width x width update for every image, with bmm",
            f"{timing.text}; memory beyond the result {share:.2%} "
            f"({taken['ours'] / 1e6:.2g} MB, {taken['plain'] / 1e6:.3g} MB)",
            "30 times, under 1 %",
            statistics.median(timing.ratios) >= 30 and share < 0.01,
            {"plain_s": timing.plain, "ours_s": timing.ours, "bytes": taken},
        )
    ]


def plain_update(x: Tensor, directions: Tensor, q: Tensor) -> Tensor:
    """The update of each projection, (projections, B, t, d), from q (projections, d), at rank 1."""
    mean = x[:, 1:].mean(dim=1)
    closest = (mean @ F.normalize(directions, dim=1).T).argmax(dim=1)
    picked = directions[closest]  # (B, d)
    of_each = []
    for q_of_one in q:
        matrices = torch.bmm(picked[:, :, None], q_of_one.expand(len(x), 1, -1))  # (B, d, d)
        of_each.append(torch.bmm(x, matrices.transpose(1, 2)))
    return torch.stack(of_each)


def _peak_bytes(work: Work) -> int:
    """Peak memory that torch allocated during one call, beyond what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
