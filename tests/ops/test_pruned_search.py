"""The search that leaves codes out returns the bits of the one that does not, on everything."""

from __future__ import annotations

import copy
import pickle

import cases
import forcing
import numpy as np
import oracle
import pytest
import strategies
import torch
from backends import isa_levels, native_core
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vqkernels as vq

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")

# One cell holds everything; a few; about as many as codes; more than there are different codes.
CELLS = (1, 3, 16, 250)


def _pruned(
    x: Tensor, codebook: Tensor, cells: int, metric: str = "l2", channel_dim: int = 1
) -> vq.NearestCode:
    prepared = vq.prepare(codebook, metric=metric, backend="native", cells=cells)
    options = {"metric": metric, "channel_dim": channel_dim, "backend": "native"}
    with forcing.pruning("always"):
        return vq.nearest_code(x, prepared, **options)


def _assert_equals(
    found: vq.NearestCode, expected: tuple[np.ndarray, np.ndarray], what: object = ""
) -> None:
    indices, distances = (value.reshape(-1).numpy() for value in found)
    np.testing.assert_array_equal(indices, expected[0], err_msg=str(what))
    np.testing.assert_array_equal(distances, expected[1], err_msg=str(what))


def _assert_right(x: Tensor, codebook: Tensor, what: object = "") -> None:
    for metric in cases.METRICS:
        expected = oracle.nearest_code(x, codebook, metric)
        for cells in CELLS:
            if cells <= len(codebook):
                found = _pruned(x, codebook, cells, metric)
                _assert_equals(found, expected, (what, metric, cells))


def _clusters(n: int, k: int, d: int, far: float = 20.0) -> tuple[Tensor, Tensor]:
    """Rows and codes in eight clumps, so that most of the codes are far from any row."""
    x, codebook = cases.gaussian(n, k, d, seed=30)
    centres = far * cases.gaussian(8, 1, d, seed=31)[0]
    return x + centres[torch.arange(n) % 8], codebook + centres[torch.arange(k) % 8]


def _share(x: Tensor, codebook: vq.PreparedCodebook) -> float | None:
    return vq.explain(x, codebook).visited_share


def test_codes_are_left_out_where_rows_and_codes_are_clustered() -> None:
    """Without this the other tests of this file would compare the dense search with itself."""
    x, codebook = _clusters(1000, 16384, 6)
    prepared = vq.prepare(codebook, backend="native")
    share = _share(x, prepared)
    assert share is not None
    assert 0 < share < 0.25
    with forcing.pruning("never"):
        assert _share(x, prepared) is None


def test_without_cells_no_code_is_left_out() -> None:
    x, codebook = _clusters(1000, 16384, 6)
    assert _share(x, vq.prepare(codebook, backend="native", cells=0)) is None


def test_cells_and_their_absence_survive_pickle_and_deepcopy() -> None:
    x, codebook = _clusters(1000, 16384, 6)
    for cells in (0, 200):
        prepared = vq.prepare(codebook, backend="native", cells=cells)
        twins = copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))
        shares = {_share(x, each) for each in (prepared, *twins)}
        assert len(shares) == 1
        assert (shares == {None}) == (cells == 0)


def test_explain_answers_for_the_rows_that_it_is_given() -> None:
    near, codebook = _clusters(1000, 16384, 6)
    far = 100 * torch.randn(1000, 6, generator=cases.generator(80))
    prepared = vq.prepare(codebook, backend="native")
    share = _share(near, prepared)
    assert (_share(far, prepared), _share(near, prepared)) == (None, share)
    with forcing.pruning("always"):
        assert (_share(far, prepared) or 0) > 2 * (share or 1)


def test_explain_reads_a_lazily_negated_view_with_its_sign() -> None:
    x, codebook = _clusters(1000, 16384, 6)
    prepared = vq.prepare(codebook, backend="native")
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg()
    assert _share(view, prepared) == _share(x, prepared) != _share(-x, prepared)


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_equals_the_oracle(name: str, dtype: torch.dtype, metric: str) -> None:
    x, codebook = cases.search(name, dtype)
    expected = oracle.on_case(name, dtype, metric)
    for cells in CELLS:
        if cells <= len(codebook):
            _assert_equals(_pruned(x, codebook, cells, metric), expected, cells)


@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes_equal_the_oracle(shape: tuple[int, int, int]) -> None:
    _assert_right(*cases.gaussian(*shape))


@pytest.mark.parametrize("n", [1, 7, 64, 511, 512, 513, 5000])
def test_any_number_of_rows_equals_the_oracle(n: int) -> None:
    _assert_right(*_clusters(n, 300, 5))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layout_changes_nothing(layout: str) -> None:
    rows, codebook = cases.batch(k=40)
    x, channel_dim = cases.LAYOUTS[layout](rows)
    expected = oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, "l2")
    _assert_equals(_pruned(x, codebook, 7, channel_dim=channel_dim), expected)


@pytest.mark.parametrize("level", isa_levels())
def test_every_instruction_set_level_gives_the_same_bits(level: str) -> None:
    for name in ("photo 2x2x3 PCA 8", "photo 4x4x3 PCA 32", "shifted by 1000", "near ties"):
        x, codebook = cases.search(name)
        for metric in cases.METRICS:
            with forcing.isa(level):
                found = _pruned(x, codebook, 16, metric)
            _assert_equals(found, oracle.on_case(name, torch.float32, metric), (name, metric))


def test_one_thread_and_two_give_the_same_bits(two_threads: None) -> None:
    x, codebook = _clusters(3000, 1000, 7)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(_pruned(x, codebook, 30))
    _assert_equals(found[0], oracle.nearest_code(x, codebook, "l2"))
    for other in found[1:]:
        assert torch.equal(other.indices, found[0].indices)
        assert torch.equal(other.distances, found[0].distances)


def test_all_codes_equal() -> None:
    x, codebook = cases.gaussian(200, 1, 5)
    _assert_right(x, codebook.expand(300, -1).contiguous())


def test_codes_in_two_points_only() -> None:
    """More cells than different codes: cells without codes, and centres that coincide."""
    x, codebook = cases.gaussian(200, 2, 5)
    _assert_right(x, codebook[torch.arange(300) % 2])


def test_every_code_is_there_twice_and_the_lower_index_wins() -> None:
    x, codebook = _clusters(500, 200, 4)
    _assert_right(x, torch.cat([codebook, codebook]))


def test_one_code_far_from_all_others() -> None:
    """One cell holds everything but one code, from which some rows come."""
    x, codebook = cases.gaussian(300, 400, 4)
    codebook[123] = 1e4
    x[::3] += 1e4
    _assert_right(x, codebook)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-30])
def test_clumps_whose_centres_nearly_coincide(gap: float) -> None:
    """The bound divides by the distance of two centres: what it rounds away grows without end."""
    x, codebook = cases.gaussian(300, 400, 3)
    codebook *= gap
    _assert_right(x * gap, codebook, "rows among them")
    _assert_right(x, codebook, "rows around them")
    _assert_right(1.0 + x * gap, 1.0 + codebook, "away from the origin")


@pytest.mark.parametrize("size", [1e3, 1e6, 1e18, 3e38])
def test_rows_far_outside(size: float) -> None:
    x, codebook = _clusters(300, 400, 4)
    x = size * torch.nn.functional.normalize(x, dim=1)
    _assert_right(x, codebook)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_an_offset_that_leaves_few_digits(offset: float) -> None:
    x, codebook = _clusters(500, 600, 4)
    _assert_right(x + offset, codebook + offset)


@pytest.mark.parametrize("quantum", [2.0**-149, 2.0**-130])
def test_denormals(quantum: float) -> None:
    g = cases.generator(32)
    x = torch.randint(-500, 500, (300, 3), generator=g) * quantum
    codebook = torch.randint(-500, 500, (400, 3), generator=g) * quantum
    _assert_right(x, codebook)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_on_a_line_the_bound_is_the_distance_itself(offset: float) -> None:
    """With one channel nothing is given away: only the rounding decides what is left out."""
    g = cases.generator(33)
    codebook = (torch.rand(500, 1, generator=g) + offset).sort(dim=0).values
    between = (codebook[1:] + codebook[:-1]) / 2
    x = torch.cat([codebook, between, torch.rand(500, 1, generator=g) + offset])
    _assert_right(x, codebook[torch.randperm(500, generator=g)], "one channel")
    ones = torch.ones(1, 5)
    _assert_right(x @ ones, codebook @ ones, "a diagonal")


def test_a_tie_between_cells_goes_to_the_lowest_index() -> None:
    """Mirror images in small integers: distances are exact, and the other cell is as near."""
    g = cases.generator(34)
    side = torch.randint(1, 5, (150, 3), generator=g).float()
    mirrored = torch.stack([side, -side], 1)
    for order in (mirrored, mirrored.flip(1)):
        codebook = order.reshape(-1, 3)
        x = torch.zeros(50, 3)
        x[:, 1:] = 0.0
        _assert_right(x, codebook)
        x = torch.randint(-6, 7, (400, 3), generator=g).float()
        _assert_right(x, codebook)


def test_rows_and_codes_that_are_not_finite() -> None:
    x, codebook = _clusters(400, 300, 4)
    x[::7, 1], x[1::7, 0], x[2::7, 3] = torch.nan, torch.inf, -torch.inf
    _assert_right(x, codebook, "rows")
    codebook[::5, 2], codebook[1::9, 0] = torch.nan, torch.inf
    _assert_right(x, codebook, "rows and codes")
    codebook[:, 1] = torch.nan
    _assert_right(x, codebook, "no finite code")


@strategies.relaxed
@given(
    inputs=strategies.inputs(),
    metric=st.sampled_from(cases.METRICS),
    share=st.floats(0.01, 1.0),
)
def test_any_input_equals_the_oracle(
    inputs: tuple[Tensor, Tensor, int, Tensor | None], metric: str, share: float
) -> None:
    x, codebook, channel, _ = inputs
    cells = max(1, round(share * len(codebook)))
    rows = cases.as_matrix(x, channel)
    expected = oracle.nearest_code(rows, codebook, metric)
    _assert_equals(_pruned(x, codebook, cells, metric, channel), expected)


@strategies.relaxed
@given(
    clumps=strategies.clumps(),
    metric=st.sampled_from(cases.METRICS),
    share=st.floats(0.01, 1.0),
    dtype=st.sampled_from(cases.DTYPES),
)
def test_any_clumps_equal_the_oracle(
    clumps: tuple[Tensor, Tensor], metric: str, share: float, dtype: torch.dtype
) -> None:
    x, codebook = (value.to(dtype) for value in clumps)
    cells = max(1, round(share * len(codebook)))
    expected = oracle.nearest_code(x, codebook, metric)
    _assert_equals(_pruned(x, codebook, cells, metric), expected)


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("how", ["auto", "always"])
def test_a_quantizer_of_a_prepared_codebook_gives_the_dense_bits(how: str, metric: str) -> None:
    x, codebook = _clusters(2000, 1000, 6)
    prepared = vq.prepare(codebook, metric=metric, backend="native", cells=40)
    outs = []
    for forced in (how, "never"):
        leaf = x.clone().requires_grad_()
        with forcing.pruning(forced):
            out = vq.vector_quantize(leaf, prepared, metric=metric, backend="native")
        (out.quantized.square().sum() + out.loss).backward()
        outs.append((*out[:3], *out.usage, leaf.grad))
    for got, expected in zip(*outs, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("how", ["auto", "always"])
def test_levels_of_prepared_codebooks_give_the_dense_bits(how: str) -> None:
    x, codebook = _clusters(2000, 600, 6)
    books = cases.codebooks(codebook, 3)
    prepared = [vq.prepare(book, backend="native", cells=25) for book in books]
    outs = []
    for forced in (how, "never"):
        with forcing.pruning(forced):
            outs.append(vq.residual_quantize(x, prepared, backend="native")[:3])
    for got, expected in zip(*outs, strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(outs[0][1], oracle.residual(x, books)[0])
