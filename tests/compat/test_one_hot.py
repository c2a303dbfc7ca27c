"""OneHot: a one-hot matrix to whoever reads it, indices until then."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from vqkernels.compat import mishalaskin, taming, zalando
from vqkernels.compat._one_hot import OneHot, one_hot

N, K, D = 9, 5, 3
INDICES = torch.tensor([4, 0, 0, 2, 4, 4, 1, 0, 2])

Read = Callable[[Tensor, Tensor], Any]

# What needs no element.
FREE: dict[str, Read] = {
    "shape": lambda e, w: e.shape,
    "size": lambda e, w: (e.size(), e.size(1), e.size(dim=0)),
    "len": lambda e, w: len(e),
    "dim": lambda e, w: (e.dim(), e.ndim, e.numel(), e.stride(), e.is_contiguous()),
    "dtype": lambda e, w: (e.dtype, e.device, e.layout, e.is_floating_point(), e.is_cuda),
    "autograd": lambda e, w: (e.requires_grad, e.grad_fn, e.is_leaf, e.grad),
    "kind": lambda e, w: (isinstance(e, Tensor), torch.is_tensor(e)),
    "argmax": lambda e, w: e.argmax(1),
    "argmax of the last": lambda e, w: torch.argmax(e, dim=-1, keepdim=True),
    "sum": lambda e, w: (e.sum(0), torch.sum(e, dim=0), e.sum((0,), keepdim=True)),
    "mean": lambda e, w: (e.mean(0), torch.mean(e, dim=0), e.mean(dim=-2, keepdim=True)),
    "product": lambda e, w: (e @ w, torch.matmul(e, w), torch.mm(e, w), e.matmul(w), e.mm(w)),
    "detached": lambda e, w: e.detach().argmax(1),
}

# What builds the matrix.
READING: dict[str, Read] = {
    "row": lambda e, w: e[2],
    "rows": lambda e, w: (e[1:3], e[torch.tensor([3, 0])], e[:, 4]),
    "mask": lambda e, w: e[e[:, 0] > 0],
    "iterated": lambda e, w: list(e),
    "nonzero": lambda e, w: (e.nonzero(), torch.nonzero(e, as_tuple=True)),
    "max": lambda e, w: tuple(e.max(1)),
    "other sums": lambda e, w: (e.sum(), e.sum(1), e.mean(1), e.sum(0, dtype=torch.float64)),
    "other argmax": lambda e, w: (e.argmax(), e.argmax(0)),
    "transposed product": lambda e, w: (e.t() @ e, e.T, e.mT),
    "product from the left": lambda e, w: w.t() @ e.t(),
    "vector": lambda e, w: e @ w[:, 0],
    "batched": lambda e, w: e @ w.expand(2, K, D),
    "arithmetic": lambda e, w: (e + 1, 1 - e, 2 * e, -e, e / 3, e == 1, (e > 0) & (e < 2)),
    "einsum": lambda e, w: torch.einsum("nk,kd->nd", e, w),
    "linear": lambda e, w: torch.nn.functional.linear(e, w.t()),
    "stacked": lambda e, w: (torch.stack([e, e]), torch.cat([e, torch.zeros(2, K)])),
    "moved": lambda e, w: (e.cpu(), e.to("cpu"), e.to(torch.float64), e.half(), e.contiguous()),
    "copied": lambda e, w: (e.clone(), copy.deepcopy(e), torch.zeros(N, K).copy_(e)),
    "pickled": lambda e, w: pickle.loads(pickle.dumps(e)),
    "reshaped": lambda e, w: (e.view(3, 3, K), e.reshape(-1), e.unsqueeze(0)),
    "to python": lambda e, w: (e.tolist(), e[3, 2].item()),
    "to numpy": lambda e, w: (e.numpy().tolist(), np.asarray(e).tolist()),
    "printed": lambda e, w: (repr(e), str(e)),
    "data": lambda e, w: (e.data, torch.equal(e, e.clone())),
    "in place": lambda e, w: (e.mul_(3), e.sum(0), e.argmax(1), e @ w),
    "written": lambda e, w: (e.__setitem__(0, 0.5), e.argmax(1), e.mean(0)),
}


def lazy(dtype: torch.dtype = torch.float32) -> OneHot:
    made = one_hot(INDICES, K, dtype)
    assert isinstance(made, OneHot)
    return made


def plain(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.one_hot(INDICES, K).to(dtype)


def assert_equal(got: Any, expected: Any) -> None:
    (ours, shape), (theirs, other_shape) = pytree.tree_flatten(got), pytree.tree_flatten(expected)
    assert shape == other_shape
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(other, Tensor):
            assert type(one) is Tensor
            assert one.dtype == other.dtype
            assert one.stride() == other.stride()
            assert torch.equal(one, other)
        else:
            assert one == other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", FREE)
def test_what_needs_no_element_is_answered_without_the_matrix(
    name: str, dtype: torch.dtype
) -> None:
    encodings, weight = lazy(dtype), torch.randn(K, D, dtype=dtype)
    assert_equal(FREE[name](encodings, weight), FREE[name](plain(dtype), weight))
    assert encodings._built is None


@pytest.mark.parametrize("name", READING)
def test_everything_else_is_answered_by_the_matrix(name: str) -> None:
    weight = torch.randn(K, D)
    assert_equal(READING[name](lazy(), weight), READING[name](plain(), weight))


@pytest.mark.parametrize("name", [*FREE, *READING])
def test_a_matrix_that_has_been_changed_answers_for_itself(name: str) -> None:
    read, weight = {**FREE, **READING}[name], torch.randn(K, D)
    encodings, expected = lazy(), plain()
    for matrix in (encodings, expected):
        matrix[:, 1] = 2.0
    assert_equal(read(encodings, weight), read(expected, weight))


def test_a_product_is_differentiable_in_the_codes() -> None:
    weight = torch.randn(K, D, requires_grad=True)
    upstream = torch.randn(N, D)
    (got,) = torch.autograd.grad(lazy() @ weight, weight, upstream)
    (expected,) = torch.autograd.grad(plain() @ weight, weight, upstream)
    torch.testing.assert_close(got, expected)


def test_a_product_of_two_dtypes_is_an_error_as_it_is_in_torch() -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        lazy() @ torch.zeros(K, D, dtype=torch.float64)


def test_indices_that_change_later_change_nothing() -> None:
    indices = INDICES.clone()
    encodings = one_hot(indices, K, torch.float32)
    found = encodings.argmax(1)
    indices.zero_()
    found.zero_()
    assert torch.equal(encodings.argmax(1), INDICES)
    assert torch.equal(encodings.clone(), plain())


def test_it_is_one_key_of_a_dictionary_before_and_after() -> None:
    encodings = lazy()
    known = {encodings: 1}
    encodings.clone()
    assert known[encodings] == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["product", "sum", "argmax", "rows", "arithmetic", "in place"])
def test_compiled_code_that_is_given_one_reads_the_same(name: str, backend: str) -> None:
    read, weight = {**FREE, **READING}[name], torch.randn(K, K)
    got = torch.compile(read, backend=backend)(one_hot(INDICES, K, torch.float32), weight)
    assert_equal(got, read(plain(), weight))


def test_a_square_product_keeps_its_order_in_compiled_code() -> None:
    weight = torch.randn(N, N)
    encodings = one_hot(INDICES, N, torch.float32)
    expected = torch.nn.functional.one_hot(INDICES, N).float() @ weight
    got = torch.compile(lambda e, w: e @ w, backend="eager")(encodings, weight)
    torch.testing.assert_close(got, expected)


def test_compiled_code_that_makes_one_returns_the_matrix() -> None:
    made = torch.compile(one_hot, fullgraph=True, backend="aot_eager")(INDICES, K, torch.float32)
    assert type(made) is Tensor
    assert torch.equal(made, plain())


MODULES = {
    "taming": (lambda k, d: taming.VectorQuantizer(k, d, 0.25), lambda out: out[:2]),
    "taming, averages": (lambda k, d: taming.EMAVectorQuantizer(k, d, 0.25), lambda out: out[:2]),
    "mishalaskin": (lambda k, d: mishalaskin.VectorQuantizer(k, d, 0.25), lambda out: out[:2]),
    "zalando": (lambda k, d: zalando.VectorQuantizer(k, d, 0.25), lambda out: out[:2]),
    "zalando, averages": (
        lambda k, d: zalando.VectorQuantizerEMA(k, d, 0.25, 0.99),
        lambda out: out[:2],
    ),
}


def largest_allocation(step: Callable[[], Any]) -> int:
    """Bytes."""
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        step()
    return max(event.cpu_memory_usage for event in profile.events())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_step_that_never_reads_it_allocates_nothing_of_its_size(
    name: str, compiled: bool
) -> None:
    n, k, d = 4096, 2048, 4
    make, used = MODULES[name]
    module = make(k, d)
    x = torch.randn(4, d, 32, 32, requires_grad=True)

    def step(x: Tensor) -> Tensor:
        return sum(value.mean() for value in used(module(x)))

    run = torch.compile(step, backend="aot_eager") if compiled else step
    run(x).backward()
    assert largest_allocation(lambda: run(x).backward()) < n * k // 8


def test_the_measurement_sees_a_matrix_that_is_read() -> None:
    n, k = 4096, 2048
    module = zalando.VectorQuantizer(k, 4, 0.25)
    x = torch.randn(4, 4, 32, 32)
    assert largest_allocation(lambda: module(x)[3].sum(1)) >= 4 * n * k


def test_it_passes_through_a_distributed_wrapper() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        module = zalando.VectorQuantizer(K, D, 0.25)
        x = torch.randn(2, D, 4, 4)
        for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
            wrapped = torch.nn.parallel.DistributedDataParallel(module, **options)
            loss, _, _, encodings = wrapped(x)
            loss.backward()
            assert torch.equal(encodings.argmax(1), module(x)[3].argmax(1))
    finally:
        dist.destroy_process_group()


def test_devices_gather_it() -> None:
    """What DataParallel does with the outputs of its replicas, without the devices."""
    parts = [lazy(), lazy()]
    joined = torch.zeros(2 * N, K)
    for number, part in enumerate(parts):
        torch.ops.aten.copy_(joined[number * N : (number + 1) * N], part)
    assert torch.equal(joined, torch.cat([plain(), plain()]))


def test_hooks_see_a_tensor() -> None:
    module = zalando.VectorQuantizer(K, D, 0.25)
    module.register_full_backward_hook(lambda *_: None)
    x = torch.randn(2, D, 4, 4, requires_grad=True)
    loss, _, _, encodings = module(x)
    loss.backward()
    assert encodings.shape == (32, K)
    assert torch.equal(encodings.sum(1), torch.ones(32))
