"""The same bits on every run and at any thread count."""

from __future__ import annotations

import cases
import oracle
import pytest
import torch
from torch import Tensor

import vqkernels as vq

pytestmark = pytest.mark.usefixtures("two_threads")


def _step(x: Tensor, codebook: Tensor, metric: str, estimator: str, backend: str) -> list[Tensor]:
    """Everything one training step computes, the moved codebook included."""
    module = vq.nn.VectorQuantizer(
        *codebook.shape, init=codebook, metric=metric, estimator=estimator, backend=backend
    )
    x, codebook = x.clone().requires_grad_(), codebook.clone().requires_grad_()
    found = vq.nearest_code(x, codebook, metric=metric, backend=backend)
    out = vq.vector_quantize(x, codebook, metric=metric, estimator=estimator, backend=backend)
    (out.quantized * x.detach()).sum().add(out.loss).backward()
    looked_up = vq.lookup(out.indices, codebook)
    (lookup_grad,) = torch.autograd.grad(looked_up.square().sum(), codebook)
    module(x.detach())
    module.flush()
    return [
        *found,
        *vq.code_sums(x, out.indices, len(codebook)),
        *(out.quantized, out.loss, *out.usage),
        *(x.grad, codebook.grad, lookup_grad),
        *(module.codebook, module.cluster_size, module.embed_sum),
    ]


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("name", ["photo 2x2x3", "all equal"])
def test_thread_count_changes_no_bit(name: str, metric: str, estimator: str, backend: str) -> None:
    """40000 rows: enough for PyTorch to split a sum. "all equal" sends them all to one code."""
    x, codebook = cases.search(name)
    x, codebook = x.repeat(40_000 // len(x), 1), codebook[:4]
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(_step(x, codebook, metric, estimator, backend))
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert torch.equal(first, again)


def test_position_in_the_batch_changes_no_index(backend: str) -> None:
    x, codebook = cases.search("photo 4x4x3 PCA 32")
    whole = vq.nearest_code(x, codebook, backend=backend)
    parts = [vq.nearest_code(part, codebook, backend=backend) for part in x.split(7)]
    assert torch.equal(whole.indices, torch.cat([part.indices for part in parts]))
    assert torch.equal(whole.distances, torch.cat([part.distances for part in parts]))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize(
    "name", ["float32 denormals", "bfloat16 denormals", "float16 denormals", "scale 1e-20"]
)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_flush_to_zero_changes_no_index(
    name: str, dtype: torch.dtype, metric: str, threads: int, backend: str
) -> None:
    x, codebook = cases.search(name, dtype)
    torch.set_num_threads(threads)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no flush-to-zero mode")
    try:
        found = vq.nearest_code(x, codebook, metric=metric, backend=backend)
    finally:
        torch.set_flush_denormal(False)
    indices, _ = oracle.on_case(name, dtype, metric)
    assert torch.equal(found.indices, torch.from_numpy(indices))
