"""What the loss has beside the commitment term."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._soft import code_orthogonality


def orthogonality(embed: Tensor, counts: Tensor | None, max_codes: int | None) -> Tensor:
    """``vqkernels.code_orthogonality``, the mean over the tables of ``embed``, (H, K, D).

    Of at most ``max_codes`` codes, drawn anew each time; with ``counts``, (K,), of those in use.
    """
    return torch.stack([_of_one(codes, counts, max_codes) for codes in embed]).mean()


def _of_one(codes: Tensor, counts: Tensor | None, max_codes: int | None) -> Tensor:
    if max_codes is None or max_codes >= len(codes):
        return code_orthogonality(codes, counts)
    turn = torch.rand(len(codes), device=codes.device)
    if counts is None:
        return code_orthogonality(codes[turn.topk(max_codes).indices])
    drawn = turn.masked_fill(counts == 0, -1.0).topk(max_codes).indices
    return code_orthogonality(codes[drawn], counts[drawn])
