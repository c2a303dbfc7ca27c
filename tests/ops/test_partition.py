"""partition: cells that are kept while the codebook moves, and found anew when they are worn."""

from __future__ import annotations

import copy
import pickle

import cases
import forcing
import pytest
import torch
from backends import native_core
from torch import Tensor

import vqkernels as vq
from vqkernels import ops
from vqkernels.backends import native

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")

CODES = torch.randn(2048, 4, generator=cases.generator(70))
ROWS = torch.randn(8192, 4, generator=cases.generator(71))


def _search(codes: Tensor, parts: list[Tensor] | None) -> Tensor:
    rows = codes.mean(0) + codes.std() * ROWS
    indices: Tensor = ops.nearest_code(rows, codes, parts, "l2", 1, None)[0]
    assert torch.equal(indices, ops.nearest_code(rows, codes, None, "l2", 1, "reference")[0])
    return indices


def _elsewhere(codes: Tensor) -> Tensor:
    """Codes of which one old centre is the nearest to all."""
    return 0.001 * codes + 5.0


def test_a_partition_of_another_codebook_gives_the_same_codes() -> None:
    parts = ops.partition(_elsewhere(CODES), None)
    assert _search(CODES, parts).unique().numel() > 1000


def test_a_partition_that_fits_is_not_worn() -> None:
    parts = ops.partition(CODES, None)
    assert not ops.is_worn(parts, CODES)
    for _ in range(3):
        _search(CODES, parts)
        assert not ops.is_worn(parts, CODES)


def test_a_partition_is_worn_when_searches_look_at_half_as_many_codes_again() -> None:
    parts = ops.partition(CODES, None)
    _search(CODES, parts)
    _search(_elsewhere(CODES), parts)
    assert ops.is_worn(parts, CODES)


def test_there_are_no_cells_for_few_codes_or_another_backend() -> None:
    assert ops.partition(CODES[:100], None) == []
    assert ops.partition(CODES, "reference") == []


def test_a_module_finds_its_cells_anew_when_they_are_worn() -> None:
    module = vq.nn.VectorQuantizer(2048, 4, update=vq.Gradient(), revive=None, init=CODES)

    def step() -> list[Tensor] | None:
        module(module.codebook.detach().mean(0) + module.codebook.detach().std() * ROWS)
        return module._partition

    found = [step() for _ in range(6)]
    assert found[5] is found[4] is found[3] is not found[2]  # anew after 1, 2 and 4 searches
    with torch.no_grad():
        module.codebook.copy_(_elsewhere(CODES))
    assert step() is found[5]  # which notes that it has looked at many
    assert step() is not None
    assert module._partition is not found[5]


def test_a_copy_of_a_module_finds_cells_of_its_own() -> None:
    module = vq.nn.VectorQuantizer(2048, 4, update=vq.Gradient(), revive=None, init=CODES)
    for _ in range(5):
        module(ROWS)
    assert module._partition is not None
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin._partition is None
        twin(ROWS)  # however many searches the original has behind it
        assert twin._partition is not None


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e16, 1e30, 3e38])
def test_a_partition_from_any_distance_gives_the_same_codes(scale: float, metric: str) -> None:
    """Centres so far out that scores with them overflow, fewer than a whole panel of them."""
    far = scale * (0.1 + 0.8 * torch.rand(200, 4, generator=cases.generator(72)))
    codes, rows = CODES[:300], torch.cat([ROWS[:300], 1e17 * ROWS[:300]])
    codes = ops.normalize_codes(codes)[0] if metric == "cosine" else codes
    expected = ops.nearest_code(rows, codes, None, metric, 1, "reference")
    with forcing.pruning("always"):
        found = ops.nearest_code(rows, codes, [native.partition(far, 7)], metric, 1, "native")
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)
