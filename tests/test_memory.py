"""No allocation has both N and K as factors: peak memory of a step over the moment before it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from backends import available

_SETTING = """
import sys, torch, vqkernels as vq
from vqkernels import ops
torch.set_num_threads(2)

def kilobytes(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1])

def growth(run):
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again from here
    before = kilobytes("VmRSS")
    run()
    print((kilobytes("VmHWM") - before) / 1024)

backend, n, k, d, levels = sys.argv[1], *map(int, sys.argv[2:])
g = torch.Generator().manual_seed(0)
codes = torch.randn(k, d, generator=g)
warm = torch.randn(64, d, generator=g)  # lazy imports and thread pools
"""

_STEP = """
def step(module, x, upstream):
    out = module(x)
    torch.autograd.backward([out.quantized, out.loss], [upstream, None])

make = lambda: vq.nn.VectorQuantizer(k, d, init=codes, backend=backend)
module = vq.nn.ResidualVQ(make, levels) if levels else make()
step(module, warm.clone().requires_grad_(), warm)
x = torch.randn(4, d, n // 4, generator=g).requires_grad_()
upstream = torch.randn(4, d, n // 4, generator=g)
growth(lambda: step(module, x, upstream))
"""

_SOFT_LOSSES = """
def losses(x, codes):
    entropy = vq.code_entropy(x, codes, temperature=float(d), backend=backend)
    targets = torch.arange(len(x)) % k
    cross = vq.code_cross_entropy(x, codes, targets, temperature=float(d), backend=backend)
    clock = torch.tensor(0)
    rows, book = x.detach(), codes.detach()
    normaliser, _, _ = ops.soft_assign(rows, book, None, float(d), 1, False, backend)
    ops.sample_codes(rows, book, normaliser, clock, 0, float(d), 1, backend)
    (entropy.per_row - entropy.usage + cross + vq.code_orthogonality(codes)).backward()

codes.requires_grad_()
losses(warm.clone().requires_grad_(), codes)
x = torch.randn(n, d, generator=g).requires_grad_()
growth(lambda: losses(x, codes))
"""

_PRUNED = """
from vqkernels import _native

_native.force_pruning("always")
prepared = vq.prepare(codes, backend=backend, cells=512)
vq.nearest_code(warm, prepared, backend=backend)
x = torch.randn(n, d, generator=g) + (100.0 if levels else 0.0)
growth(lambda: vq.nearest_code(x, prepared, backend=backend))
"""

_TOP_K = """
def step(x):
    out = module(x)
    (out.quantized.sum() + out.loss).backward()

module = vq.nn.VectorQuantizer(k, d, init=codes, assign=vq.TopK(2), backend=backend)
step(warm.clone().requires_grad_())
x = torch.randn(n, d, generator=g).requires_grad_()
growth(lambda: step(x))
"""

_SIGNS = """
def step(x):
    out = module(x)
    (out.quantized.sum() + out.loss).backward()

module = vq.nn.LFQ(d, backend=backend)
step(warm.clone().requires_grad_())
x = torch.randn(n, d, generator=g).requires_grad_()
growth(lambda: step(x))
"""

_THEIR_SIGNS = """
from vqkernels.compat.vector_quantize_pytorch import LFQ

def step(x):
    out = module(x)
    (out.quantized.sum() + out.entropy_aux_loss).backward()

module = LFQ(dim=d)
step(warm[None].clone().requires_grad_())
x = torch.randn(1, n, d, generator=g).requires_grad_()
growth(lambda: step(x))
"""

_ALL_CODES = """
def step(module, x):
    out = module(x)
    (out.quantized.sum() + out.loss).backward()

kinds = {
    "IBQ": lambda: vq.nn.IBQ(k, d, entropy=vq.Entropy(0.05, 0.1)),
    "soft GumbelVQ": lambda: vq.nn.GumbelVQ(k, d, hard=False),
}
module = kinds[sys.argv[1]]()
step(module, warm.clone().requires_grad_())
x = torch.randn(n, d, generator=g).requires_grad_()
growth(lambda: step(module, x))
"""


def _grows_less(megabytes: float, *sizes: Any, **options: Any) -> bool:
    """One of up to three runs has to: what a busy machine has paged out before the step and
    brings back during it only adds, and an N x K matrix would be there in every run.
    """
    return any(_growth_in_megabytes(*sizes, **options) < megabytes for _ in range(3))


def _growth_in_megabytes(
    backend: str, n: int, k: int, d: int, levels: int = 0, program: str = _STEP
) -> float:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError as error:
        pytest.skip(f"the high-water mark of memory cannot be reset here: {error}")
    done = subprocess.run(
        [sys.executable, "-c", _SETTING + program, backend, *map(str, (n, k, d, levels))],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_a_native_training_step_stays_under_100_mb() -> None:
    """N x K would be 8.6e9 entries, and one byte each is already 80 times this."""
    assert _grows_less(100, "native", 131072, 65536, 8)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_a_native_training_step_holds_no_second_copy_of_strided_rows() -> None:
    """Two outputs of x's size (64 MB each), and less than half of that size for all the rest."""
    assert _grows_less(2 * 64 + 30, "native", 262144, 64, 64)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_levels_are_not_kept_apart() -> None:
    """N x L x D floats would be 268 MB, and N x K ones 537 MB; the codebooks' share is small."""
    assert _grows_less(150, "native", 131072, 1024, 16, levels=32)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
@pytest.mark.parametrize("far", [0, 1])
def test_a_search_in_cells_keeps_no_pairs_of_rows_and_cells(far: int) -> None:
    """A byte per pair of a row and a cell would be 67 MB; rows far away may need all of them."""
    assert _grows_less(20, "native", 131072, 65536, 8, levels=far, program=_PRUNED)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_several_codes_per_row_take_their_own_place_only(backend: str) -> None:
    """N x K float32 would be 2.1 GB (native), in float64 134 MB (reference)."""
    if backend not in available():
        pytest.skip("native is not built")
    n, k = (65536, 8192) if backend == "native" else (4096, 4096)
    assert _grows_less(80, backend, n, k, 4, program=_TOP_K)


def test_the_reference_makes_no_n_by_k_matrix_either() -> None:
    """32768 x 4096 in float64 is 1 GB; its blocks of 1024 x 1024 are 8 MB each."""
    assert _grows_less(100, "reference", 32768, 4096, 1)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_native_losses_over_all_codes_stay_under_64_mb() -> None:
    """N x K would be 268e6 entries; one bit each is half of the limit, the rows are 2 MB."""
    assert _grows_less(64, "native", 65536, 4096, 8, program=_SOFT_LOSSES)


def test_the_references_losses_make_no_n_by_k_matrix_either() -> None:
    """4096 x 4096 in float64 is 134 MB; its blocks of 512 x 512 are 2 MB each."""
    assert _grows_less(60, "reference", 4096, 4096, 1, program=_SOFT_LOSSES)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_signs_take_no_codebook_and_no_n_by_k_matrix(backend: str) -> None:
    """N x 2^18 float32 would be 8.6 GB; a few vectors of 2^18 float64 are 2 MB each."""
    if backend not in available():
        pytest.skip("native is not built")
    assert _grows_less(100, backend, 8192, 1, 18, program=_SIGNS)


def test_the_stand_in_for_lfq_makes_no_n_by_k_matrix_where_theirs_makes_several() -> None:
    """4096 x 2^16 float32 is 1 GB."""
    assert _grows_less(100, "", 4096, 1, 16, program=_THEIR_SIGNS)


@pytest.mark.parametrize("kind", ["IBQ", "soft GumbelVQ"])
def test_gradients_that_reach_all_codes_make_no_n_by_k_matrix(kind: str) -> None:
    """4096 x 8192 in float32 is 134 MB; blocks of 2^19 pairs are 2 MB, of integers 4 MB."""
    assert _grows_less(80, kind, 4096, 8192, 16, program=_ALL_CODES)
