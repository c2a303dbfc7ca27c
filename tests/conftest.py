"""Fixtures of the whole suite."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch
from backends import available, interpreted
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from vqkernels.ops import dispatch

torch.set_num_threads(2)

# Registered before pytest reads --hypothesis-profile.
hypothesis.settings.register_profile("default", max_examples=200)
hypothesis.settings.register_profile("full", max_examples=5000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=["triton"] if interpreted() else ["reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on the CPU; in a process of interpreted kernels Triton alone."""
    if request.param == "triton":
        given = getattr(request.node, "callspec", None)
        if given is not None and torch.bfloat16 in given.params.values():
            pytest.skip("the interpreter's bfloat16 is silently wrong")
    elif request.param not in available():
        pytest.skip(f"backend {request.param} is not built")
    return request.param


@pytest.fixture(autouse=True)
def triton_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of interpreted kernels, ops that take no backend run in Triton too."""
    if interpreted():
        monkeypatch.setitem(dispatch._ORDER, "cpu", ("triton", "reference"))


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the thread count that a test changed; even the smallest work is shared."""
    monkeypatch.setattr("vqkernels.backends.native._arguments._WORTH_SHARING", 0)
    yield
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def poisoned_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised memory that vqkernels asks for holds NaN or nonsense, never a lucky zero."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoning(getattr(owner, name)))


def _poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        out = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        real = not isinstance(out, FakeTensor) and out.device.type != "meta"
        if caller.startswith("vqkernels") and real:
            with torch.no_grad():
                out.fill_(torch.nan if out.is_floating_point() else -77)
        return out

    return poisoned
