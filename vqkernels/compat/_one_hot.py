"""OneHot: indices that are a one-hot matrix to whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vqkernels import functional

# What a tensor knows without its elements.
_DESCRIPTIONS = {
    *(torch.is_floating_point, torch.numel, Tensor.__len__),
    *(
        getattr(Tensor, name)
        for name in (
            *("size", "dim", "ndimension", "numel", "nelement", "element_size"),
            *("stride", "is_contiguous", "is_floating_point", "is_complex", "get_device"),
        )
    ),
    *(
        getattr(Tensor, name).__get__
        for name in (
            *("shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes"),
            *("requires_grad", "grad", "grad_fn", "is_leaf"),
            *("is_cpu", "is_cuda", "is_meta", "is_mps", "is_xpu", "is_sparse", "is_quantized"),
        )
    ),
}


# Compiled code that is given one of these stops its graph there and goes on as plain Python does.
# This form of torch.compiler.disable imports the compiler when it is needed, not before.
_outside_of_graphs = torch._compile._disable_dynamo


def one_hot(indices: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    """The (N, K) one-hot matrix of indices (N,), built when it is read.

    Compiled code gets the matrix itself, which the compiler leaves out where nothing reads it.
    """
    if torch.compiler.is_compiling():
        return _dense(indices, num_codes, dtype)
    return OneHot(indices.clone(), num_codes, dtype)


class OneHot(Tensor):
    """A one-hot matrix whose elements exist once somebody reads them.

    ``argmax`` over the codes, ``sum`` and ``mean`` over the rows, and the product with a (K, D)
    matrix are answered from the indices, and so are shape, dtype and device. The values are those
    that the matrix would give, but for a product with infinities or NaN, which spread over a whole
    column there. Everything else builds the matrix, once; from then on this is that matrix in all
    that it does, changes in place included.
    """

    _chosen: Tensor
    _built: Tensor | None

    @staticmethod
    def __new__(cls: type[OneHot], indices: Tensor, num_codes: int, dtype: torch.dtype) -> OneHot:
        made = Tensor._make_wrapper_subclass(
            cls, (indices.shape[0], num_codes), dtype=dtype, device=indices.device
        )
        made._chosen = indices
        made._built = None
        return made

    def build(self) -> Tensor:
        """The matrix as an ordinary tensor."""
        if self._built is None:
            self._built = _dense(self._chosen, self.shape[1], self.dtype)
        return self._built

    @classmethod
    @_outside_of_graphs
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], OneHot) and args[0]._built is None:
            if func in _DESCRIPTIONS:
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **kwargs)
            if func in _ANSWERS:
                answer = _ANSWERS[func](*args, **kwargs)
                if answer is not None:
                    return answer
        args, kwargs = _all_built((args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    @_outside_of_graphs
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What reaches a tensor without passing through Python's torch functions."""
        args, kwargs = _all_built((args, kwargs or {}))
        return func(*args, **kwargs)

    def __hash__(self) -> int:  # torch's would be that of the matrix
        return id(self)


def _dense(indices: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(indices.shape[0], num_codes, dtype=dtype, device=indices.device)
    return zeros.scatter_(1, indices[:, None], 1)


def _all_built(arguments: Any) -> Any:
    return tree_map_only(OneHot, OneHot.build, arguments)


def _counts(one: OneHot) -> Tensor:
    ones = torch.ones_like(one._chosen)
    return ones.new_zeros(one.shape[1]).scatter_add_(0, one._chosen, ones)


# Each takes what the torch function takes and returns None for what it has no answer to.


def _argmax(one: OneHot, dim: Any = None, keepdim: bool = False) -> Tensor | None:
    if dim not in (1, -1):
        return None
    indices = one._chosen.clone()
    return indices[:, None] if keepdim else indices


def _sum(one: OneHot, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor | None:
    if not _is_rows(dim) or options:
        return None
    counts = _counts(one).to(one.dtype)
    return counts[None] if keepdim else counts


def _mean(one: OneHot, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor | None:
    if not _is_rows(dim) or options:
        return None
    means = (_counts(one).double() / one.shape[0]).to(one.dtype)
    return means[None] if keepdim else means


def _is_rows(dim: Any) -> bool:
    return dim in (0, -2) or (isinstance(dim, (tuple, list)) and list(dim) in ([0], [-2]))


def _matmul(one: OneHot, other: Any, **options: Any) -> Tensor | None:
    fits = isinstance(other, Tensor) and not isinstance(other, OneHot)
    if options or not fits or other.ndim != 2 or other.shape[0] != one.shape[1]:
        return None
    if other.dtype != one.dtype or other.device != one.device:
        return None
    return functional.lookup(one._chosen, other, channel_dim=-1)


def _detach(one: OneHot) -> Tensor | None:
    return None if one.requires_grad else one


_ANSWERS: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.argmax, Tensor.argmax), _argmax),
    **dict.fromkeys((torch.sum, Tensor.sum), _sum),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
    **dict.fromkeys(
        (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _matmul
    ),
    **dict.fromkeys((torch.detach, Tensor.detach), _detach),
}
