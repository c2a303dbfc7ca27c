"""Probes of two processes, each started by torchrun: ``ranks.py PROBE CONTENDER RESULT``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.trust.contenders import Contender, Wanted, find
from benchmarks.trust.probes import outcome

_STEPS = 20


def empty_mask(contender: Contender) -> str:
    """One rank's batch has no valid position, in every other step; dead codes are replaced."""
    module = contender.make(Wanted(torch.randn(64, 8, generator=_seed(0)), revive=True)).train()
    for step in range(_STEPS):
        x = torch.randn(1, 32, 8, generator=_seed(1 + 2 * step + dist.get_rank()))
        nothing = dist.get_rank() == 1 and step % 2 == 1
        mask = torch.full((1, 32), not nothing)
        contender.call(module, x, mask)
    return "finishes"


def drift(contender: Contender) -> str:
    """Largest difference of the ranks' codebooks, which start from seeds of their own."""
    codes = torch.randn(64, 8, generator=_seed(100 + dist.get_rank()))
    module = contender.make(Wanted(codes)).train()
    for step in range(_STEPS):
        x = torch.randn(1, 256, 8, generator=_seed(1 + 2 * step + dist.get_rank()))
        contender.call(module, x, None)
    contender.flush(module)
    mine = contender.codebook(module).detach().clone()
    both = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(both, mine)
    return f"{float((both[0] - both[1]).abs().max()):.2g}"


def _seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


RANKS: dict[str, Callable[[Contender], str]] = {
    "two processes, one of them with an empty mask": empty_mask,
    "two processes seeded differently: distance of their codebooks after 20 steps": drift,
}


def main(probe: str, contender: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = outcome(RANKS[probe], find(contender))
    if dist.get_rank() == 0:
        Path(result).write_text(found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
