"""ShardedCodebook in one process: arguments, and a codebook that is all here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from modules import D, K, batches, quantizer

import vqkernels as vq


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"update": vq.Gradient()}, ValueError, "EMA.* or None for ShardedCodebook, got Gradient"),
        ({"gather": 1}, TypeError, "gather must be a bool, got 1"),
        ({"group": "gloo"}, TypeError, "group must be a torch.distributed.ProcessGroup or None"),
        (
            {"group": dist.GroupMember.NON_GROUP_MEMBER},
            ValueError,
            "^group must be a group that this rank belongs to",
        ),
        ({"num_embeddings": 0}, ValueError, "num_embeddings must be at least 1, got 0"),
        ({"init": torch.zeros(K, D + 1)}, ValueError, "init must have shape"),
        ({"init": "zeros"}, ValueError, "init must be one of"),
        ({"metric": "dot"}, ValueError, "metric must be one of"),
        ({"estimator": "ste"}, ValueError, "estimator must be one of"),
        ({"commitment_weight": -1.0}, ValueError, "commitment_weight must be at least 0"),
        ({"channel_dim": 1.0}, TypeError, "channel_dim must be an integer"),
        ({"update": None, "revive": vq.Revive(every=2)}, ValueError, "revive must be None with"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"num_embeddings": K, "embedding_dim": D, **options}
    with pytest.raises(error, match=message):
        vq.nn.ShardedCodebook(**arguments)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_one_process_holds_all_codes(metric: str, gather: bool) -> None:
    whole = quantizer(metric=metric, update=vq.EMA(decay=0.8))
    module = vq.nn.ShardedCodebook(K, D, metric=metric, update=vq.EMA(decay=0.8), gather=gather)
    for x in batches(4):
        out, expected = module(x), whole(x)
        assert torch.equal(out.indices, expected.indices)
        torch.testing.assert_close(out.quantized, expected.quantized, rtol=0, atol=2e-6)
        torch.testing.assert_close(out.loss, expected.loss, rtol=2e-6, atol=0)
        torch.testing.assert_close(module.codebook, whole.codebook, rtol=0, atol=2e-6)
    assert module.revived == whole.revived
    assert not list(module.buffers())


def test_a_bad_argument_changes_nothing() -> None:
    module = vq.nn.ShardedCodebook(K, D)
    (x,) = batches(1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for arguments in ((x[:, :2],), (x, torch.ones(3, dtype=torch.bool)), (x.long(),)):
        with pytest.raises((TypeError, ValueError)):
            module(*arguments)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
