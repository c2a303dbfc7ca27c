"""VectorQuantize: nearest codes with the options of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vqkernels import _checks, ops
from vqkernels.compat._peer import Peer, refuse, unserved
from vqkernels.compat.vector_quantize_pytorch import _heads
from vqkernels.compat.vector_quantize_pytorch._codebook import Codebook
from vqkernels.compat.vector_quantize_pytorch._layout import Layout, only_valid, valid_positions
from vqkernels.compat.vector_quantize_pytorch._learning import Learnt, expire, learn
from vqkernels.compat.vector_quantize_pytorch._losses import orthogonality
from vqkernels.compat.vector_quantize_pytorch._step import (
    Gradients,
    Step,
    nearest_step,
    top_step,
)
from vqkernels.compat.vector_quantize_pytorch._vq_options import (
    arguments_of,
    check_consistent,
    check_served,
)
from vqkernels.distributed import Statistics


class LossBreakdown(NamedTuple):
    """The unweighted terms of the loss; those that are off, or not served, are 0."""

    commitment: Tensor
    codebook_diversity: Tensor
    orthogonal_reg: Tensor
    inplace_optimize: Tensor


class VectorQuantize(Peer):
    """``vector_quantize_pytorch.VectorQuantize``: same calls, returns and state_dict.

    With q the code nearest to the projected vector z (van den Oord et al. 2017, arXiv
    1711.00937)::

        quantized = project_out(z + sg(q - z)),  by default through the rotation that takes z to q
        loss = commitment_weight * mse(z, sg(q)) + orthogonal_reg_weight * orthogonality

    in training; in evaluation the loss is 0. The codebook is a moving average that has moved when
    ``forward`` returns, or with ``learnable_codebook`` a Parameter, and then q is not detached in
    the loss. Indices are the exact nearest codes, equal ones the lowest; nothing is allocated with
    both N and K as factors. Arguments are the library's; NotImplementedError names what is not
    served.

    What theirs cannot combine works: a mask with projections, heads, images; a batch that is
    masked throughout has loss 0; ``lens`` with channels first; indices of -1 are zeros in
    ``get_codes_from_indices`` and count nowhere in ``update_indices``. With a mask and
    ``use_cosine_sim`` the loss is that of the valid rows alone, where theirs compares the codes
    with rows that are not normalised.

    Dead codes are those of ``vqkernels.Revive(threshold=threshold_ema_dead_code, age=None)``. What
    is drawn (k-means seeds, revival, sampled codes) is drawn by a hash, not by torch's generator.
    """

    replaces = ("vector_quantize_pytorch.vector_quantize_pytorch.VectorQuantize",)
    codebook_key: ClassVar[str] = "_codebook.embed"
    settings: ClassVar[tuple[str, ...]] = (
        "commitment_weight",
        "orthogonal_reg_weight",
        "freeze_codebook",
        "rotation_trick",
        "sync_update_v",
        "route_gradients_to_input",
        "return_zeros_for_masked_padding",
    )

    _codebook: Codebook

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        heads: int = 1,
        separate_codebook_per_head: bool = False,
        decay: float = 0.8,
        eps: float = 1e-5,
        freeze_codebook: bool = False,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        sync_kmeans: bool = True,
        use_cosine_sim: bool = False,
        layernorm_after_project_in: bool = False,
        threshold_ema_dead_code: float = 0,
        channel_last: bool = True,
        accept_image_fmap: bool = False,
        accept_3d_fmap: bool = False,
        commitment_weight: float = 1.0,
        commitment_use_cross_entropy_loss: bool = False,
        orthogonal_reg_weight: float = 0.0,
        orthogonal_reg_active_codes_only: bool = False,
        orthogonal_reg_max_codes: int | None = None,
        codebook_diversity_loss_weight: float = 0.0,
        codebook_diversity_temperature: float = 100.0,
        stochastic_sample_codes: bool = False,
        sample_codebook_temp: float = 1.0,
        straight_through: bool = False,
        rotation_trick: bool | None = None,
        directional_reparam: bool = False,
        directional_reparam_variance: float = 5e-3,
        sync_codebook: bool | None = None,
        sync_affine_param: bool = False,
        ema_update: bool | None = None,
        vq_bridge: nn.Module | None = None,
        manual_ema_update: bool = False,
        learnable_codebook: bool | None = None,
        in_place_codebook_optimizer: Callable[..., Any] | None = None,
        manual_in_place_optimizer_update: bool = False,
        affine_param: bool = False,
        affine_param_batch_decay: float = 0.99,
        affine_param_codebook_decay: float = 0.9,
        sync_update_v: float = 0.0,
        return_zeros_for_masked_padding: bool = True,
        route_gradients_to_input: bool = True,
    ) -> None:
        super().__init__()
        ema_update = True if ema_update is None else ema_update
        learnable_codebook = bool(learnable_codebook)
        rotation_trick = dim > 1 if rotation_trick is None else rotation_trick
        options = locals()
        check_served(self, options)
        check_consistent(options)

        self.dim = dim
        self.heads = heads
        self.separate_codebook_per_head = separate_codebook_per_head
        codebook_dim = dim if codebook_dim is None else codebook_dim
        width = codebook_dim * heads
        self.has_projections = width != dim
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.has_projections:
            self.project_in = nn.Linear(dim, width)
            if layernorm_after_project_in:
                self.project_in = nn.Sequential(self.project_in, nn.LayerNorm(width))
            self.project_out = nn.Linear(width, dim)
        self.eps = eps
        self.has_commitment_loss = commitment_weight > 0
        self.commitment_weight = commitment_weight
        self.learnable_codebook = learnable_codebook
        self.has_codebook_orthogonal_loss = orthogonal_reg_weight > 0
        self.orthogonal_reg_weight = orthogonal_reg_weight
        self.orthogonal_reg_active_codes_only = orthogonal_reg_active_codes_only
        self.orthogonal_reg_max_codes = orthogonal_reg_max_codes
        self.rotation_trick = rotation_trick
        self.route_gradients_to_input = route_gradients_to_input
        self.sync_update_v = sync_update_v
        self.use_cosine_sim = use_cosine_sim
        self.codebook_size = codebook_size
        self.accept_image_fmap = accept_image_fmap
        self.accept_3d_fmap = accept_3d_fmap
        self.channel_last = channel_last
        self.return_zeros_for_masked_padding = return_zeros_for_masked_padding
        self.freeze_codebook = freeze_codebook
        self._codebook = Codebook(
            codebook_dim,
            codebook_size,
            heads if separate_codebook_per_head else 1,
            kmeans_init=kmeans_init,
            kmeans_iters=kmeans_iters,
            decay=decay,
            eps=eps,
            threshold_ema_dead_code=threshold_ema_dead_code,
            sync=sync_codebook,
            learnable_codebook=learnable_codebook or self.has_codebook_orthogonal_loss,
            stochastic=stochastic_sample_codes,
            sample_codebook_temp=sample_codebook_temp,
            ema_update=ema_update,
            manual_ema_update=manual_ema_update,
            use_cosine_sim=use_cosine_sim,
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return arguments_of(theirs)

    @property
    def ema_update(self) -> bool:
        return self._codebook.ema_update

    @property
    def codebook(self) -> Tensor:
        """(K, D), or (H, K, D) with separate codebooks; can be assigned to."""
        embed = self._codebook.embed
        return embed if self.separate_codebook_per_head else embed[0]

    @codebook.setter
    def codebook(self, codes: Tensor) -> None:
        with torch.no_grad():
            self.codebook.copy_(codes)

    def forward(
        self,
        x: Tensor,
        indices: Tensor | None = None,
        mask: Tensor | None = None,
        lens: Tensor | None = None,
        topk: int | None = None,
        sample_codebook_temp: float | None = None,
        freeze_codebook: bool | None = None,
        return_loss_breakdown: bool = False,
        codebook_transform_fn: Callable[..., Any] | None = None,
        ema_update_weight: Any = None,
        accum_ema_update: bool = False,
        ema_update: bool | None = None,
        *,
        _learnt: list[Learnt] | None = None,
    ) -> tuple[Any, ...]:
        """Quantizes x.

        Args:
            x: (B, N, dim), (B, dim), or with the channels where the constructor's flags say;
                float32, float16, bfloat16 or float64.
            mask: bool, positions of x; False positions get index -1, vectors of zeros (or x
                itself, as constructed), and count nowhere.
            lens: integers (B,), in place of a mask: valid positions at the start of each sequence.
            topk: quantizes to as many codes, nearest first: quantized has one more dimension
                before the last (the last with channels first), indices and loss have it last. The
                codebook learns nothing.
            sample_codebook_temp, freeze_codebook, ema_update: in place of the constructor's.
            return_loss_breakdown: also returns the terms of the loss; with ``topk`` the first is
                (B, N, topk), the positions flattened.
            indices, codebook_transform_fn, ema_update_weight, accum_ema_update: not served.
            _learnt: takes what the codebook has learnt, for a quantizer that is made of this one.

        Returns:
            (quantized, indices int64, loss float32 0-d); indices are shaped like the positions,
            with several heads (*positions, heads).

        Raises:
            NotImplementedError, TypeError, ValueError: before any state has changed.
        """
        self._refuse_arguments(
            indices=indices,
            codebook_transform_fn=codebook_transform_fn,
            ema_update_weight=ema_update_weight,
        )
        unserved(self, accum_ema_update=(accum_ema_update, False))
        rows = self._layout.rows(x, self.dim)
        mask = valid_positions(mask, lens, rows)
        if topk is not None:
            _checks.integer_at_least("topk", topk, 1)
            if self.heads > 1:
                raise ValueError(f"topk must be None with heads={self.heads}, got {topk}")
        frozen = self.freeze_codebook if freeze_codebook is None else freeze_codebook
        ema_update = self.ema_update if ema_update is None else ema_update

        # As theirs, what x needs decides, not what its projection does.
        routed = self.training and x.requires_grad and self.route_gradients_to_input
        estimator = "rotation" if self.rotation_trick else "straight_through"
        moved_by_error = self.learnable_codebook and not frozen and self.has_commitment_loss
        if not self.training:  # where only the errors of several codes are returned, as they are
            moved_by_error = topk is not None
        gradients = Gradients(estimator if routed else None, moved_by_error)
        tables, valid = self._tables(rows, mask)
        book = self._codebook
        book.start(tables, valid)
        if topk is not None:
            k = min(int(topk), self.codebook_size)
            step = top_step(book, tables[0], valid, gradients, k=k)
        else:
            step = nearest_step(
                book,
                tables,
                valid,
                gradients,
                learns=self.training and not frozen,
                ema_update=ema_update,
                temperature=sample_codebook_temp,
            )
        if step.learnt is not None:
            # Theirs takes the orthogonality of codes that have moved.
            moves_first = self.has_codebook_orthogonal_loss and not book.manual_ema_update
            if _learnt is None or moves_first:
                learn([step.learnt])
            else:
                _learnt.append(step.learnt)

        quantized = self._output(_heads.joined(step.quantized, self.heads), rows, mask)
        loss, breakdown = self._loss(step)
        indices = _heads.joined_indices(step.indices)
        returned = (self._layout.back(quantized, x), indices, loss)
        return (*returned, breakdown) if return_loss_breakdown else returned

    def _tables(self, rows: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """What each table of the codebook quantizes, and the mask over the positions of that."""
        if self.has_projections:
            rows = self.project_in(only_valid(rows, mask))
        separate = self.separate_codebook_per_head
        valid = _heads.of_every_head(mask, self.heads, separate)
        return _heads.split(rows, self.heads, separate), valid

    def _output(self, quantized: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
        """``quantized`` projected back, with what masked positions have."""
        if self.training and self.sync_update_v > 0:
            quantized = quantized + self.sync_update_v * (quantized - quantized.detach())
        quantized = self.project_out(quantized)
        if mask is None:
            return quantized
        masked = torch.zeros_like(rows) if self.return_zeros_for_masked_padding else rows
        if quantized.ndim > rows.ndim:
            mask, masked = mask[..., None], masked.unsqueeze(-2)
        return torch.where(mask[..., None], quantized, masked)

    def _loss(self, step: Step) -> tuple[Tensor, LossBreakdown]:
        errors, codes = step.errors, self._codebook.embed
        zero = codes.new_zeros(())
        commitment = orthogonal = loss = zero
        if self.training:
            if self.has_commitment_loss:
                commitment = errors
                loss = loss + errors * self.commitment_weight
            if self.has_codebook_orthogonal_loss:
                counts = step.counts if self.orthogonal_reg_active_codes_only else None
                orthogonal = orthogonality(codes, counts, self.orthogonal_reg_max_codes)
                loss = loss + orthogonal * self.orthogonal_reg_weight
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                loss.requires_grad_()  # its backward works, too, where nothing needs a gradient
        elif errors.ndim:  # of several codes each: theirs always says how far they are
            commitment = errors
            loss = errors * (self.commitment_weight if self.has_commitment_loss else 1.0)
        if commitment.ndim:  # only the loss itself has theirs at the positions of x
            commitment = commitment.unsqueeze(1).flatten(1, -2)
        return loss, LossBreakdown(commitment, zero, orthogonal, zero)

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """The codes, before they are projected back: those of several heads side by side where
        each has its own codebook, (*positions, heads, D) where they share one, as theirs.
        """
        codes = _heads.looked_up(indices, self._codebook.embed, self.heads)
        codes = codes.flatten(-2) if len(self._codebook.embed) > 1 else codes
        return codes.movedim(-1, 1) if self._layout.channels_first else codes

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What ``forward`` has returned as quantized, until the codebook moves."""
        codes = _heads.looked_up(indices, self._codebook.embed, self.heads)
        output: Tensor = self.project_out(codes.flatten(-2) if self.heads > 1 else codes)
        return output.movedim(-1, 1) if self._layout.channels_first else output

    @torch.no_grad()
    def update_indices(self, x: Tensor, indices: Tensor, mask: Tensor | None = None) -> None:
        """Lets the codebook learn x with the codes that were chosen elsewhere.

        Args:
            x, mask: as of ``forward``.
            indices: as ``forward`` returns them; -1 counts nowhere.
        """
        rows = self._layout.rows(x, self.dim)
        mask = valid_positions(mask, None, rows)
        positions = tuple(rows.shape[:-1])
        _checks.integers("indices", indices)
        _checks.shaped(
            "indices", indices, positions if self.heads == 1 else (*positions, self.heads)
        )
        book = self._codebook
        if not (book.ema_update or book.has_dead_code_replacement):
            return
        tables, valid = self._tables(rows, mask)
        parts = list(indices.unbind(-1)) if len(tables) > 1 else [indices]
        statistics = []
        for number, (table, part) in enumerate(zip(tables, parts, strict=True)):
            counts, sums = ops.code_sums(
                table, part, self.codebook_size, valid, book.metric, table.ndim - 1, None
            )
            statistics.append(Statistics(counts, sums, *book.candidates(number, table, valid)))
        learn([Learnt(book, statistics, book.ema_update)])

    update_ema_indices = update_indices

    @torch.no_grad()
    def expire_codes_(self, x: Tensor) -> None:
        """Replaces dead codes by rows of x, in training: x is projected, with channels last."""
        book = self._codebook
        rows = Layout(True, False, False).rows(x, self.heads * book.dim)
        if self.training and book.has_dead_code_replacement:
            expire(book, _heads.split(rows, self.heads, self.separate_codebook_per_head))

    @property
    def _layout(self) -> Layout:
        return Layout(self.channel_last, self.accept_image_fmap, self.accept_3d_fmap)

    def _refuse_arguments(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                refuse(self, f"forward({name}=...)")
