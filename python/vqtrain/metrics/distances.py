"""Distances between sets of samples and real items, on features of this data set's own making.

    fd_local = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))       Frechet, Heusel et al. 2017
                                                                  (arXiv 1706.08500)
    kernel   = unbiased MMD^2 with k(a, b) = (a.b / d + 1)^3      Binkowski et al. 2018
                                                                  (arXiv 1801.01401)

Features are the whitened leading principal components of the training split (`features.py`), no
network's, so the numbers say something about this data set alone and are never to be called FID
or KID. The Frechet distance of n items is biased upwards the more, the smaller n / d; hence the
bound n >= 10 d, and the floor: the same distance between two disjoint halves of the real items,
of the same n. A sample cannot be told from a real item where the two intervals overlap.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Measure = Callable[[Tensor, Tensor], float]

ITEMS_PER_FEATURE = 10
RESAMPLINGS = 200
INTERVAL = (0.025, 0.975)


class Distance(NamedTuple):
    """A distance, its 95 % bootstrap interval, and the same between two real sets.

    Attributes:
        value: samples against real items.
        interval: spread over resamplings of both sets, about the value.
        floor: real items against other real items.
        floor_interval: of the floor.
    """

    value: float
    interval: tuple[float, float]
    floor: float
    floor_interval: tuple[float, float]


class Distances(NamedTuple):
    """Both distances.

    Attributes:
        fd_local: Frechet.
        kernel_local: polynomial kernel; unbiased, so it may be negative.
        features: d.
        items: n, of each of the sets that are compared.
    """

    fd_local: Distance
    kernel_local: Distance
    features: int
    items: int


def most_features(items: int, limit: int = 64) -> int:
    """The largest d that `items` real items, split in half, allow; at most `limit`."""
    return min(limit, items // 2 // ITEMS_PER_FEATURE)


def distances(
    samples: Tensor, real: Tensor, resamplings: int = RESAMPLINGS, seed: int = 0
) -> Distances:
    """Measures samples against one half of the real items, and the other half against it too.

    Args:
        samples: `(N, d)` features.
        real: `(M, d)` features of real items that nothing was fitted to.
        resamplings: behind each interval.
        seed: decides halves and resamplings.

    Raises:
        ValueError: if there are fewer than 10 d items in a half or among the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(len(real) // 2, len(samples))
    d = real.shape[1]
    if n < ITEMS_PER_FEATURE * d:
        raise ValueError(
            f"items of each set must be at least {ITEMS_PER_FEATURE} d = {ITEMS_PER_FEATURE * d}, "
            f"got {n}"
        )
    order = torch.randperm(len(real), generator=generator)
    # Samples come class by class: without the shuffle, the first n would be of a few classes.
    drawn = samples[torch.randperm(len(samples), generator=generator)[:n]].double()
    reference, other = real[order[:n]].double(), real[order[n : 2 * n]].double()
    return Distances(
        _against_floor(frechet, drawn, other, reference, resamplings, generator),
        _against_floor(kernel, drawn, other, reference, resamplings, generator),
        features=d,
        items=n,
    )


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians that fit `(n, d)` and `(m, d)` float64 features."""
    s1, s2 = (torch.atleast_2d(torch.cov(features.T)) for features in (a, b))
    # The eigenvalues of a product of covariances are real and not negative but for rounding.
    root = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    return (mean + s1.trace() + s2.trace() - 2 * root).item()


def kernel(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD of `(n, d)` and `(m, d)` features under (a.b / d + 1)^3."""

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        gram = k(x, x)
        return (gram.sum() - gram.trace()) / (len(x) * (len(x) - 1))

    return (within(a) + within(b) - 2 * k(a, b).mean()).item()


def _against_floor(
    measure: Measure,
    drawn: Tensor,
    other: Tensor,
    reference: Tensor,
    resamplings: int,
    generator: torch.Generator,
) -> Distance:
    return Distance(
        *_with_interval(measure, drawn, reference, resamplings, generator),
        *_with_interval(measure, other, reference, resamplings, generator),
    )


def _with_interval(
    measure: Measure, a: Tensor, b: Tensor, resamplings: int, generator: torch.Generator
) -> tuple[float, tuple[float, float]]:
    """The distance, and its spread over resamplings with replacement of both sets.

    A resampling repeats items and so lies further from anything than the set itself. Only its
    spread is used: the percentiles are shifted so that the resamplings' mean is the value.
    """
    values = []
    for _ in range(resamplings):
        rows = [torch.randint(len(x), (len(x),), generator=generator) for x in (a, b)]
        values.append(measure(a[rows[0]], b[rows[1]]))
    value, resampled = measure(a, b), torch.tensor(values, dtype=torch.float64)
    percentiles = resampled.quantile(torch.tensor(INTERVAL, dtype=torch.float64))
    low, high = (percentiles - resampled.mean() + value).tolist()
    return value, (low, high)
