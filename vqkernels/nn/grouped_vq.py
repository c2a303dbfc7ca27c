"""GroupedVQ: the channels are cut into parts, each with a quantizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels._layout import row_shape
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._quantizer import (
    Learnt,
    Quantizer,
    check_equal,
    make_each,
    part_count,
    refuse_many,
)
from vqkernels.outputs import CodeUsage, VQOutput


class GroupedVQ(Quantizer):
    """Product quantization (Jegou et al. 2011, doi 10.1109/TPAMI.2010.57): G codes per vector.

    The channels are cut into G equal parts, neighbours together, and each part is quantized on
    its own: by a quantizer per group, or by one for all of them (``shared``), to which the parts
    are G times as many vectors. Indices, vectors and gradients are those of the quantizers on the
    parts. ``loss`` is the mean over the groups, as the mean over all channels would be.

    The quantizers may be of any kind: ``GroupedVQ(lambda: ResidualVQ(make, levels), groups)`` is
    grouped residual quantization (Yang et al. 2023, arXiv 2305.02765), and
    ``Projected(GroupedVQ(make, heads), in_dim)`` a multi-head quantizer.

    A NaN or an infinity concerns its own part only. Updates, masks and checkpointing follow the
    rules of the quantizers.

    Args:
        make: called once per group (once in all when shared); returns a new quantizer. Or a
            sequence of them, one per group, where ``groups`` may be left out. They must agree in
            their width, ``channel_dim`` and codes per vector, and may differ in everything else,
            as in the size of the codebook. ``TopK`` is refused; with ``Sample`` give each its own
            seed, or all groups draw with the same uniform numbers.
        groups: G, at least 1.
        shared: all groups use one quantizer.

    Attributes:
        quantizers: ModuleList of G quantizers, or of one when shared.
        groups: G.
        embedding_dim: D, the channels of all groups together.

    Raises:
        TypeError, ValueError: an argument, or what ``make`` returns, breaks its contract.
    """

    def __init__(
        self,
        make: Callable[[], Quantizer] | Sequence[Quantizer],
        groups: int | None = None,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        _checks.boolean("shared", shared)
        groups = part_count("groups", groups, make, shared)
        same = ("embedding_dim", "channel_dim")
        made = make_each(make, 1 if shared else groups, Quantizer, same)
        first = made[0]
        for module in made:
            refuse_many("make must return quantizers", module, self)
            check_equal("codes per vector", first._code_shape, module._code_shape)
            check_equal("codebooks per vector", first._usage_shape, module._usage_shape)
        self.quantizers = nn.ModuleList(made)
        self.groups = groups
        self.shared = shared
        self.embedding_dim = self.groups * first.embedding_dim
        self.channel_dim = first.channel_dim
        self._code_shape = (self.groups, *first._code_shape)
        self._usage_shape = first._usage_shape if shared else (groups, *first._usage_shape)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes the parts of x; in training mode also keeps their statistics.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage): indices (*positions, G), or
            (*positions, G, L) of residual quantizers. ``usage`` has the groups in front,
            ``counts`` (G, K) and ``mse`` (G,), with zeros up to the largest K where the groups
            differ in it; when shared, it is that of the one quantizer, with G times the rows.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        mask = self._fold_mask(mask, channel)
        steps = [module._step(part, mask) for module, part in self._parts(x, channel)]
        outs = [out for out, _ in steps]
        quantized = self._join([out.quantized for out in outs], channel)
        indices = self._join_indices([out.indices for out in outs], channel, x.ndim - 1)
        learnt = [pair for _, pairs in steps for pair in pairs]
        if self.shared:
            return VQOutput(quantized, indices, outs[0].loss, outs[0].usage), learnt
        loss = torch.stack([out.loss for out in outs]).mean()
        usage = _stack_usage([out.usage for out in outs])
        return VQOutput(quantized, indices, loss, usage), learnt

    def _codebooks(self) -> list[LearnedCodebook]:
        return [codebook for module in self._members() for codebook in module._codebooks()]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the codes: int64, (*positions, G) or (*positions, G, L). Changes no state."""
        channel = self._check(x, None)
        found = [module.encode(part) for module, part in self._parts(x, channel)]
        return self._join_indices(found, channel, x.ndim - 1)

    def decode(self, indices: Tensor) -> Tensor:
        """The codes of the groups, one after the other along ``channel_dim``.

        Until a codebook moves this equals ``forward(x).quantized`` at valid positions, up to the
        rounding to x's dtype. Differentiable in ``Gradient`` codebooks.
        """
        _checks.integers("indices", indices)
        positions = indices.ndim - len(self._code_shape)
        if positions < 1 or indices.shape[positions] != self.groups:
            levels = ", levels" * (len(self._code_shape) - 1)
            raise ValueError(
                f"indices must have shape (*positions, {self.groups}{levels}), "
                f"got {tuple(indices.shape)}"
            )
        channel = _checks.channel_dim(self.channel_dim, positions + 1)
        parts = (
            (indices.movedim(positions, channel),) if self.shared else indices.unbind(positions)
        )
        modules = self._members()
        return self._join(
            [module.decode(part) for module, part in zip(modules, parts, strict=True)], channel
        )

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation of the groups that still lack it, on x, now."""
        channel = self._check(x, mask)
        mask = self._fold_mask(mask, channel)
        for module, part in self._parts(x, channel):
            module.init_codebook(part, mask)

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.mask(mask, x, row_shape(x, channel))
        mask = self._fold_mask(mask, channel)
        for module, part in self._parts(x, channel):  # all of them, before one moves
            module._check(part, mask)
        return channel

    def _members(self) -> list[Quantizer]:
        return [module for module in self.quantizers if isinstance(module, Quantizer)]

    def _parts(self, x: Tensor, channel: int) -> list[tuple[Quantizer, Tensor]]:
        """The quantizers and the views of x that they are given.

        When shared the view has one more dimension, the groups: before the channels if those are
        counted from the end, else after them.
        """
        modules = self._members()
        width = self.embedding_dim // self.groups
        if not self.shared:
            return list(zip(modules, x.split(width, dim=channel), strict=True))
        folded = x.unflatten(channel, (self.groups, width))
        if self.channel_dim >= 0:
            folded = folded.transpose(channel, channel + 1)
        return [(modules[0], folded)]

    def _fold_mask(self, mask: Tensor | None, channel: int) -> Tensor | None:
        if mask is None or not self.shared:
            return mask
        sizes = [-1] * (mask.ndim + 1)
        sizes[channel] = self.groups
        return mask.unsqueeze(channel).expand(sizes)

    def _join(self, vectors: list[Tensor], channel: int) -> Tensor:
        """What the quantizers return for ``_parts``, as one tensor shaped like x."""
        if not self.shared:
            return torch.cat(vectors, dim=channel)
        folded = vectors[0]
        if self.channel_dim >= 0:
            folded = folded.transpose(channel, channel + 1)
        return folded.flatten(channel, channel + 1)

    def _join_indices(self, indices: list[Tensor], channel: int, positions: int) -> Tensor:
        if self.shared:
            return indices[0].movedim(channel, positions)
        return torch.stack(indices, dim=positions)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, shared={self.shared}"


def _stack_usage(usages: list[CodeUsage]) -> CodeUsage:
    """Side by side. Counts that one of them lacks are nobody's: zeros would read as no rows."""
    sizes = [usage.counts.shape[-1] for usage in usages]
    width = max(sizes) if all(sizes) else 0
    counts = [
        nn.functional.pad(usage.counts, (0, width - size))
        for usage, size in zip(usages, sizes, strict=True)
    ]
    return CodeUsage(torch.stack(counts), torch.stack([usage.mse for usage in usages]))
