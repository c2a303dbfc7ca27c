"""2^20 codes over the ranks: exact, and no rank holds more than its part."""

from __future__ import annotations

import torch
from ranks import RANK, SIZE, parts
from shards import codes

import vqkernels as vq

K, D = 2**20, 8
_CODES = codes(k=K, d=D)


def _learns(gather: bool) -> None:
    rows = parts([128, 0, 100, 28], seed=9, d=D) if gather else parts([256 // SIZE], seed=9, d=D)
    union = torch.cat(rows)
    mine = rows[RANK] if gather else union
    module = vq.nn.ShardedCodebook(
        K, D, init=_CODES, gather=gather, update=vq.EMA(decay=0.8), revive=None
    )
    assert module.codebook.shape == (K // SIZE, D)
    out = module(mine)
    expected = vq.nearest_code(mine, _CODES).indices
    assert torch.equal(out.indices, expected)
    assert torch.equal(out.quantized, _CODES[expected])
    assert torch.equal(module.decode(out.indices), out.quantized)
    module.flush()
    everywhere = vq.nearest_code(union, _CODES).indices
    own = everywhere[everywhere // (K // SIZE) == RANK].unique() - RANK * (K // SIZE)
    moved = (module.codebook - _CODES[RANK * (K // SIZE) :][: K // SIZE]).abs().amax(dim=1)
    assert (moved[own] > 0.01).float().mean() > 0.9
    assert torch.equal(module.idle == 0, torch.zeros(K // SIZE).index_fill(0, own, 1).bool())


def many_codes_for_one_x() -> None:
    _learns(gather=False)


def many_codes_for_gathered_rows() -> None:
    _learns(gather=True)


CHECKS = (many_codes_for_one_x, many_codes_for_gathered_rows)
