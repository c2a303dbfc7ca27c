"""Calls from several threads, forked workers, and tensors past the reach of 32-bit offsets."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cases
import pytest
import torch
from torch import Tensor

import vqkernels as vq


def test_calls_from_several_python_threads_do_not_disturb_each_other(backend: str) -> None:
    """The extension releases the GIL: a shared workspace would show."""
    inputs = [cases.gaussian(400 + 50 * i, 100 + 37 * i, 5 + 3 * i, seed=i) for i in range(8)]

    def search(pair: tuple[Tensor, Tensor]) -> Tensor:
        return vq.nearest_code(*pair, backend=backend).indices

    expected = [search(pair) for pair in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(search, inputs), expected, strict=True):
                assert torch.equal(found, wanted)


_FORKED = """
import torch, vqkernels as vq
from torch.utils.data import DataLoader, Dataset

codes = torch.randn(50, 4)

class Encoded(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return vq.nearest_code(torch.full((100, 4), float(i)), codes).indices

torch.set_num_threads(2)
expected = torch.stack(list(Encoded()[i] for i in range(4)))
got = torch.cat(list(DataLoader(Encoded(), num_workers=2, multiprocessing_context="fork")))
assert torch.equal(got, expected)
"""


def test_a_forked_data_loader_worker_may_search_after_its_parent_did() -> None:
    """A parallel region in a forked child deadlocks in libgomp: the time limit is the test."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_rows_may_lie_more_than_2_to_the_31_elements_apart(backend: str) -> None:
    rows, codebook = (value.half() for value in cases.batch())
    distance = 2**31 + 8
    try:
        memory = torch.empty(2 * distance, dtype=torch.float16)  # pages nobody touches stay free
    except RuntimeError as error:
        pytest.skip(f"no address space for 8 GB: {error}")
    far = memory.as_strided((2, 6), (distance, 1))
    far.copy_(rows[:2])
    results = []
    for x in (far, rows[:2].clone()):
        x = x.detach().requires_grad_()
        out = vq.vector_quantize(x, codebook, estimator="rotation", backend=backend)
        (gradient,) = torch.autograd.grad(out.quantized.sum() + out.loss, x)
        results.append([out.quantized, out.indices, out.loss, gradient])
    for found, wanted in zip(*results, strict=True):
        assert torch.equal(found, wanted)
