"""Describe where a vehicle may be, by a mixture of normal distributions.

A vehicle continues its motion or changes it. The first is predictable to centimetres, the second
hardly, and one normal distribution for both peaks where the vehicle is in neither case (Bishop,
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
    """Mixtures over x, y (m) and yaw (rad), K components each; ... are any axes.

    Within a component, yaw is normal, and x and y are linear-Gaussian given the yaw error (a larger
    turn implies a larger lateral offset).

    Attributes:
        log_weight: (..., K), of weights that add up to 1.
        mean: (..., K, 3).
        log_sigma: (..., K, 3), of the residual given the components before it.
        shear: (..., K, 3), slopes in sigmas: of y in yaw, of x in yaw, of x in y.
    """

    log_weight: Tensor
    mean: Tensor
    log_sigma: Tensor
    shear: Tensor

    def at(self, *index: Tensor) -> PlanarMixture:
        """Return the mixtures at some places of the first axes."""
        parts = (self.log_weight, self.mean, self.log_sigma, self.shear)
        return PlanarMixture(*(part[index] for part in parts))

    def widened(self, factor: Tensor) -> PlanarMixture:
        """Return the mixtures with every sigma multiplied by `factor` (...)."""
        # (..., K, 3); the shear is in sigmas and so widens with them
        wider = self.log_sigma + torch.log(factor)[..., None, None]
        return PlanarMixture(self.log_weight, self.mean, wider, self.shear)

    def together(self) -> PlanarMixture:
        """Return mixtures (B, M, H) of K components as (B, H) of M · K, all M equally likely."""
        members = self.log_weight.shape[1]

        def joined(values: Tensor) -> Tensor:
            return values.transpose(1, 2).flatten(2, 3)

        # each member has the weight 1 / M
        shares = joined(self.log_weight) - math.log(members)
        return PlanarMixture(shares, *(joined(v) for v in (self.mean, self.log_sigma, self.shear)))

    def apart(self, members: int) -> PlanarMixture:
        """Return the mixtures (B, M, H) that `together` joined."""

        def taken(values: Tensor) -> Tensor:
            return values.unflatten(2, (members, -1)).transpose(1, 2)

        shares = taken(self.log_weight) + math.log(members)
        return PlanarMixture(shares, *(taken(v) for v in (self.mean, self.log_sigma, self.shear)))

    def log_likelihood(self, truth: Tensor) -> Tensor:
        """Return log-likelihoods (...) of true x, y, yaw (..., 3), less the normal's constant."""
        error = truth[..., None, :] - self.mean  # (..., K, 3)
        error = torch.cat([error[..., :2], wrap_angle(error[..., 2:])], dim=-1)
        x, y, yaw = (error * torch.exp(-self.log_sigma)).unbind(-1)
        # undo the shear, y before x: what remains is independent and standard normal
        side, ahead, along = self.shear.unbind(-1)
        y = y - side * yaw
        x = x - ahead * yaw - along * y
        each = -0.5 * (x**2 + y**2 + yaw**2) - self.log_sigma.sum(-1)
        return torch.logsumexp(self.log_weight + each, dim=-1)

    def expected(self) -> Tensor:
        """Return the mean (..., 3)."""
        return (self.log_weight.exp()[..., None] * self.mean).sum(-2)

    def log_spread(self) -> Tensor:
        """Return the logarithm (..., 3) of the standard deviation about the mean."""
        weight, shear = self.log_weight.exp()[..., None], self.shear.square()
        # variance within a component: its own, and what the shear adds of the others
        side, ahead, along = shear.unbind(-1)
        more = torch.stack([along + ahead, side, torch.zeros_like(side)], dim=-1)
        own = (1 + more) * torch.exp(2 * self.log_sigma)
        # and between components: how far each mean is from the whole mean
        variance = own + (self.mean - self.expected()[..., None, :]).square()
        return 0.5 * torch.log((weight * variance).sum(-2))

    def draws(self, even: Tensor) -> Tensor:
        """Return even draws (..., N, 3), each component with its share of the N.

        Args:
            even: (N, 3), even draws of a standard normal.
        """
        # draw n belongs to the component in which n / N falls of the summed weights
        places = (torch.arange(len(even), device=even.device) + 0.5) / len(even)
        ends = self.log_weight.exp().cumsum(-1)
        part = (places[:, None] > ends[..., None, :]).sum(-1).clamp(max=ends.shape[-1] - 1)
        part = part[..., None].expand(*part.shape, 3)
        mean, log_sigma, shear = (
            values.gather(-2, part) for values in (self.mean, self.log_sigma, self.shear)
        )
        # the inverse of `log_likelihood`: standard normal draws are sheared, scaled, shifted
        side, ahead, along = shear.unbind(-1)
        x, y, yaw = even.to(mean).unbind(-1)
        x = x + ahead * yaw + along * y
        y = y + side * yaw
        return mean + torch.exp(log_sigma) * torch.stack([x, y, yaw.expand_as(y)], dim=-1)


def normal_draws(count: int) -> Tensor:
    """Return even draws float64 (count, 3) of a standard normal, symmetric about 0 (Halton)."""

    def halton(base: int, number: int) -> float:
        value, share = 0.0, 1.0
        while number:
            number, digit = divmod(number, base)
            share /= base
            value += share * digit
        return value

    places = range(1, count // 2 + 1)
    even = torch.tensor([[halton(b, n) for b in (2, 3, 5)] for n in places])
    half = torch.special.ndtri(even.double())  # (count / 2, 3)
    # few draws miss the tails: scale them to unit variance
    half /= half.square().mean(dim=0).sqrt()
    # each draw is followed by its opposite, so that a piece of even length has mean 0 too
    return torch.stack([half, -half], dim=1).flatten(0, 1)
