"""What every autoregressive prior promises; a prior's own test file calls all of these.

Give the checks a float64 model in eval mode whose receptive field covers the grid: `SPACES` has
grids of one to three axes, none square, with labels and levels above.
"""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vqtrain.priors import CodeSpace, Prior, Sampler

K, LABELS = 5, 3
SPACES = {
    "line": CodeSpace(K, (7,), LABELS, upper=((4, (3,)),)),
    "wide": CodeSpace(K, (3, 4), LABELS, upper=((3, (1, 1)), (4, (2, 2)))),
    "tall": CodeSpace(K, (4, 2), LABELS),
    "video": CodeSpace(K, (3, 2, 4), LABELS, upper=((4, (2, 1, 2)),)),
}
SAMPLERS = {
    "plain": Sampler(),
    "sharp": Sampler(temperature=0.7, top_k=4, top_p=0.9),
    "guided": Sampler(guidance=2.0),
}


def batch(space: CodeSpace, count: int = 3) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Random codes, labels and levels above."""
    generator = torch.Generator().manual_seed(1)

    def codes(k: int, grid: tuple[int, ...]) -> Tensor:
        return torch.randint(k, (count, *grid), generator=generator)

    upper = tuple(codes(k, grid) for k, grid in space.upper)
    return codes(space.num_embeddings, space.grid), torch.arange(count) % space.num_labels, upper


def check_order(prior: Prior) -> None:
    """A code moves every later logit, so nothing is overlooked, and no logit at or before it."""
    space = prior.space
    codes, labels, upper = batch(space)
    with torch.no_grad():
        before = prior(codes, labels, upper).flatten(2)
        for t in range(space.positions):
            moved = torch.zeros(space.positions, dtype=torch.bool)
            for shift in range(1, space.num_embeddings):
                other = codes.flatten(1).clone()
                other[:, t] = (other[:, t] + shift) % space.num_embeddings
                after = prior(other.view_as(codes), labels, upper).flatten(2)
                moved |= (after != before).any(1).any(0)
            assert torch.equal(moved, torch.arange(space.positions) > t), f"code {t}"


def check_told(prior: Prior) -> None:
    """The label, the null label and every level above move every logit."""
    space = prior.space
    codes, labels, upper = batch(space)
    others: list[tuple[Tensor, tuple[Tensor, ...]]] = [
        ((labels + 1) % space.num_labels, upper),
        (torch.full_like(labels, space.null_label), upper),
    ]
    for level, (k, _) in enumerate(space.upper):
        changed = list(upper)
        changed[level] = (changed[level] + 1) % k
        others.append((labels, tuple(changed)))
    with torch.no_grad():
        before = prior(codes, labels, upper)
        for other_labels, other_upper in others:
            after = prior(codes, other_labels, other_upper)
            assert bool(((after - before).abs().amax(1) > 1e-9).all())


def check_likelihood(prior: Prior) -> None:
    """exp(-nll) sums to one over all grids of a space that is small enough to list."""
    space = prior.space
    values = range(space.num_embeddings)
    listed = list(itertools.product(values, repeat=space.positions))
    assert len(listed) <= 5000, "space must be small"
    codes = torch.tensor(listed).view(-1, *space.grid)
    _, labels, upper = batch(space, 1)
    with torch.no_grad():
        nll = prior.nll(
            codes,
            labels.expand(len(codes)),
            tuple(level.expand(len(codes), *level.shape[1:]) for level in upper),
        )
    # Rounding of one sum of float64 terms that are at most 1.
    assert abs(nll.neg().exp().sum().item() - 1) < len(codes) * 2**-52


def check_cached_equals_naive(prior: Prior, sampler: Sampler) -> None:
    """Cached sampling draws the naive sampler's codes, with and without known ones."""
    space = prior.space
    codes, labels, upper = batch(space)
    mask = torch.arange(space.positions).view(space.grid) % 3 == 1
    for known in (None, (codes, mask)):
        cached, naive = (
            prior.generate(
                labels, torch.Generator().manual_seed(2), sampler, upper, known, cached=cached
            )
            for cached in (True, False)
        )
        assert torch.equal(cached, naive)
        if known is not None:
            assert torch.equal(cached[:, mask], codes[:, mask])
            assert not torch.equal(cached, codes)


def check_steps_equal_forward(prior: Prior) -> None:
    """Told the right codes, fp32 steps are as near to the float64 forward as the fp32 forward."""
    codes, labels, upper = batch(prior.space)
    exact = prior(codes, labels, upper).flatten(2).detach()
    single = copy.deepcopy(prior).float()
    with torch.no_grad():
        forward = single(codes, labels, upper).flatten(2)
        cache, columns = single.init_cache(labels, upper), codes.flatten(1).unbind(1)
        steps = torch.stack(
            [
                single.step(cache, columns[t - 1] if t else None, t).clone()
                for t in range(prior.space.positions)
            ],
            dim=2,
        )
    errors = [(logits - exact).square().mean().sqrt() for logits in (steps, forward)]
    eps = torch.finfo(torch.float32).eps * exact.square().mean().sqrt()
    assert errors[0] <= errors[1] + eps


def check_no_host_sync(prior: Prior) -> None:
    """Nothing in `generate` reads a value back, and a cache never changes size or place."""
    _, labels, upper = batch(prior.space)
    sampler = Sampler(temperature=0.9, top_k=4, top_p=0.9, guidance=2.0)
    with NoHostSync():
        prior.generate(labels, torch.Generator().manual_seed(0), sampler, upper)

    cache = prior.init_cache(labels, upper)
    places = [(x.data_ptr(), x.shape) for x in _tensors(cache)]
    assert places, "a cache must hold tensors"
    code = None
    with torch.no_grad():
        for position in range(prior.space.positions):
            code = prior.step(cache, code, position).argmax(1)
            assert [(x.data_ptr(), x.shape) for x in _tensors(cache)] == places


class NoHostSync(TorchDispatchMode):
    """Refuses the operations that wait for a device to hand a value or a size to Python."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not name.startswith(self.REFUSED), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a nest of containers and of objects with attributes, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module):
        yield from _tensors(vars(value))
