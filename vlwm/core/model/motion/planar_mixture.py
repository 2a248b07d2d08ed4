"""Where a vehicle may be: a mixture of normal distributions.

A vehicle goes on as it does, or decides anew. The first is known to centimetres, the second hardly,
and one normal distribution for both has its peak where the vehicle is in neither case (Bishop,
Mixture Density Networks, Aston University NCRG/94/004, 1994).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vlwm.core.model.torch_frames import wrap_angle


@dataclass(frozen=True)
class PlanarMixture:
    """Mixtures over x, y (m) and yaw (rad), K parts each; ... are any axes.

    In a part yaw is normal; y is normal about a multiple of yaw's error, x about multiples of that
    and of what yaw leaves of y: who turns more than foreseen is also further to the side.

    Attributes:
        log_weight: (..., K), of weights that add up to 1.
        mean: (..., K, 3).
        log_sigma: (..., K, 3), of what is left when the others are known.
        shear: (..., K, 3), those multiples, in sigmas: y's of yaw, x's of yaw, x's of y.
    """

    log_weight: Tensor
    mean: Tensor
    log_sigma: Tensor
    shear: Tensor

    def at(self, *index: Tensor) -> PlanarMixture:
        """The mixtures at some places of the first axes."""
        parts = (self.log_weight, self.mean, self.log_sigma, self.shear)
        return PlanarMixture(*(part[index] for part in parts))

    def widened(self, factor: Tensor) -> PlanarMixture:
        """Every sigma times `factor`, (...)."""
        wider = self.log_sigma + torch.log(factor)[..., None, None]
        return PlanarMixture(self.log_weight, self.mean, wider, self.shear)

    def together(self) -> PlanarMixture:
        """Mixtures (B, M, H), K parts each, as those of (B, H), all M of a place equally likely."""
        members = self.log_weight.shape[1]

        def joined(values: Tensor) -> Tensor:
            return values.transpose(1, 2).flatten(2, 3)

        shares = joined(self.log_weight) - math.log(members)
        return PlanarMixture(shares, *(joined(v) for v in (self.mean, self.log_sigma, self.shear)))

    def apart(self, members: int) -> PlanarMixture:
        """What `together` joined."""

        def taken(values: Tensor) -> Tensor:
            return values.unflatten(2, (members, -1)).transpose(1, 2)

        shares = taken(self.log_weight) + math.log(members)
        return PlanarMixture(shares, *(taken(v) for v in (self.mean, self.log_sigma, self.shear)))

    def log_likelihood(self, truth: Tensor) -> Tensor:
        """Of true x, y, yaw (..., 3), without the constant of the normal distribution: (...)."""
        error = truth[..., None, :] - self.mean
        error = torch.cat([error[..., :2], wrap_angle(error[..., 2:])], dim=-1)
        x, y, yaw = (error * torch.exp(-self.log_sigma)).unbind(-1)
        side, ahead, along = self.shear.unbind(-1)
        y = y - side * yaw
        x = x - ahead * yaw - along * y
        each = -0.5 * (x**2 + y**2 + yaw**2) - self.log_sigma.sum(-1)
        return torch.logsumexp(self.log_weight + each, dim=-1)

    def expected(self) -> Tensor:
        """The mean (..., 3)."""
        return (self.log_weight.exp()[..., None] * self.mean).sum(-2)

    def log_spread(self) -> Tensor:
        """The logarithm (..., 3) of the standard deviation about the mean."""
        weight, shear = self.log_weight.exp()[..., None], self.shear.square()
        side, ahead, along = shear.unbind(-1)
        more = torch.stack([along + ahead, side, torch.zeros_like(side)], dim=-1)
        own = (1 + more) * torch.exp(2 * self.log_sigma)
        variance = own + (self.mean - self.expected()[..., None, :]).square()
        return 0.5 * torch.log((weight * variance).sum(-2))

    def draws(self, even: Tensor) -> Tensor:
        """Even draws (..., N, 3): each part has its share of the standard normal ones (N, 3)."""
        places = (torch.arange(len(even), device=even.device) + 0.5) / len(even)
        ends = self.log_weight.exp().cumsum(-1)
        part = (places[:, None] > ends[..., None, :]).sum(-1).clamp(max=ends.shape[-1] - 1)
        part = part[..., None].expand(*part.shape, 3)
        mean, log_sigma, shear = (
            values.gather(-2, part) for values in (self.mean, self.log_sigma, self.shear)
        )
        side, ahead, along = shear.unbind(-1)
        x, y, yaw = even.to(mean).unbind(-1)
        x = x + ahead * yaw + along * y
        y = y + side * yaw
        return mean + torch.exp(log_sigma) * torch.stack([x, y, yaw.expand_as(y)], dim=-1)


def normal_draws(count: int) -> Tensor:
    """Even draws float64 (count, 3) of a standard normal (Halton), symmetric about 0."""

    def halton(base: int, number: int) -> float:
        value, share = 0.0, 1.0
        while number:
            number, digit = divmod(number, base)
            share /= base
            value += share * digit
        return value

    places = range(1, count // 2 + 1)
    even = torch.tensor([[halton(b, n) for b in (2, 3, 5)] for n in places])
    half = torch.special.ndtri(even.double())
    half /= half.square().mean(dim=0).sqrt()  # so few draws would be too close together
    return torch.stack([half, -half], dim=1).flatten(0, 1)  # so is any even piece of them
