"""Compute GELU in float64 by operations that onnxruntime has."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ERFC = (
    -1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3,
    -9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5,
    -1.624290004647e-6, 1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8, 6.529054439e-9,
    5.059343495e-9, -9.91364156e-10, -2.27365122e-10, 9.6467911e-11, 2.394038e-12, -6.886027e-12,
    8.94487e-13, 3.13092e-13, -1.12708e-13, 3.81e-16, 7.106e-15, -1.523e-15, -9.4e-17, 1.21e-16,
    -2.8e-17,
)  # fmt: skip
"""Chebyshev coefficients of `gelu`"""


def gelu(x: Tensor) -> Tensor:
    """Return GELU of x by elementary operations: onnxruntime has no Erf in float64.

    erfc(z) = t exp(−z² + c₀/2 + Σ cₖ Tₖ(2 t − 1)) with t = 2 / (2 + z) for z ≥ 0: Press et al.,
    Numerical Recipes, 3rd edition, 6.2.2; the sum is Clenshaw's.
    """
    z = x.abs() * math.sqrt(0.5)
    t = 2 / (2 + z)
    twice = 4 * t - 2
    d = dd = torch.zeros_like(t)
    for c in reversed(_ERFC[1:]):
        d, dd = twice * d - dd + c, d
    tail = 0.5 * t * torch.exp(-z * z + 0.5 * (_ERFC[0] + twice * d) - dd)  # (…), beyond |x|
    return x * torch.where(x < 0, tail, 1 - tail)
