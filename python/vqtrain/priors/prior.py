"""What every prior is: p(z | label, codes above) over one grid of codes.

Codes are `(B, *grid)` integers in `0 .. K - 1`; positions are numbered in raster order, the last
axis fastest. In a hierarchy each level has a prior of its own, which is told the label and the
codes of all levels above it, and samples are drawn ancestrally, top level first.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.tokenizer import Codes, Size
from vqtrain.priors.sampling import Sampler, draw


@dataclass(frozen=True)
class CodeSpace:
    """The grid that a prior models, and what it is told.

    Args:
        num_embeddings: K, the number of different codes.
        grid: lengths of the axes, one to three of them.
        num_labels: labels it can be told; 1 where there are none.
        upper: `(K, grid)` of every level above, top first.
    """

    num_embeddings: int
    grid: Size
    num_labels: int = 1
    upper: tuple[tuple[int, Size], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))  # JSON gives lists
        object.__setattr__(self, "upper", tuple((k, tuple(grid)) for k, grid in self.upper))
        if not 1 <= len(self.grid) <= 3:
            raise ValueError(f"grid must have one to three axes, got {self.grid}")

    @property
    def positions(self) -> int:
        return math.prod(self.grid)

    @property
    def null_label(self) -> int:
        """The label that says nothing: what dropped labels become."""
        return self.num_labels

    def check(self, codes: Tensor, upper: Codes) -> None:
        """Refuses codes of another grid and a missing or foreign upper level."""
        if tuple(codes.shape[1:]) != self.grid:
            raise ValueError(
                f"codes must have shape (B, {', '.join(map(str, self.grid))}), "
                f"got {tuple(codes.shape)}"
            )
        grids = [grid for _, grid in self.upper]
        if [tuple(level.shape[1:]) for level in upper] != grids:
            raise ValueError(
                f"upper must have grids {grids}, got {[tuple(level.shape[1:]) for level in upper]}"
            )


class Prior(nn.Module):
    """Base of all priors.

    A subclass sets `config` (a dataclass with `label_dropout`), and defines `forward`,
    `init_cache` and `step`; the masked prior replaces `loss`, `nll` and `generate`.
    """

    exact_likelihood: ClassVar[bool] = True
    config: Any
    space: CodeSpace

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """Logits `(B, K, *grid)` of every position given all earlier ones."""
        raise NotImplementedError

    def nll(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """`(B,)` nats per grid, -log p(z | label, upper)."""
        logits = self(codes, labels, upper)
        return F.cross_entropy(logits, codes.long(), reduction="none").flatten(1).sum(1)

    def loss(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """0-d, nats per code, with labels dropped in training: what a step minimises."""
        return self.nll(codes, self.drop_labels(labels), upper).mean() / self.space.positions

    def drop_labels(self, labels: Tensor) -> Tensor:
        """In training, replaces a share `config.label_dropout` of the labels by the null label."""
        if not self.training or not self.config.label_dropout:
            return labels
        dropped = torch.rand(labels.shape, device=labels.device) < self.config.label_dropout
        return labels.masked_fill(dropped, self.space.null_label)

    def init_cache(self, labels: Tensor, upper: Codes = ()) -> Any:
        """Buffers of fixed size for `step`, for `len(labels)` grids."""
        raise NotImplementedError

    def step(self, cache: Any, code: Tensor | None, position: int) -> Tensor:
        """Logits `(B, K)` of one position.

        Args:
            cache: of `init_cache`; updated in place.
            code: `(B,)` int64 codes at `position - 1`; None at position 0.
            position: each position once, in raster order.
        """
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        generator: torch.Generator,
        sampler: Sampler = Sampler(),  # noqa: B008 (frozen)
        upper: Codes = (),
    ) -> Tensor:
        """Ancestral sampling in raster order: `(B, *grid)` int64 codes on the labels' device."""
        shape = (len(labels), self.space.positions)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(labels.device)
        cache, code = self.init_cache(labels, upper), None
        codes = []
        for position in range(self.space.positions):
            code = draw(self.step(cache, code, position), uniforms[:, position], sampler)
            codes.append(code)
        return torch.stack(codes, dim=1).unflatten(1, self.space.grid)

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        return {"config": asdict(self.config), "space": asdict(self.space)}
