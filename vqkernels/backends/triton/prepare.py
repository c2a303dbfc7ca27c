"""prepare in Triton: the cells of the pruned search, where they are asked for.

Torch's ops in float64, once per codebook: nothing here is worth a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.triton.cell_bound import code_margins, inverse_distances
from vqkernels.backends.triton.cells import MAGIC, block_shape, views
from vqkernels.backends.triton.partition import blocks, distances, partition


def prepared_shape(codebook: Tensor, metric: str, cells: int) -> tuple[int, int]:
    """The shape of ``prepare``'s result.

    Raises:
        ValueError: the metric has no pruned search.
    """
    if metric != "l2":
        raise ValueError(
            f"cells must be None or 0 for backend='triton' with metric={metric!r}, got {cells}"
        )
    return block_shape(*codebook.shape, min(cells, len(codebook)))


def prepare(codebook: Tensor, metric: str, cells: int) -> Tensor:
    """A block of bytes that holds ``Cells`` of the codebook, at most as many as codes."""
    k, dim = codebook.shape
    shape = prepared_shape(codebook, metric, cells)
    block = torch.zeros(shape, dtype=torch.uint8, device=codebook.device)
    count, out = len(block), views(block, k, dim)
    finite = codebook.isfinite().all(dim=1)
    exact = codebook.double().masked_fill(~finite[:, None], 0.0)
    _, exponent = torch.frexp(exact.abs().amax())
    out.exponent.copy_(8 - exponent)
    scale = _power_of_two(-exponent.clamp(-126, 126))

    codes = exact * scale
    centres, cell = partition(codes, finite, count)
    out.centres.copy_((centres / scale).T)
    centres = out.centres.T.double() * scale
    out.header.copy_(torch.tensor([MAGIC, k, dim, count]))
    sizes = torch.bincount(cell, minlength=count + 1)
    out.starts[1:] = sizes[:count].cumsum(0)
    order = cell.argsort(stable=True)
    out.ids.copy_(order)
    out.members.copy_(codebook[order].T)
    _fill_tables(out.margins, out.inverses, codes, cell, centres)
    return block


def _fill_tables(
    margins: Tensor, inverses: Tensor, codes: Tensor, cell: Tensor, centres: Tensor
) -> None:
    """Writes ``Cells.margins`` and ``inverses``; no codes by cells matrix but for a block."""
    count, dim = centres.shape
    inverse = inverse_distances(distances(centres, centres), dim)
    # One more row, for the codes that are not finite.
    smallest = codes.new_full((count + 1, count), torch.inf)
    for block in blocks(len(codes), count):
        own = cell[block, None]
        of_a_cell = own.clamp(max=count - 1)
        to_j = distances(codes[block], centres)
        to_own = to_j.gather(1, of_a_cell)
        margin = code_margins(to_j, to_own, inverse[of_a_cell[:, 0]], dim)
        smallest.scatter_reduce_(0, own.expand_as(margin), margin, "amin")
    margins.copy_(smallest[:count].T)
    inverses.copy_(inverse)


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent, float64, of an integer: exact, which torch's powers need not be."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)
