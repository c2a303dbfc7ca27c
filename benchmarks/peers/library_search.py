"""The search of other libraries, on the tensors' own memory."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.provider import Call, Provider


def faiss_flat(x: Tensor, codebook: Tensor) -> Call:
    """IndexFlatL2, k = 1. Its copy of the codebook is made here, not in the call."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy())
    queries = x.numpy()
    return lambda: torch.from_numpy(index.search(queries, 1)[1][:, 0])


def sklearn_argmin(x: Tensor, codebook: Tensor) -> Call:
    """pairwise_distances_argmin, Euclidean; float32 is scored in float64 there."""
    from sklearn.metrics import pairwise_distances_argmin

    rows, codes = x.numpy(), codebook.numpy()
    return lambda: torch.from_numpy(pairwise_distances_argmin(rows, codes))


FAISS = (Provider("faiss IndexFlatL2", faiss_flat, "faiss-cpu", "faiss", devices=("cpu",)),)
SEARCH = (
    *FAISS,
    Provider("scikit-learn", sklearn_argmin, "scikit-learn", "sklearn.metrics", devices=("cpu",)),
)
