"""nearest_code in Triton: screen on the matrix units, certify, finish the rest by a scan.

Every step works on what the step before left on the device: nothing is read by the host, and the
launches are the same whatever the data, so a call can be captured in a CUDA graph.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton import bound
from vqkernels.backends.triton.cells import cells_of
from vqkernels.backends.triton.certify import certify
from vqkernels.backends.triton.hardware import Hardware, hardware
from vqkernels.backends.triton.pack import Packed, pack
from vqkernels.backends.triton.plan import Plan, plan
from vqkernels.backends.triton.pruned import pruned
from vqkernels.backends.triton.rerank import rerank
from vqkernels.backends.triton.row_list import RowList, every_row, no_rows
from vqkernels.backends.triton.scan import scan
from vqkernels.backends.triton.screen import NO_LIMIT, Shortlist, screen
from vqkernels.backends.triton.split_rows import SplitRows, split_rows

# Of the rows, one in so many is left to the scan by the pruned search; of more, all are screened.
_FEW = 32
_PROBED = 1024  # rows that say whether one product is enough for all
_ENOUGH = 512  # groups beyond the first that these may cost; see ``certify``
# Multiply-adds from which two products saved are worth the probe's launches.
_WORTH_PROBING = 2**34


def nearest_code(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    metric: str,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    """Indices (int64) and scores (float32) of the best code for every position of x."""
    shape = row_shape(x, channel_dim)
    found = x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float32)
    num_rows, dim = found[0].numel(), codebook.shape[1]
    if num_rows == 0:
        return found
    codebook = codebook.contiguous()
    arguments = (x, codebook, metric, channel_dim, found)
    *counters, count = torch.zeros(3, dtype=torch.int32, device=x.device).unbind()
    cells = cells_of(prepared, codebook, metric)
    if dim > bound.MAX_DIM:
        left = every_row(count, num_rows)
        exponent = torch.zeros(1, device=x.device)
    elif cells is None:
        left = no_rows(count, num_rows)
        exponent = _dense(*arguments, left, counters).scalars
    else:
        left = no_rows(count, num_rows)
        pruned(x, codebook, cells, channel_dim, found, left)
        many = left.count > num_rows // _FEW
        left.count.masked_fill_(many, 0)
        _dense(*arguments, left, counters, wanted=many.to(torch.int32))
        exponent = cells.exponent
    programs = 2 * hardware(x.device).processors
    scan(x, codebook, exponent, left, metric, channel_dim, found, programs)
    return found


def _dense(
    x: Tensor,
    codebook: Tensor,
    metric: str,
    channel_dim: int,
    found: tuple[Tensor, Tensor],
    left: RowList,
    counters: list[Tensor],
    wanted: Tensor | None = None,
) -> Packed:
    """All codes for all rows but those that it lists as ``left``.

    Args:
        counters: two of () int32, on the device as is ``wanted``; they hold 0.
        wanted: () int32; if it is there and 0, nothing is done.
    """
    num_rows, (num_codes, dim) = found[0].numel(), codebook.shape
    device = hardware(x.device)
    difficulty, few = counters
    layout = plan(x.dtype, dim, num_codes, metric, device)
    packed = pack(codebook, layout, metric, rounding(layout, dim, device), wanted)
    rows = split_rows(x, packed, metric, channel_dim, num_rows, wanted)
    search = functools.partial(_screen, rows, packed, difficulty, num_codes, device, wanted)
    arguments = (x, codebook, rows, packed)
    if len(layout.choices) > 1 and num_rows * num_codes * dim >= _WORTH_PROBING:
        sample = search(min(num_rows, _PROBED), (1,), NO_LIMIT)
        certify(*arguments, sample, metric, channel_dim, difficulty, None, wanted)
        shortlist = search(num_rows, layout.choices, _ENOUGH)
    else:
        shortlist = search(num_rows, layout.choices[-1:], 0 if layout.packed else -1)
    contested = no_rows(few, num_rows)
    results = (*found, contested, left)
    certify(*arguments, shortlist, metric, channel_dim, difficulty, results, wanted)
    last = (metric, channel_dim, found, 2 * device.processors)
    rerank(x, codebook, packed, shortlist, contested, *last)
    return packed


def _screen(
    rows: SplitRows,
    packed: Packed,
    difficulty: Tensor,
    num_codes: int,
    device: Hardware,
    wanted: Tensor | None,
    num_rows: int,
    choices: tuple[int, ...],
    limit: int,
) -> Shortlist:
    """One launch per number of products; all but one of them return at once."""
    out = None
    for products in choices:
        out = screen(
            rows,
            packed,
            difficulty,
            num_rows=num_rows,
            num_codes=num_codes,
            device=device,
            products=products,
            limit=limit,
            wanted=wanted,
            into=out,
        )
    assert out is not None
    return out


def rounding(layout: Plan, dim: int, device: Hardware) -> float:
    """``bound.accumulation_error`` of a layout: what it multiplies first, and what follows."""
    if layout.packed:
        return bound.accumulation_error(device.unit, 2 * dim, dim + 8)
    parts, last = (layout.products - 1) * layout.width, layout.width + layout.lanes
    if layout.resident(layout.products, device):
        return bound.accumulation_error(device.unit, parts, last)
    return bound.accumulation_error(device.unit, 0, parts + last)
