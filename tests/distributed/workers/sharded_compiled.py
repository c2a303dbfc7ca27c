"""torch.compile(fullgraph=True) of a split codebook."""

from __future__ import annotations

import copy

import torch
from ranks import parts
from shards import assert_same_step, codes, own, split_and_whole, step

import vqkernels as vq


def a_compiled_step_is_the_eager_one() -> None:
    for gather in (False, True):
        torch._dynamo.reset()
        eager, _ = split_and_whole(
            init=codes() if gather else "kmeans",
            update=vq.EMA(decay=0.8),
            revive=vq.Revive(),
            gather=gather,
        )
        module = copy.deepcopy(eager)
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=gather):
            call = torch.compile(module, backend="aot_eager", fullgraph=True)
            for number in range(4):
                rows = parts([(24, 9)[number % 2], 5], seed=number)
                x = own(rows) if gather else torch.cat(rows)
                assert_same_step(step(call, x), step(eager, x))
                states = (list(some.state_dict().values()) for some in (module, eager))
                assert_same_step(*states)


CHECKS = (a_compiled_step_is_the_eager_one,)
