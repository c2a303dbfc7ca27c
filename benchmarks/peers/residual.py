"""All levels of a residual quantizer without training: each level searches what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.provider import Call, Provider
from benchmarks.peers.torch_search import best_block, chunked
from benchmarks.peers.training import library_module


def torch_levels(x: Tensor, codebooks: Tensor, rows: int) -> Call:
    """The best search in plain torch, level after level; indices and the sum of the codes."""

    def quantize() -> Tensor:
        left, indices = x, []
        for codebook in codebooks:
            indices.append(chunked(left, codebook, rows)())
            left = left - codebook[indices[-1]]
        _quantized = x - left
        return torch.stack(indices, -1)

    return quantize


def vector_quantize_pytorch(x: Tensor, codebooks: Tensor) -> Call:
    module = library_module(codebooks).to(x.device).eval()

    @torch.no_grad()
    def quantize() -> Tensor:
        _quantized, indices, _loss = module(x[None])
        return indices[0]

    return quantize


RESIDUAL = (
    Provider("torch chunked", torch_levels, settings=lambda x, codes: best_block(x, codes[0])),
    Provider(
        "vector-quantize-pytorch",
        vector_quantize_pytorch,
        "vector-quantize-pytorch",
        "vector_quantize_pytorch",
        bytes_per_pair=8,
    ),
)
