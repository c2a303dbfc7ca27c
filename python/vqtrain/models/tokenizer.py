"""What every tokenizer is: a signal to grids of codes and back, and the bits that it takes.

A signal is `(B, C, *size)` integers in `0 .. levels - 1`: grey levels of a picture (`size` is
`(H, W)`), of a video (`(T, H, W)`), or mu-law levels of sound (`(T,)`). A tokenizer with L levels
of codes gives a tuple of L integer tensors `(B, *grid)`, top level, the coarsest one, first.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

Size = tuple[int, ...]
Codes = tuple[Tensor, ...]


class NoLikelihoodError(RuntimeError):
    """Bits were asked of a model that defines no probability of its data."""


@dataclass(frozen=True)
class Signal:
    """What a tokenizer is told of its data.

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


class Tokenizer(nn.Module):
    """Base of all tokenizers; see the module's docstring for shapes.

    Attributes:
        signal: what it is a tokenizer of.
        likelihood: turns decoder outputs into probabilities (`vqtrain.models.likelihood`).
        codebook_sizes: K of each level.
        code_grids: grid of each level.
    """

    signal: Signal
    likelihood: nn.Module
    codebook_sizes: tuple[int, ...]
    code_grids: tuple[Size, ...]

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        """Encodes, quantizes, decodes and measures; in training the codebooks move."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Codes:
        """`(B, C, *size)` to the codes of each level, int64."""
        raise NotImplementedError

    def decode(self, codes: Codes, labels: Tensor) -> Tensor:
        """Codes and `(B,)` labels to `(B, C * P, *size)` parameters of the likelihood."""
        raise NotImplementedError

    def nll(self, x: Tensor, labels: Tensor, codes: Codes | None = None) -> Tensor:
        """`(B,)` nats per item, -log p(x | z, label), for z = `codes` or the encoder's.

        Raises:
            NoLikelihoodError: if the decoder is trained on a squared error.
        """
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        raise NotImplementedError

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Tokenizer":
        """Inverse of `description`, with fresh weights."""
        raise NotImplementedError
