"""Mixtures: likelihood beside torch's own distributions, moments and draws beside each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from vlwm.core.model.motion.planar_mixture import PlanarMixture, normal_draws


def some(seed: int, parts: int = 3) -> PlanarMixture:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return PlanarMixture(
        torch.log_softmax(normal(2, parts), -1), normal(2, parts, 3),
        0.5 * normal(2, parts, 3) - 1.0, normal(2, parts, 3),
    )  # fmt: skip


def as_torch(mixture: PlanarMixture) -> MixtureSameFamily:
    """The same distribution of (yaw, y, x)."""
    side, ahead, along = mixture.shear.unbind(-1)
    sigma = mixture.log_sigma.exp()
    lower = torch.zeros(*side.shape, 3, 3, dtype=torch.float64)
    lower[..., 0, 0] = lower[..., 1, 1] = lower[..., 2, 2] = 1.0
    lower[..., 1, 0], lower[..., 2, 0], lower[..., 2, 1] = side, ahead, along
    lower = sigma.flip(-1)[..., None] * lower
    normal = MultivariateNormal(mixture.mean.flip(-1), scale_tril=lower)
    return MixtureSameFamily(Categorical(logits=mixture.log_weight), normal)


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_and_moments_are_those_of_torch(seed: int) -> None:
    mixture = some(seed)
    known = as_torch(mixture)
    random = torch.Generator().manual_seed(100 + seed)
    at = torch.randn(2, 3, dtype=torch.float64, generator=random)
    # torch's headings do not wrap: the point is less than half a turn from each part's
    at[:, 2] = mixture.mean[..., 2].mean(dim=1) + 0.1 * at[:, 2]
    assert bool(((at[:, None, 2] - mixture.mean[..., 2]).abs() < math.pi).all())
    constant = 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(
        mixture.log_likelihood(at) - constant, known.log_prob(at.flip(-1)), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(mixture.expected(), known.mean.flip(-1))
    torch.testing.assert_close(2 * mixture.log_spread(), known.variance.log().flip(-1))


def test_a_heading_that_wraps_is_as_likely() -> None:
    mixture = some(0)
    at = mixture.expected()
    around = at + torch.tensor([0.0, 0.0, 2 * math.pi], dtype=torch.float64)
    torch.testing.assert_close(mixture.log_likelihood(at), mixture.log_likelihood(around))


@pytest.mark.parametrize("seed", range(4))
def test_its_draws_have_its_moments(seed: int) -> None:
    mixture = some(seed)
    draws = mixture.draws(normal_draws(4096))
    assert draws.shape == (2, 4096, 3)
    torch.testing.assert_close(draws.mean(1), mixture.expected(), rtol=0, atol=0.02)
    torch.testing.assert_close(draws.std(1).log(), mixture.log_spread(), rtol=0, atol=0.03)
    samples = as_torch(mixture).sample(torch.Size([200_000])).flip(-1)
    for b in range(2):
        mine, theirs = (np.cov(values.numpy().T) for values in (draws[b], samples[:, b]))
        np.testing.assert_allclose(mine, theirs, atol=0.03 * theirs.max())


def test_each_part_has_its_share_of_the_draws() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.25]]).log()
    mean = torch.tensor([[[0.0, 0, 0], [10, 0, 0], [20, 0, 0]]])
    still = torch.full((1, 3, 3), -5.0)
    draws = PlanarMixture(weights, mean, still, torch.zeros(1, 3, 3)).draws(normal_draws(128))
    near = (draws[0, :, :1] - mean[0, :, 0]).abs() < 1
    assert near.sum(0).tolist() == [64, 32, 32]


def test_widened_it_is_as_much_wider_about_the_same_places() -> None:
    mixture = some(1, parts=1)
    wide = mixture.widened(torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(wide.expected(), mixture.expected())
    factor = (wide.log_spread() - mixture.log_spread()).exp()
    torch.testing.assert_close(factor, torch.tensor([[2.0], [3.0]]).double().expand(2, 3))


def test_normal_draws_are_even() -> None:
    draws = normal_draws(128)
    np.testing.assert_allclose(draws.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(draws.T, bias=True), np.eye(3), atol=0.1)
    np.testing.assert_allclose(draws[32:64].mean(0), 0.0, atol=1e-12)  # and so is a piece


def test_members_together_are_their_mean() -> None:
    """Their density, whatever a place's parts: and apart they are as they were."""
    torch.manual_seed(0)
    values = [torch.randn(2, 3, 4, 5, 3) for _ in range(3)]
    apart = PlanarMixture(torch.log_softmax(torch.randn(2, 3, 4, 5), -1), *values)
    together = apart.together()
    truth = torch.randn(2, 4, 3)
    each = apart.log_likelihood(truth[:, None].expand(2, 3, 4, 3))
    mean = torch.logsumexp(each, dim=1) - math.log(3)
    torch.testing.assert_close(together.log_likelihood(truth), mean)
    again = together.apart(3)
    torch.testing.assert_close(again.log_weight, apart.log_weight)
    assert all(map(torch.equal, (again.mean, again.log_sigma, again.shear), values))
