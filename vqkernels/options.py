"""Frozen option objects. They validate themselves, so a module never holds a bad one."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

from vqkernels import _checks


def _as_python(option: object) -> None:
    """Python's numbers in place of numpy's, which the compiler takes for tensors."""
    for name, value in list(vars(option).items()):
        if type(value) not in (bool, int, float) and isinstance(value, numbers.Real):
            plain = int(value) if isinstance(value, numbers.Integral) else float(value)
            object.__setattr__(option, name, plain)


@dataclass(frozen=True)
class EMA:
    """Codebook update by exponential moving averages (van den Oord et al. 2017, appendix A.1).

    Args:
        decay: g in ``s <- g*s + (1-g)*counts``; in [0, 1).
        epsilon: Laplace smoothing of the cluster sizes, in rows; at least 0.
        every: number of training forwards whose statistics are added up before the codebook
            moves once, for instance the number of gradient accumulation steps.
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    every: int = 1

    def __post_init__(self) -> None:
        _checks.in_range("EMA.decay", self.decay, 0.0, 1.0, closed_high=False)
        _checks.at_least("EMA.epsilon", self.epsilon, 0.0)
        _checks.integer_at_least("EMA.every", self.every, 1)
        _as_python(self)


@dataclass(frozen=True)
class Gradient:
    """Codebook update by the optimizer: the codebook is a Parameter with its own loss term.

    Args:
        weight: factor of ``mse(sg(x), q)`` in the loss (the second term of equation 3 of
            van den Oord et al. 2017, where it is 1).
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        _checks.at_least("Gradient.weight", self.weight, 0.0)
        _as_python(self)


@dataclass(frozen=True)
class Revive:
    """Replacement of dead codes by rows of the current batch.

    A code is dead when its EMA count of rows per update is below ``threshold``, or below a
    quarter of the mean count where that is smaller: with fewer rows than codes in a batch, no
    code could reach an absolute threshold and all of them would be replaced at once.
    It is dead, too, when the codebook has taken ``age`` rows per code since the code was last
    chosen. This limit does not wait until a moving average has forgotten. Were rows independent
    and codes used alike, one would wait that long with probability exp(-age); as a code often
    takes r rows of one image at once, it is exp(-age / r), and ``age`` should be many times r.

    Args:
        threshold: EMA count, in rows per update, under which a code is dead; above 0.
        age: rows per code after which an idle code is dead, above 0; None leaves it to
            ``threshold`` alone.
        every: codebook updates between two checks.
        candidates: rows kept from each batch; the j-th dead code takes candidate j modulo the
            number of candidates.
        seed: seed of the counter-based hash that picks the candidates. torch's generators are
            neither read nor advanced.
    """

    threshold: float = 1.0
    age: float | None = 1000.0
    every: int = 1
    candidates: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.above("Revive.threshold", self.threshold, 0.0)
        if self.age is not None:
            _checks.above("Revive.age", self.age, 0.0)
        _checks.integer_at_least("Revive.every", self.every, 1)
        _checks.integer_at_least("Revive.candidates", self.candidates, 1)
        _checks.integer_at_least("Revive.seed", self.seed, 0)
        _as_python(self)


@dataclass(frozen=True)
class Sample:
    """Assignment by a draw: in training the code of a vector is a random one, near ones likelier.

    ``p(k | x) = softmax_k(-|x - c_k|^2 / temperature)`` (Roy et al. 2018, arXiv 1805.11063,
    section 3, with one sample); with the cosine metric the logit is ``cos(x, c_k) / temperature``.
    Loss, statistics and gradient are those of the drawn code. In eval mode, and in ``encode``, the
    nearest code is taken.

    Args:
        temperature: above 0, in the unit of squared distances (or of cosines); the draw tends to
            the nearest code as it goes to 0.
        seed: seed of the counter-based hash that draws. torch's generators are neither read nor
            advanced. The counter is the buffer ``draws`` of the module, which counts training
            forwards: every step draws anew, every process for itself, and a checkpointed region
            draws the same again, if its backward comes before the next training forward (also
            with ``EMA(every=...)``). Quantizers that stand side by side, as in groups, should
            have different seeds: with equal ones the draws of a position go together.
    """

    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.above("Sample.temperature", self.temperature, 0.0)
        _checks.integer_at_least("Sample.seed", self.seed, 0)
        _as_python(self)


@dataclass(frozen=True)
class TopK:
    """Assignment to several codes: the k nearest ones, in training and in eval mode.

    ``indices`` become (*positions, k), nearest first; ``quantized`` has one more axis of size k,
    the last; the loss is the mean over all k. Statistics count the nearest code only.

    Args:
        k: number of codes, from 1 to the size of the codebook.
    """

    k: int

    def __post_init__(self) -> None:
        _checks.integer_at_least("TopK.k", self.k, 1)
        _as_python(self)


@dataclass(frozen=True)
class LevelDropout:
    """Quantizer dropout: in training, examples keep fewer levels of a residual quantizer.

    One model then serves every bitrate (Zeghidour et al. 2021, arXiv 2107.03312, section III-C).
    The examples that are not drawn keep all levels, which keeps the quality of the full bitrate
    (Kumar et al. 2023, arXiv 2306.06546, with ``probability=0.5``).

    Args:
        probability: with which an example, an element of the batch, is drawn; above 0, at most 1.
        keep: fewest levels that a drawn example keeps. Their number is one of keep, ..., L, all
            equally likely.
        multiple_of: the number is rounded up to a multiple of it, and to L at most.
        seed: seed of the counter-based hash that draws; each rank adds its number. torch's
            generators are neither read nor advanced.
    """

    probability: float = 1.0
    keep: int = 1
    multiple_of: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.above("LevelDropout.probability", self.probability, 0.0)
        _checks.in_range("LevelDropout.probability", self.probability, 0.0, 1.0)
        _checks.integer_at_least("LevelDropout.keep", self.keep, 1)
        _checks.integer_at_least("LevelDropout.multiple_of", self.multiple_of, 1)
        _checks.integer_at_least("LevelDropout.seed", self.seed, 0)
        _as_python(self)


@dataclass(frozen=True)
class Entropy:
    """Loss that makes rows sure of their codes and the codes evenly used.

    ``weight * (per_row - diversity * usage)`` of ``vq.code_entropy`` (Yu et al. 2023, arXiv
    2310.05737, with ``diversity=1``).

    Args:
        weight: factor of the loss, at least 0.
        temperature: of the soft assignment, above 0; in units of squared distance (l2), of the
            cosine, or of the dot product (``IBQ``).
        diversity: factor of the usage term, at least 0.
    """

    weight: float
    temperature: float = 1.0
    diversity: float = 1.0

    def __post_init__(self) -> None:
        _checks.at_least("Entropy.weight", self.weight, 0.0)
        _checks.above("Entropy.temperature", self.temperature, 0.0)
        _checks.at_least("Entropy.diversity", self.diversity, 0.0)
        _as_python(self)


@dataclass(frozen=True)
class Orthogonal:
    """Loss that makes the codes orthogonal (Shin et al. 2021, arXiv 2112.00384).

    ``weight * vq.code_orthogonality``.

    Args:
        weight: factor of the loss, at least 0.
        active_only: only the codes that the batch uses take part.
    """

    weight: float
    active_only: bool = False

    def __post_init__(self) -> None:
        _checks.at_least("Orthogonal.weight", self.weight, 0.0)
        if not isinstance(self.active_only, bool):
            raise TypeError(f"Orthogonal.active_only must be a bool, got {self.active_only!r}")
        _as_python(self)


Assign = Sample | TopK | None
Regularizer = Entropy | Orthogonal
Update = EMA | Gradient | None
