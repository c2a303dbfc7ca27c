"""What every prior is: p(z | label, codes above) over one grid of codes.

Codes are `(B, *grid)` integers in `0 .. K - 1`; positions are numbered in raster order, the last
axis fastest. In a hierarchy each level has a prior of its own, which is told the label and the
codes of all levels above it, and samples are drawn ancestrally, top level first.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.tokenizer import Codes, Size
from vqtrain.pretrained import Pretrained
from vqtrain.priors.sampling import Sampler, draw, guided

Known = tuple[Tensor, Tensor]
P = TypeVar("P", bound="Prior")


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


class Prior(Pretrained):
    """Base of all priors.

    A subclass names `config_type`, a dataclass with `label_dropout`, calls this constructor, and
    defines `forward`, `init_cache` and `step`; the masked prior replaces `loss`, `nll` and
    `generate`.

    Args:
        config: of the class's `config_type`.
        space: the grid it models, and what it is told.
    """

    exact_likelihood: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False  # whether known codes are told to positions before them
    config_type: ClassVar[type]

    def __init__(self, config: Any, space: CodeSpace) -> None:
        super().__init__()
        self.config, self.space = config, space

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

    def validation_loss(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """`(B,)` nats per code: what the best step of training is chosen by."""
        return self.nll(codes, labels, upper) / self.space.positions

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

    def logits_at(
        self, codes: Tensor, labels: Tensor, upper: Codes = (), *, position: int
    ) -> Tensor:
        """Logits `(B, K)` of one position by the plain forward, what `step` must agree with.

        A subclass leaves out what cannot matter, such as rows after the position.
        """
        return self(codes, labels, upper).flatten(2)[:, :, position]

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        generator: torch.Generator,
        sampler: Sampler = Sampler(),  # noqa: B008 (frozen)
        upper: Codes = (),
        known: Known | None = None,
        cached: bool = True,
    ) -> Tensor:
        """Ancestral sampling in raster order.

        Every code is drawn by inverse CDF from a uniform number that belongs to its item and
        position, all drawn beforehand, so cached and naive sampling consume the same numbers. The
        loop never waits for the device and works in buffers of fixed size and place.

        Args:
            labels: `(B,)` int64, on the model's device.
            generator: CPU generator.
            sampler: how codes are drawn from logits.
            upper: codes of the levels above, top first.
            known: `(codes, mask)`, `(B, *grid)` int64 and `(*grid)` bool: where the mask is True
                the codes are kept, and only what comes after them in raster order is told.
            cached: False recomputes the forward at every position: slow, and the reference.

        Returns:
            `(B, *grid)` int64 codes on the labels' device.

        Raises:
            RuntimeError: if the model is in training mode, whose dropout would be sampled.
            ValueError: if guidance is asked of a prior without label dropout, or a shape is wrong.
        """
        self._check_generate(labels, sampler, upper, known)
        count, device = len(labels), labels.device
        shape = (count, self.space.positions)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(device).unbind(1)
        kept, is_kept = self._kept(known)
        copies = 1
        if sampler.guidance != 1:  # the same grids twice: told the label, and told nothing
            copies = 2
            labels = torch.cat([labels, torch.full_like(labels, self.space.null_label)])
            upper = tuple(torch.cat([codes, codes]) for codes in upper)
        codes = torch.zeros((copies, *shape), dtype=torch.int64, device=device)
        grids = codes.view(-1, *self.space.grid)
        columns = codes.flatten(0, 1).unbind(1)
        cache = self.init_cache(labels, upper) if cached else None
        for position in range(self.space.positions):
            if cached:
                code = columns[position - 1] if position else None
                logits = self.step(cache, code, position)
            else:
                logits = self.logits_at(grids, labels, upper, position=position)
            if is_kept[position]:
                codes[..., position] = kept[position]
                continue
            if copies == 2:
                conditional, null = logits.chunk(2)
                logits = guided(conditional, null, sampler.guidance)
            codes[..., position] = draw(logits, uniforms[position], sampler)
        return grids[:count]

    def _check_generate(
        self, labels: Tensor, sampler: Sampler, upper: Codes, known: Known | None
    ) -> None:
        """Refuses what `generate` cannot do, before any number is drawn."""
        if self.training:
            raise RuntimeError("generate must be called in eval mode: call eval() first")
        if sampler.guidance != 1 and not self.config.label_dropout:
            raise ValueError(
                "guidance must be 1 for a prior trained without label dropout, "
                f"got {sampler.guidance}"
            )
        if known is not None:
            codes, mask = known
            if tuple(mask.shape) != self.space.grid or len(codes) != len(labels):
                raise ValueError(
                    f"known must have {len(labels)} grids and a mask of shape {self.space.grid}, "
                    f"got shapes {tuple(codes.shape)} and {tuple(mask.shape)}"
                )
            self.space.check(codes, upper)

    def _kept(self, known: Known | None) -> tuple[Sequence[Tensor], list[bool]]:
        """Known codes `(B,)` by position, and whether a position is known."""
        if known is None:
            return (), [False] * self.space.positions
        codes, mask = known
        return codes.flatten(1).unbind(1), mask.flatten().tolist()

    @classmethod
    def from_description(cls: type[P], description: dict[str, Any]) -> P:
        """Inverse of `description`, with fresh weights."""
        return cls(cls.config_type(**description["config"]), CodeSpace(**description["space"]))

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        return {"config": asdict(self.config), "space": asdict(self.space)}
