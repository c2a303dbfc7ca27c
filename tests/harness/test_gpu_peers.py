"""Contenders for GPUs, their libraries played by plain torch with the same signatures.

This shows that an adapter passes what it should and returns indices; not that a library runs.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import peers, truth
from benchmarks.peers import UnavailableError, gpu_search, ours, torch_search

N, K, D = 120, 30, 16


def _nearest(x: Tensor, codes: Tensor) -> Tensor:
    return torch.cdist(x.double(), codes.double()).argmin(-1)


def _install(monkeypatch: pytest.MonkeyPatch, path: str, **members: Any) -> None:
    """A module of that path and its parents."""
    parts = path.split(".")
    for i in range(1, len(parts) + 1):
        name = ".".join(parts[:i])
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or ModuleType(name))
    for name, member in members.items():
        setattr(sys.modules[path], name, member)


def _pair(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, codebook = torch.randn(N, D, generator=g), torch.randn(K, D, generator=g)
    return x.to(dtype), codebook.to(dtype).float()


def _assert_right(build: Any, dtype: torch.dtype = torch.float32) -> None:
    x, codebook = _pair(dtype)
    found = build(x, codebook)()
    assert found.shape == (N,)
    assert truth.judge(x, codebook)(found) == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_kmeans(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def assign(x: Tensor, centroids: Tensor, x_sq: Tensor) -> Tensor:
        assert centroids.dtype == x.dtype
        assert torch.equal(x_sq, x.float().square().sum(-1))
        return _nearest(x, centroids).int()

    path = "flash_kmeans.assign_euclid_triton"
    _install(monkeypatch, path, euclid_assign_triton=assign)
    _assert_right(gpu_search.flash_kmeans, dtype)


def test_flashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def assign(x: Tensor, centroids: Tensor) -> Tensor:
        assert centroids.dtype == x.dtype
        return _nearest(x, centroids).int()

    path = "flashlib.primitives.kmeans"
    _install(monkeypatch, path, euclid_assign_triton=assign, cutedsl_assign_euclid=assign)
    _assert_right(gpu_search.flashlib_triton)
    with pytest.raises(UnavailableError, match="takes float16 and bfloat16"):
        gpu_search.flashlib_cute(*_pair())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="nvidia-cutlass-dsl"):
        gpu_search.flashlib_cute(*_pair(torch.bfloat16))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    _assert_right(gpu_search.flashlib_cute, torch.bfloat16)


def test_fastkmeans(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(
        data_chunk: Tensor,
        data_chunk_norms: Tensor,
        centroids: Tensor,
        centroids_sqnorm: Tensor,
        best_ids: Tensor,
    ) -> None:
        assert (data_chunk_norms.shape, centroids_sqnorm.shape) == ((N,), (K,))
        best_ids.copy_(_nearest(data_chunk, centroids))

    _install(monkeypatch, "fastkmeans.triton_kernels", triton_kmeans=kernel)
    _assert_right(gpu_search.fastkmeans)


def test_cuvs(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []

    class Resources:
        def __init__(self, stream: int) -> None:
            assert stream == 7

        def sync(self) -> None:
            synced.append(True)

    def predict(
        params: Any, x: Tensor, centroids: Tensor, *, labels: Tensor, resources: Resources
    ) -> None:
        assert params.n_clusters == K
        labels.copy_(_nearest(x, centroids))

    stream = SimpleNamespace(cuda_stream=7)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    parameters = lambda n_clusters: SimpleNamespace(n_clusters=n_clusters)  # noqa: E731
    path = "cuvs.cluster.kmeans"
    _install(monkeypatch, path, KMeansParams=parameters, predict=predict)
    _install(monkeypatch, "cuvs.common", Resources=Resources)
    _assert_right(gpu_search.cuvs_predict)
    assert synced == [True]


def test_faiss_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Index:
        def __init__(self, channels: int) -> None:
            assert channels == D

        def add(self, codes: Tensor) -> None:
            self.codes = codes

        def search(self, x: Tensor, k: int) -> tuple[None, Tensor]:
            return None, _nearest(x, self.codes)[:, None].expand(-1, k)

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    _install(monkeypatch, "faiss.contrib.torch_utils")
    sys.modules["faiss"].contrib = sys.modules["faiss.contrib"]  # type: ignore[attr-defined]
    _install(monkeypatch, "faiss", IndexFlatL2=Index)
    with pytest.raises(UnavailableError, match="without GPUs"):
        gpu_search.faiss_gpu(*_pair())
    place = lambda resources, device, index: index  # noqa: E731
    _install(monkeypatch, "faiss", StandardGpuResources=object, index_cpu_to_gpu=place)
    _assert_right(gpu_search.faiss_gpu)


def test_keops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Column(Tensor):
        """argmin of a symbolic matrix keeps a dimension."""

        def argmin(self, dim: int) -> Tensor:  # type: ignore[override]
            return torch.argmin(self.as_subclass(Tensor), dim=dim)[:, None]

    lazy = lambda values: values.as_subclass(Column)  # noqa: E731
    _install(monkeypatch, "pykeops.torch", LazyTensor=lazy)
    _assert_right(gpu_search.keops)


@pytest.mark.parametrize(
    "build", [gpu_search.cuvs_predict, gpu_search.faiss_gpu, gpu_search.keops]
)
def test_what_takes_only_float32_says_so(build: Any) -> None:
    with pytest.raises(UnavailableError, match="does not take bfloat16"):
        build(*_pair(torch.bfloat16))


@pytest.mark.parametrize("build", [torch_search.naive_in_tf32, torch_search.naive_in_bf16])
def test_a_product_in_less_precision_leaves_the_settings_as_they_were(build: Any) -> None:
    x, codebook = _pair()
    before = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
    found = build(x, codebook)()
    assert (found == _nearest(x, codebook)).float().mean() > 0.9
    assert (torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")) == before


def test_the_product_under_autocast_is_in_bfloat16() -> None:
    """Two codes whose product with x is the same number there: the shorter one wins."""
    x = torch.tensor([[1.0, 0.0]])
    codebook = torch.tensor([[1.0 + 2.0**-10, 0.0], [1.0 - 2.0**-9, 0.0]])
    assert torch_search.naive(x, codebook)().item() == 0
    assert torch_search.naive_in_bf16(x, codebook)().item() == 1


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(UnavailableError, match="CUDA device"):
        ours.training_step_in_a_graph(*_pair())


def test_a_library_that_goes_by_several_names_has_a_version() -> None:
    provider = peers.Provider("p", torch_search.naive, package="faiss", module="faiss")
    pytest.importorskip("faiss")
    assert provider.version().startswith("faiss-")
