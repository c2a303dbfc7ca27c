"""On a CUDA device: the oracle's bits, and no waiting for the device in a step."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import torch
from modules import batches, quantizer

import vqkernels as vq

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", ["triton", "reference"])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_search_equals_the_oracle(
    name: str, dtype: torch.dtype, metric: str, backend: str
) -> None:
    x, codebook = (value.cuda() for value in cases.search(name, dtype))
    found = vq.nearest_code(x, codebook, metric=metric, backend=backend)
    indices, distances = oracle.on_case(name, dtype, metric)
    np.testing.assert_array_equal(found.indices.cpu().numpy(), indices)
    np.testing.assert_array_equal(found.distances.cpu().numpy(), distances)


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layout_changes_nothing(layout: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    expected = vq.nearest_code(x, codebook, channel_dim=channel_dim)
    found = vq.nearest_code(x.cuda(), codebook.cuda(), channel_dim=channel_dim)
    assert torch.equal(found.indices.cpu(), expected.indices)


def test_training_is_the_same_on_every_run_and_never_waits_for_the_device() -> None:
    codebooks = []
    for _ in range(2):
        module = quantizer(metric="cosine").cuda()
        xs = [x.cuda().requires_grad_() for x in batches(6, 5000)]
        module(xs[0])  # the k-means initialisation reads its flag once
        torch.cuda.set_sync_debug_mode("error")
        try:
            for x in xs[1:]:
                out = module(x)
                (out.quantized.square().sum() + out.loss).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        codebooks.append(module.codebook)
    assert torch.equal(*codebooks)


def test_an_index_out_of_range_gives_a_nan_vector() -> None:
    _, codebook = cases.batch()
    found = vq.lookup(torch.tensor([0, 11, -2, -1]).cuda(), codebook.cuda())
    assert found.isnan().all(dim=1).tolist() == [False, True, True, False]
    assert not found[3].any()


def test_the_matrix_unit_rounds_as_the_bound_assumes() -> None:
    from vqkernels.backends.triton.unit_probe import share_of_bound

    assert 0.0 < share_of_bound(torch.device("cuda")) <= 1.0
