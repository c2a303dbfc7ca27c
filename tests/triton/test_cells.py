"""The cells of the pruned search: their tables in rational numbers, and the block they lie in."""

from __future__ import annotations

import itertools
from fractions import Fraction

import cases
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from vqkernels.backends.triton.cells import Cells, cells_of
from vqkernels.backends.triton.prepare import prepare, prepared_shape

_DATA = {
    "Gaussian": lambda: cases.gaussian(6, 24, 3),
    "offset 1000": lambda: cases.DATA["offset 1000"](6, 24, 3),
    "integer grid": lambda: tuple(v[:24] for v in cases.search("integer grid")),
    "float32 denormals": lambda: tuple(v[:24] for v in cases.search("float32 denormals")),
    "largest floats": lambda: tuple(v * 5e37 for v in cases.gaussian(6, 24, 3)),
    "rows on codes": lambda: tuple(v[:24] for v in cases.search("x on codes")),
}


def _cells(codebook: Tensor, count: int) -> Cells:
    found = cells_of([prepare(codebook, "l2", count)], codebook, "l2")
    assert found is not None
    return found


def _exact(vectors: Tensor) -> list[list[Fraction]]:
    return [[Fraction(value) for value in vector] for vector in vectors.double().tolist()]


def _square(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum(((p - q) ** 2 for p, q in zip(a, b, strict=True)), Fraction(0))


def _members(cells: Cells, cell: int) -> list[int]:
    return cells.ids[cells.starts[cell] : cells.starts[cell + 1]].tolist()


@pytest.mark.parametrize("name", _DATA)
def test_the_bound_of_a_cell_is_below_the_distance_to_each_of_its_codes(name: str) -> None:
    """In exact arithmetic, but for the rounding of the inverse, which the search allows for."""
    x, codebook = _DATA[name]()
    cells = _cells(codebook, 5)
    scale = Fraction(2) ** max(-126, min(126, int(cells.exponent) - 8))
    rows, codes, centres = _exact(x[:6]), _exact(codebook), _exact(cells.centres.T)
    positive = 0
    for row, (home, cell) in itertools.product(rows, itertools.permutations(range(5), 2)):
        margin, inverse = float(cells.margins[home, cell]), cells.inverses[home, cell]
        if not _members(cells, cell) or margin == -torch.inf:
            continue
        far, near = (_square(row, centres[g]) * scale**2 for g in (cell, home))
        rounding = (far + near) * Fraction(2) ** -24
        bound = Fraction(margin) + Fraction(float(inverse)) * (far - near - rounding)
        for code in _members(cells, cell) if bound > 0 else ():
            assert bound**2 <= _square(row, codes[code]) * scale**2
            positive += 1
    assert positive > 0


def test_the_bound_is_the_distance_where_codes_and_row_lie_on_the_line_of_the_centres() -> None:
    codebook = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    cells = _cells(codebook, 2)
    home = 0 if 0 in _members(cells, 0) else 1
    centres = cells.centres.T
    assert centres[home].tolist() == [-2.0, 0.0]
    row = torch.tensor([-1.5, 0.0])
    near, far = ((row - centres[g]).square().sum() / 16 for g in (home, 1 - home))  # in quarters
    margin, inverse = (table[home, 1 - home] for table in (cells.margins, cells.inverses))
    assert float(margin + inverse * (far - near)) == pytest.approx(2.5 / 4, rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "non-finite codes", "no finite code", "all equal"])
def test_every_finite_code_is_in_one_cell(name: str) -> None:
    _, codebook = cases.search(name)
    cells = _cells(codebook, 9)
    inside = cells.ids[: cells.starts[-1]]
    finite = codebook.isfinite().all(dim=1).nonzero()[:, 0]
    assert torch.equal(inside.long().sort().values, finite)
    assert torch.equal(cells.ids.long().sort().values, torch.arange(len(codebook)))
    assert torch.equal(cells.members.T.nan_to_num(), codebook[cells.ids.long()].nan_to_num())
    for cell in range(9):
        members = _members(cells, cell)
        assert members == sorted(members)


def test_cells_follow_the_clusters_of_the_codes() -> None:
    spread, _ = cases.gaussian(60, 1, 4)
    codebook = spread * 0.01 + 10 * torch.eye(4)[torch.arange(60) % 4]
    cells = _cells(codebook, 8)
    filled = [_members(cells, cell) for cell in range(8)]
    assert all(len({code % 4 for code in members}) <= 1 for members in filled)


def test_more_cells_than_codes_are_as_many_as_codes() -> None:
    _, codebook = cases.batch(k=7)
    assert _cells(codebook, 50).count == 7


def test_another_metric_is_refused() -> None:
    _, codebook = cases.batch()
    message = r"cells must be None or 0 .* metric='cosine', got 4"
    for refuses in (prepare, prepared_shape):
        with pytest.raises(ValueError, match=message):
            refuses(codebook, "cosine", 4)


def test_a_block_of_another_kind_is_not_taken() -> None:
    _, codebook = cases.batch()
    block = prepare(codebook, "l2", 4)
    assert cells_of([block], codebook, "l2") is not None
    assert cells_of([block], codebook, "cosine") is None
    wider = torch.zeros(len(codebook), codebook.shape[1] + 20)
    odd = torch.zeros(block.numel() + 1, dtype=torch.uint8)[1:].view(block.shape).copy_(block)
    for parts, codes in (
        (None, codebook),
        ([], codebook),
        ([block], wider),
        ([block[:-1]], codebook),
        ([block.view(-1)], codebook),
        ([odd], codebook),
        ([block.view(torch.float32)], codebook),
    ):
        assert cells_of(parts, codes, "l2") is None
