"""ResidualVQ: VectorQuantize layers that each take what the ones before have left."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import _checks, functional
from vqkernels.compat._peer import refuse, unserved
from vqkernels.compat.vector_quantize_pytorch._fused_levels import quantize_levels, serves_fused
from vqkernels.compat.vector_quantize_pytorch._layout import Layout, only_valid, valid_positions
from vqkernels.compat.vector_quantize_pytorch._learning import Learnt, learn, learn_shared
from vqkernels.compat.vector_quantize_pytorch._level_dropout import LevelDropout
from vqkernels.compat.vector_quantize_pytorch.vector_quantize import VectorQuantize


class ResidualVQ(LevelDropout):
    """``vector_quantize_pytorch.ResidualVQ``: same calls, returns and state_dict.

    Residual vector quantization (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1), with
    r_0 = project_in(x)::

        q_l, i_l, loss_l = layer l on r_l;    r_{l+1} = r_l - sg(q_l)
        quantized = project_out(q_0 + ... + q_{L-1})

    Every q_l has the gradient of its own layer to r_l. What the layers learn is added up over the
    ranks by one collective per forward. Arguments, besides those below, are those of
    ``VectorQuantize``; NotImplementedError names what is not served.

    What theirs cannot combine works: images and volumes, channels first, projections with both; a
    mask with all of these. ``get_output_from_indices`` returns the layout of x.

    Args:
        dim, num_quantizers, codebook_size, codebook_dim, shared_codebook, accept_image_fmap: as
            theirs; ``codebook_size`` may be a tuple, one size per level.
        quantize_dropout: a training forward keeps a random number of levels, from the first; the
            others have index -1 and loss 0. One number for the whole batch, and for all ranks.
        quantize_dropout_cutoff_index, quantize_dropout_multiple_of: at least so many levels and
            one are kept, and their number is rounded up to a multiple.
        return_zeros_for_masked_padding: False returns x where the mask is False.
        diveq, implicit_neural_codebook, beam_size, eval_beam_size, beam_score_quantizer_weights,
            mlp_kwargs, quant_grad_frac: not served but at their defaults.
    """

    replaces = ("vector_quantize_pytorch.residual_vq.ResidualVQ",)
    codebook_key: ClassVar[str] = "_codebook.embed"
    settings: ClassVar[tuple[str, ...]] = (
        "quantize_dropout",
        "quantize_dropout_cutoff_index",
        "quantize_dropout_multiple_of",
        "return_zeros_for_masked_padding",
    )

    def __init__(
        self,
        *,
        dim: int,
        num_quantizers: int | None = None,
        codebook_size: int | tuple[int, ...],
        codebook_dim: int | None = None,
        shared_codebook: bool = False,
        diveq: bool = False,
        heads: int = 1,
        quantize_dropout: bool = False,
        quantize_dropout_cutoff_index: int = 0,
        quantize_dropout_multiple_of: int = 1,
        accept_image_fmap: bool = False,
        implicit_neural_codebook: bool = False,
        mlp_kwargs: dict[str, Any] | None = None,
        beam_size: int | None = None,
        eval_beam_size: int | None = None,
        beam_score_quantizer_weights: list[float] | None = None,
        quant_grad_frac: float = 0.0,
        return_zeros_for_masked_padding: bool = True,
        **vq_kwargs: Any,
    ) -> None:
        super().__init__()
        unserved(
            self,
            diveq=(diveq, False),
            implicit_neural_codebook=(implicit_neural_codebook, False),
            quant_grad_frac=(quant_grad_frac, 0.0),
        )
        for name, size in (("beam_size", beam_size), ("eval_beam_size", eval_beam_size)):
            if (size or 1) > 1:
                refuse(self, f"{name}={size!r}")
        if heads != 1:
            raise ValueError(f"heads must be 1, got {heads!r}")
        sizes = _sizes(codebook_size, num_quantizers)
        if shared_codebook and len(set(sizes)) > 1:
            raise ValueError(f"codebook_size must be one with a shared codebook, got {sizes}")
        self._set_dropout(
            len(sizes),
            quantize_dropout,
            quantize_dropout_cutoff_index,
            quantize_dropout_multiple_of,
        )
        self.dim = dim
        self.codebook_dim = dim if codebook_dim is None else codebook_dim
        self.has_projections = self.codebook_dim != dim
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.has_projections:
            self.project_in = nn.Linear(dim, self.codebook_dim)
            self.project_out = nn.Linear(self.codebook_dim, dim)
        self.accept_image_fmap = accept_image_fmap
        self.return_zeros_for_masked_padding = return_zeros_for_masked_padding
        self.codebook_sizes = sizes
        self.uniform_codebook_size = len(set(sizes)) == 1
        self.shared_codebook = shared_codebook
        if shared_codebook:
            vq_kwargs["manual_ema_update"] = True
        self.layers = nn.ModuleList(
            VectorQuantize(
                dim=self.codebook_dim,
                codebook_size=size,
                codebook_dim=self.codebook_dim,
                accept_image_fmap=accept_image_fmap,
                return_zeros_for_masked_padding=return_zeros_for_masked_padding,
                **vq_kwargs,
            )
            for size in sizes
        )
        if shared_codebook:
            for layer in self._levels()[1:]:
                layer._codebook = self._levels()[0]._codebook

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = theirs.layers[0]
        own = (
            *("codebook_dim", "shared_codebook", "diveq", "accept_image_fmap"),
            *("implicit_neural_codebook", "beam_size", "eval_beam_size"),
            *("quant_grad_frac", "return_zeros_for_masked_padding"),
        )
        sizes = theirs.codebook_sizes
        return {
            **VectorQuantize.arguments_of(first),
            **{name: getattr(theirs, name) for name in own},
            **cls._dropout_of(theirs),
            "dim": theirs.project_in.in_features if theirs.has_projections else first.dim,
            "codebook_size": sizes[0] if theirs.uniform_codebook_size else tuple(sizes),
            "kmeans_init": not all(bool(layer._codebook.initted) for layer in theirs.layers),
        }

    @property
    def codebook_size(self) -> int:
        return self._levels()[0].codebook_size

    @property
    def codebooks(self) -> Tensor | tuple[Tensor, ...]:
        """(Q, K, D), or a tuple of (K_q, D) where the sizes differ."""
        books = tuple(layer._codebook.embed[0] for layer in self._levels())
        return torch.stack(books) if self.uniform_codebook_size else books

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        indices: Tensor | list[Tensor] | None = None,
        return_all_codes: bool = False,
        sample_codebook_temp: float | None = None,
        freeze_codebook: bool = False,
        beam_size: int | None = None,
        rand_quantize_dropout_fixed_seed: int | None = None,
        *,
        _learnt: list[Learnt] | None = None,
    ) -> tuple[Tensor, ...]:
        """Quantizes x by all levels.

        Args:
            x, mask, sample_codebook_temp, freeze_codebook, _learnt: as of ``VectorQuantize``.
            return_all_codes: also returns what ``get_codes_from_indices`` makes of the indices,
                by the codebooks as they are when this returns.
            rand_quantize_dropout_fixed_seed: decides how many levels are kept, as it does there.
            indices, beam_size: not served, but a beam of 1.

        Returns:
            (quantized, indices int64 (*positions, Q), losses float32 (Q,)[, all_codes]).
        """
        if indices is not None:
            refuse(self, "forward(indices=...)")
        if (beam_size or 1) > 1:
            refuse(self, f"forward(beam_size={beam_size!r})")
        layout = self._layout
        rows = layout.rows(x, self.dim)
        mask = valid_positions(mask, None, rows)
        kept = self._kept(x.device, rand_quantize_dropout_fixed_seed)
        left = (
            layout.back(self.project_in(only_valid(rows, mask)), x) if self.has_projections else x
        )
        if serves_fused(self._levels(), left):
            total, found = quantize_levels(self._levels(), layout.last(left), mask)
            losses = left.new_zeros(len(self.layers), dtype=torch.float32)
            total = layout.back(total, x)
        else:
            total, found, losses = self._level_by_level(
                left,
                mask,
                kept,
                _learnt,
                sample_codebook_temp=sample_codebook_temp,
                freeze_codebook=freeze_codebook,
            )
        quantized = self.project_out(layout.last(total))
        if mask is not None:
            masked = rows if not self.return_zeros_for_masked_padding else torch.zeros_like(rows)
            quantized = torch.where(mask[..., None], quantized, masked)
        returned = (layout.back(quantized, x), found, losses)
        return (*returned, self.get_codes_from_indices(found)) if return_all_codes else returned

    def _level_by_level(
        self,
        left: Tensor,
        mask: Tensor | None,
        kept: int,
        learnt: list[Learnt] | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(sum of the codes in the layout of ``left``, indices, losses)."""
        found: list[Learnt] = []
        total, indices, losses = torch.zeros_like(left), [], []
        for layer in self._levels()[:kept]:
            quantized, chosen, loss = layer(left, mask=mask, _learnt=found, **options)
            left = left - quantized.detach()
            total = total + quantized
            indices.append(chosen)
            losses.append(loss)
        for _ in range(kept, self.num_quantizers):
            indices.append(torch.full_like(indices[0], -1))
            losses.append(torch.zeros_like(losses[0]))
        if self.shared_codebook and found:
            learn_shared(found)
        elif learnt is not None:
            learnt += found
        elif found:
            learn(found)
        return total, torch.stack(indices, dim=-1), torch.stack(losses)

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(Q, *positions, D). Index -1 gives zeros; so do levels that ``indices`` lack, which only
        a module with quantize_dropout takes.
        """
        codes = [
            functional.lookup(level, layer._codebook.embed[0], channel_dim=-1)
            for level, layer in zip(self._by_level(indices), self._levels(), strict=True)
        ]
        return torch.stack(codes)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What ``forward`` has returned as quantized, until a codebook moves."""
        output: Tensor = self.project_out(self.get_codes_from_indices(indices).sum(dim=0))
        return output.movedim(-1, 1) if self._layout.channels_first else output

    @property
    def _layout(self) -> Layout:
        return self._levels()[0]._layout

    def _levels(self) -> list[VectorQuantize]:
        return list(self.layers)  # type: ignore[arg-type]


def _sizes(codebook_size: int | tuple[int, ...], num_quantizers: int | None) -> tuple[int, ...]:
    if num_quantizers is not None:
        _checks.integer_at_least("num_quantizers", num_quantizers, 1)
    if isinstance(codebook_size, tuple):
        if not codebook_size or len(codebook_size) != (num_quantizers or len(codebook_size)):
            raise ValueError(
                f"codebook_size must have one size for each of num_quantizers={num_quantizers}, "
                f"got {codebook_size}"
            )
        return codebook_size
    if num_quantizers is None:
        raise ValueError("num_quantizers must be given with one codebook_size, got None")
    return (codebook_size,) * num_quantizers
