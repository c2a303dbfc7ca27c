"""Quantizer: what the quantizers share, single ones and those that are made of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from vqkernels import _checks
from vqkernels.distributed import Statistics
from vqkernels.nn import _ranks
from vqkernels.nn._full_precision import FullPrecision, misfits
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.options import TopK
from vqkernels.outputs import VQOutput

Learnt = list[tuple[LearnedCodebook, Statistics]]


class Quantizer(nn.Module, ABC):
    """A step, and the one place where what it has learnt is stored.

    A quantizer that is made of others runs their steps, not their forwards: however they are
    nested, the statistics of all codebooks come together in the outermost forward, and are added
    up over the ranks in one collective.

    Attributes:
        embedding_dim: size of x along ``channel_dim``.
        channel_dim: dimension of x that holds the channels.
    """

    embedding_dim: int
    channel_dim: int
    _code_shape: tuple[int, ...] = ()  # what the shape of indices has after the positions
    _usage_shape: tuple[int, ...] = ()  # what the shapes of usage have in front

    @abstractmethod
    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        """The channel dimension, not negative. Raises before any state moves."""

    @abstractmethod
    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        """The output, and what the codebooks that are in training have learnt.

        They are initialised and moved first. Arguments are checked before anything changes.
        """

    @abstractmethod
    def _codebooks(self) -> list[LearnedCodebook]:
        """The codebooks, each once."""

    @property
    def _many(self) -> TopK | None:
        """The option that gives every vector several codes, each with a place in ``quantized``."""
        return None

    @property
    def _decoded_dim(self) -> int:
        """Size of ``quantized`` along ``channel_dim``."""
        return self.embedding_dim

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the nearest codes. Changes no state."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes."""

    @abstractmethod
    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on x now; does nothing on initialised codebooks."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        out, learnt = self._step(x, mask)
        for codebook, statistics in _ranks.reduced(learnt):
            codebook._store(statistics)
        return out

    def flush(self) -> None:
        """Moves the codebooks by whatever statistics are pending, due or not."""
        for codebook in self._codebooks():
            codebook.flush()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """All codebooks and projections or none: torch loads child by child, whatever fits."""
        problems = [
            problem
            for name, module in self.named_modules(prefix=prefix.rstrip("."))
            if (module is not self or self._modules)
            and isinstance(module, (FullPrecision, nn.Linear))
            for problem in _misfits(module, state_dict, f"{name}." if name else "")
        ]
        if problems:
            raise RuntimeError("; ".join(problems))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _misfits(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> list[str]:
    if isinstance(module, FullPrecision):
        return module._misfits(state_dict, prefix)
    return misfits(module, state_dict, prefix)


_Made = TypeVar("_Made", bound=Quantizer)


def part_count(name: str, count: int | None, make: Any, shared: bool) -> int:
    """``count``, which may be None where ``make`` is a sequence."""
    if count is None and isinstance(make, Sequence) and not shared:
        count = len(make)
    _checks.integer_at_least(name, count, 1)
    assert count is not None
    return int(count)


def make_each(
    make: Callable[[], _Made] | Sequence[_Made], count: int, kind: type[Any], same: Iterable[str]
) -> list[_Made]:
    """The parts of a quantizer, called for or as given: modules that are equal in ``same``.

    No codebook may be in two of them: it would be stored twice in one step.
    """
    if isinstance(make, nn.Module):
        raise TypeError(
            f"make must be a function that returns a new {kind.__name__}, "
            f"got a module, {type(make).__name__}"
        )
    if isinstance(make, Sequence):
        if len(make) != count:
            raise ValueError(f"make must hold {count} quantizers, got {len(make)}")
        modules = list(make)
    elif callable(make):
        modules = [make() for _ in range(count)]
    else:
        raise TypeError(f"make must be callable or a sequence of quantizers, got {make!r}")
    for module in modules:
        if not isinstance(module, kind):
            raise TypeError(f"make must return a {kind.__name__}, got {type(module).__name__}")
        for name in same:
            check_equal(name, getattr(modules[0], name), getattr(module, name))
    codebooks = [id(codebook) for module in modules for codebook in module._codebooks()]
    if len(set(codebooks)) < len(codebooks):
        raise ValueError("make must give every part a new module, got one twice")
    return modules


def check_equal(name: str, first: Any, other: Any) -> None:
    if first != other:
        raise ValueError(
            f"make must return quantizers with equal {name}, got {first!r} and {other!r}"
        )


def refuse_many(argument: str, module: Quantizer, owner: Quantizer) -> None:
    if module._many is not None:
        raise ValueError(
            f"{argument} without assign=TopK(...) for {type(owner).__name__}, got {module._many!r}"
        )
