"""Sound as levels: mu-law companding, as in telephony (ITU-T G.711) and WaveNet (1609.03499).

f(s) = sign(s) ln(1 + mu |s|) / ln(1 + mu),    mu = levels - 1
"""

import math

import torch
from torch import Tensor


def mu_law(wave: Tensor, levels: int = 256) -> Tensor:
    """Samples in [-1, 1] (others are clipped) to uint8 levels `0 .. levels - 1`."""
    mu = levels - 1
    wave = wave.clamp(-1, 1)
    companded = wave.sign() * (wave.abs() * mu).log1p() / math.log1p(mu)
    return ((companded + 1) / 2 * mu).round().to(torch.uint8)


def from_mu_law(x: Tensor, levels: int = 256) -> Tensor:
    """Levels, integer or floating, to float32 samples in [-1, 1]."""
    mu = levels - 1
    companded = x.float() / mu * 2 - 1
    return companded.sign() * (companded.abs() * math.log1p(mu)).expm1() / mu
