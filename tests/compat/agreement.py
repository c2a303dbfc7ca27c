"""What it means that a class of ours and one of another library do the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import oracle
import torch
from torch import Tensor, nn

# Roundings that two float32 implementations of one formula may differ by, in units of eps of the
# largest value: sums over a few hundred terms, taken in another order.
_BAND = 64.0


def assert_in_one_band(ours: Tensor, theirs: Tensor, terms: float = 0.0) -> None:
    """``terms`` is the size of what the values are sums or differences of, if they are larger."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype)
    if not ours.numel():
        return
    one, other = ours.detach().double(), theirs.detach().double()
    largest = max(float(other.abs().max()), terms)
    allowed = _BAND * torch.finfo(ours.dtype).eps * largest
    error = float((one - other).abs().max())
    assert error <= allowed, f"{error:.3e} apart, allowed {allowed:.3e}"


def assert_same_codes(
    ours: Tensor, theirs: Tensor, rows: Tensor, codebook: Tensor, metric: str = "l2"
) -> list[int]:
    """Ours are the float64 argmin everywhere; theirs are too, but for the rows returned.

    ``rows`` is (N, D) in the order of the flattened indices.
    """
    exact, _ = oracle.nearest_code(rows.detach(), codebook.detach(), metric)
    truth = torch.from_numpy(exact)
    assert torch.equal(ours.reshape(-1).long().cpu(), truth)
    return (theirs.reshape(-1).long().cpu() != truth).nonzero().flatten().tolist()


def gradients(module: nn.Module, x: Tensor, call: Callable[[nn.Module, Tensor], Any]) -> Any:
    """(what ``call`` returns, gradient of x, gradients of the parameters).

    The first tensor of what is returned gets a fixed upstream gradient, the other differentiable
    ones a gradient of 1.
    """
    module.zero_grad(set_to_none=True)
    x = x.detach().clone().requires_grad_()
    out = call(module, x)
    tensors = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
    learnt = [t for t in tensors if t.requires_grad]
    upstream = [
        torch.linspace(-1.0, 1.0, t.numel()).view_as(t) if t.numel() > 1 else torch.ones_like(t)
        for t in learnt
    ]
    torch.autograd.backward(learnt, upstream)
    found = {name: value.grad for name, value in module.named_parameters()}
    return out, x.grad, found


def assert_steps_agree(
    ours: nn.Module,
    theirs: nn.Module,
    batches: Sequence[Tensor],
    call: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x),
    learning_rate: float = 0.01,
    terms: float = 0.0,
) -> None:
    """Trained side by side, the two keep the same state and return the same indices.

    Both copies start from theirs' state. SGD where there are parameters. ``terms`` as in
    ``assert_in_one_band``, for the state.
    """
    ours, theirs = copy.deepcopy(ours).train(), copy.deepcopy(theirs).train()
    ours.load_state_dict(theirs.state_dict())
    steps = []
    for module in (ours, theirs):
        learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
        steps.append(torch.optim.SGD(learnt, lr=learning_rate) if learnt else None)
    for x in batches:
        results = [gradients(module, x, call) for module in (ours, theirs)]
        for one, other in zip(*(integers(out) for out, _, _ in results), strict=True):
            assert torch.equal(one, other)
        for optimizer in steps:
            if optimizer is not None:
                optimizer.step()
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            assert_in_one_band(ours.state_dict()[name], value, terms)


def integers(out: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(out)
    return [t for t in leaves if isinstance(t, Tensor) and not t.is_floating_point()]


def with_margin(codebook: Tensor, n: int, seed: int = 0, spread: float = 0.1) -> Tensor:
    """(n, D) rows near codes drawn at random: nearer than half the way to any other code."""
    generator = torch.Generator().manual_seed(seed)
    k, d = codebook.shape
    distances = torch.cdist(codebook, codebook) + torch.full((k,), torch.inf).diag()
    radius = spread * distances.min(dim=1).values
    chosen = torch.randint(k, (n,), generator=generator)
    noise = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    return codebook[chosen] + radius[chosen, None] * noise
