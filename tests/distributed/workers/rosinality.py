"""Stand-ins for other libraries' quantizers whose ranks learn one codebook."""

from __future__ import annotations

import torch
from compat.specimens import rosinality as theirs
from ranks import RANK, SIZE, assert_close, assert_ranks_equal, parts

from vqkernels.compat.rosinality import Quantize

D, K = 4, 16


def ranks_of_rosinality_reduce_as_theirs() -> None:
    torch.manual_seed(0)
    other = theirs.Quantize(D, K)
    other.cluster_size.fill_(4.0)
    other.embed_avg.copy_(4.0 * other.embed)
    one = Quantize(D, K)
    one.load_state_dict(other.state_dict())
    for step in range(5):
        x = parts([20] * SIZE, seed=step, d=D)[RANK]
        one(x)
        other(x)
    assert_ranks_equal(one)
    assert_close(one, other)


CHECKS = (ranks_of_rosinality_reduce_as_theirs,)
