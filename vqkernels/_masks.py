"""Masks for batches of sequences of unequal length. Part of the functional layer."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import _checks


def mask_from_lengths(lengths: Tensor, size: int) -> Tensor:
    """The mask of a padded batch: ``mask[b, t] = t < lengths[b]``.

    For x of shape (B, D, T), or (B, T, D) with ``channel_dim=-1``, ``size`` is T. Values are not
    read by the host: a length above ``size`` counts as ``size``, one below 0 as 0.

    Args:
        lengths: integer (B,), valid positions at the start of each sequence.
        size: positions of a padded sequence, at least 0.

    Returns:
        bool (B, size).

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """
    _checks.integers("lengths", lengths)
    if lengths.ndim != 1:
        raise ValueError(f"lengths must have shape (B,), got {tuple(lengths.shape)}")
    _checks.integer_at_least("size", size, 0)
    return torch.arange(size, device=lengths.device) < lengths[:, None]
