"""The gradient of the rotation estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._numerics import row_norm


def rotate_back(grad: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """(|q|/|x|) R^T grad, where R turns x/|x| into q/|q| (Fifty et al. 2024, equation 4).

    R = I - 2 r r^T + 2 qh xh^T with r = (xh + qh)/|xh + qh|. Straight-through where x or q is 0.
    """
    x_norm, q_norm = row_norm(x), row_norm(q)
    xh, qh = x / _nonzero(x_norm), q / _nonzero(q_norm)
    half = xh + qh
    r = half / _nonzero(row_norm(half))
    turned = grad - 2.0 * r * (r * grad).sum(1, True) + 2.0 * xh * (qh * grad).sum(1, True)
    defined = (x_norm != 0) & (q_norm != 0)
    return torch.where(defined, q_norm / _nonzero(x_norm) * turned, grad)


def _nonzero(norm: Tensor) -> Tensor:
    return torch.where(norm == 0, 1.0, norm)
