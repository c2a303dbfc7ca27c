"""What every tokenizer is: a signal to grids of codes and back, and the bits that it takes.

A signal is `(B, C, *size)` integers in `0 .. levels - 1`: grey levels of a picture (`size` is
`(H, W)`), of a video (`(T, H, W)`), or mu-law levels of sound (`(T,)`). A tokenizer with L levels
of codes gives a tuple of L integer tensors `(B, *grid)`, top level, the coarsest one, first.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from vqtrain.models.levels import scaled
from vqtrain.models.likelihood import Likelihood, NoLikelihoodError
from vqtrain.pretrained import Pretrained

__all__ = [
    "Codes",
    "NoLikelihoodError",
    "Signal",
    "SignalModel",
    "Size",
    "Tokenizer",
    "TokenizerOutput",
]

Size = tuple[int, ...]
Codes = tuple[Tensor, ...]
Model = TypeVar("Model", bound="SignalModel")


@dataclass(frozen=True)
class Signal:
    """What a model is told of its data.

    Args:
        size: lengths of the spatial axes: `(T,)`, `(H, W)` or `(T, H, W)`.
        channels: C.
        levels: different values of an entry.
        num_labels: labels a decoder can be told; 1 where there are none.
    """

    size: Size
    channels: int
    levels: int
    num_labels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))  # JSON gives a list
        if not 1 <= len(self.size) <= 3:
            raise ValueError(f"size must have one to three lengths, got {self.size}")
        if any(length < 1 for length in self.size):
            raise ValueError(f"size must have positive lengths, got {self.size}")
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, got {self.levels}")
        if self.num_labels < 1:
            raise ValueError(f"num_labels must be at least 1, got {self.num_labels}")

    @property
    def ndim(self) -> int:
        return len(self.size)

    @property
    def dims(self) -> int:
        """Entries of one item, the number that bits per dimension are divided by."""
        count = self.channels
        for length in self.size:
            count *= length
        return count

    def check(self, x: Tensor) -> None:
        """Refuses a batch of another shape."""
        expected = (self.channels, *self.size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}"
            )

    def scaled(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Checked levels, from `0 .. levels - 1` to [-1, 1]."""
        self.check(x)
        return scaled(x, self.levels, dtype)


class SignalModel(Pretrained):
    """A configuration and a signal make one of these; so does its description.

    Attributes:
        config_type: class of `config`.
        config: sizes.
        signal: what it is a model of.
        likelihood: turns decoder outputs into probabilities.
    """

    config_type: ClassVar[type[Any]]
    signal: Signal
    likelihood: Likelihood

    def __init__(self, config: Any, signal: Signal) -> None:
        super().__init__()
        self.config, self.signal = config, signal

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        return {"config": asdict(self.config), "signal": asdict(self.signal)}

    @classmethod
    def from_description(cls: type[Model], description: dict[str, Any]) -> Model:
        """Inverse of `description`, with fresh weights."""
        return cls(cls.config_type(**description["config"]), Signal(**description["signal"]))

    def cost(self, x: Tensor, labels: Tensor) -> Tensor:
        """`(B,)`, what the best step is chosen by: nats per item, or squared errors."""
        raise NotImplementedError


class TokenizerOutput(NamedTuple):
    """What a training step needs.

    Attributes:
        loss: 0-d, to minimise: nats per dimension (or a squared error) plus quantizer losses.
        nll: `(B,)` nats per item, -log p(x | codes, label); None without a likelihood.
        codes: one `(B, *grid)` int64 tensor per level.
        scalars: 0-d tensors worth a line in the log.
    """

    loss: Tensor
    nll: Tensor | None
    codes: Codes
    scalars: dict[str, Tensor]


class Tokenizer(SignalModel):
    """Base of all tokenizers; see the module's docstring for shapes.

    Attributes:
        codebook_sizes: K of each level.
        code_grids: grid of each level.
    """

    codebook_sizes: tuple[int, ...]
    code_grids: tuple[Size, ...]

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        """Encodes, quantizes, decodes and measures; in training the codebooks move.

        Args:
            x: `(B, C, *size)` integer levels.
            labels: `(B,)` int64, ignored unless the decoder is class-conditional.

        Raises:
            ValueError: if x has another shape than the signal.
        """
        raise NotImplementedError

    def encode(self, x: Tensor) -> Codes:
        """`(B, C, *size)` to the codes of each level, int64."""
        raise NotImplementedError

    def decode(self, codes: Codes, labels: Tensor) -> Tensor:
        """Codes and `(B,)` labels to `(B, C * P, *size)` parameters of the likelihood."""
        self.check_codes(codes)
        return self.decode_vectors(self.vectors(codes), labels)

    def vectors(self, codes: Codes) -> tuple[Tensor, ...]:
        """Codes to the `(B, D, *grid)` vectors that they stand for, one tensor per level."""
        raise NotImplementedError

    def decode_vectors(self, vectors: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """`decode` of vectors that need not be those of codes, such as points between them."""
        raise NotImplementedError

    def cost(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.likelihood.cost(self.decode(self.encode(x), labels), x)

    def nll(self, x: Tensor, labels: Tensor, codes: Codes | None = None) -> Tensor:
        """`(B,)` nats per item, -log p(x | z, label), for z = `codes` or the encoder's.

        Raises:
            NoLikelihoodError: if the decoder is trained on a squared error.
        """
        codes = self.encode(x) if codes is None else codes
        return -self.likelihood.log_prob(self.decode(codes, labels), x).flatten(1).sum(1)

    def check_codes(self, codes: Codes) -> None:
        """Refuses codes of other grids, and a tensor where a tuple of them is meant."""
        grids = None if isinstance(codes, Tensor) else tuple(tuple(c.shape[1:]) for c in codes)
        if grids != self.code_grids:
            got = f"a tensor {tuple(codes.shape)}" if isinstance(codes, Tensor) else f"{grids}"
            raise ValueError(f"codes must be a tuple with grids {self.code_grids}, got {got}")
