"""The search of libraries for GPUs, on the tensors' own memory and torch's stream.

Each at its own precision, which no setting changes here: flash-kmeans, FlashLib and fastkmeans let
Triton round float32 to TF32.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from benchmarks.peers.provider import Call, Provider, UnavailableError


def flash_kmeans(x: Tensor, codebook: Tensor) -> Call:
    """Its assignment kernel, with the norms of x that it asks for."""
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    rows, codes = x[None], codebook.to(x.dtype)[None]
    return lambda: euclid_assign_triton(rows, codes, rows.float().square().sum(-1))[0]


def flashlib_triton(x: Tensor, codebook: Tensor) -> Call:
    from flashlib.primitives.kmeans import euclid_assign_triton

    rows, codes = x[None], codebook.to(x.dtype)[None]
    return lambda: euclid_assign_triton(rows, codes)[0]


def flashlib_cute(x: Tensor, codebook: Tensor) -> Call:
    """Its fused kernel; elsewhere it would run the Triton one under this name."""
    if x.dtype not in (torch.float16, torch.bfloat16) or x.shape[1] % 16:
        raise UnavailableError("takes float16 and bfloat16 with a multiple of 16 channels")
    if importlib.util.find_spec("cutlass") is None:
        raise UnavailableError("not installed: nvidia-cutlass-dsl")
    from flashlib.primitives.kmeans import cutedsl_assign_euclid

    rows, codes = x[None], codebook.to(x.dtype)[None]
    return lambda: cutedsl_assign_euclid(rows, codes)[0]


def fastkmeans(x: Tensor, codebook: Tensor) -> Call:
    """Its Triton kernel; what it offers above it copies x from the CPU and indices back."""
    from fastkmeans.triton_kernels import triton_kmeans

    codes = codebook.to(x.dtype)

    def search() -> Tensor:
        indices = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        triton_kmeans(
            data_chunk=x,
            data_chunk_norms=x.square().sum(dim=1),
            centroids=codes,
            centroids_sqnorm=codes.square().sum(dim=1),
            best_ids=indices,
        )
        return indices

    return search


def cuvs_predict(x: Tensor, codebook: Tensor) -> Call:
    """k-means prediction: the fused search, or a matrix and a reduction where that is chosen."""
    _only_float32(x)
    from cuvs.cluster.kmeans import KMeansParams, predict
    from cuvs.common import Resources

    parameters = KMeansParams(n_clusters=len(codebook))
    resources = Resources(stream=torch.cuda.current_stream(x.device).cuda_stream)
    labels = torch.empty(len(x), dtype=torch.int32, device=x.device)

    def search() -> Tensor:
        predict(parameters, x, codebook, labels=labels, resources=resources)
        resources.sync()  # it may have chosen a stream of its own
        return labels

    return search


def faiss_gpu(x: Tensor, codebook: Tensor) -> Call:
    """IndexFlatL2 on the device, k = 1."""
    _only_float32(x)
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise UnavailableError("this faiss is built without GPUs")
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()
    flat = faiss.IndexFlatL2(codebook.shape[1])
    index = faiss.index_cpu_to_gpu(resources, x.device.index or 0, flat)
    index.add(codebook)
    return lambda: index.search(x, 1)[1][:, 0]


def keops(x: Tensor, codebook: Tensor) -> Call:
    """A symbolic N x K matrix, reduced by argmin; float32 without tensor cores."""
    _only_float32(x)
    from pykeops.torch import LazyTensor

    rows, codes = LazyTensor(x[:, None, :]), LazyTensor(codebook[None, :, :])
    return lambda: ((rows - codes) ** 2).sum(-1).argmin(dim=1).view(-1)


def _only_float32(x: Tensor) -> None:
    if x.dtype is not torch.float32:
        raise UnavailableError(f"does not take {str(x.dtype).removeprefix('torch.')}")


_ON_CUDA = ("cuda",)
SEARCH = (
    Provider("flash-kmeans", flash_kmeans, "flash-kmeans", "flash_kmeans", devices=_ON_CUDA),
    Provider("FlashLib Triton", flashlib_triton, "flashlib", "flashlib", devices=_ON_CUDA),
    Provider("FlashLib CuTe", flashlib_cute, "flashlib", "flashlib", devices=_ON_CUDA),
    Provider("fastkmeans", fastkmeans, "fastkmeans", "fastkmeans", devices=_ON_CUDA),
    Provider("cuVS", cuvs_predict, "cuvs", "cuvs", devices=_ON_CUDA, own_memory=True),
    Provider("faiss GPU", faiss_gpu, "faiss", "faiss", devices=_ON_CUDA, own_memory=True),
    Provider("KeOps", keops, "pykeops", "pykeops", devices=_ON_CUDA),
)
