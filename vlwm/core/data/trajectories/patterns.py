"""Patterns by name: where a drone or a rover wants to go. The planner keeps all off the walls.

    random   slowly varying speed, turns and heights                          drone, rover
    survey   lines to and fro above the roofs, block by block, across then     drone
    orbit    around one building after the other, up and down                  drone
    canyon   through the streets, below the roofs                              drone
    patrol   along real streets (`tran`), else between the buildings           rover
    revisit  away and back to the same place from another side, again          drone, rover

Every pattern varies its speed and height as `random` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlwm.core.config.data_schema import PATTERNS
from vlwm.core.data.trajectories.environment import World
from vlwm.core.data.trajectories.guidance import Guidance, PathGuidance, RandomGuidance
from vlwm.core.data.trajectories.routes import Lines, Orbits, Returns, StreetWays
from vlwm.core.data.trajectories.vehicle import VEHICLES, Vehicle
from vlwm.core.errors import UsageError
from vlwm.core.vocabulary import Agent

MIX = "mix"
RANDOM = "random"

Make = Callable[[World, np.random.Generator], Guidance]


@dataclass(frozen=True)
class Pattern:
    """Parameters of a named pattern.

    Attributes:
        agents: vehicles that can.
        make: the guidance, in a world.
        speed_m_s, height_m: narrower than the drone's own, where given.
        confined: between the buildings, never above one.
        on_streets: begins on a street.
    """

    agents: tuple[str, ...]
    make: Make
    speed_m_s: tuple[float, float] | None = None
    height_m: tuple[float, float] | None = None
    confined: bool = False
    on_streets: bool = False

    def vehicle(self, agent: str) -> Vehicle:
        """Return the vehicle with the pattern's own ranges."""
        vehicle = VEHICLES[agent]
        if agent != Agent.DRONE:
            return vehicle
        return replace(
            vehicle,
            speed_m_s=self.speed_m_s or vehicle.speed_m_s,
            height_m=self.height_m or vehicle.height_m,
        )


def _survey(world: World, rng: np.random.Generator) -> Guidance:
    return PathGuidance(world, rng, Lines(world, rng))


def _orbit(world: World, rng: np.random.Generator) -> Guidance:
    around = Orbits(world, rng)
    return PathGuidance(world, rng, around, around.height)


def _canyon(world: World, rng: np.random.Generator) -> Guidance:
    def below_the_roofs(xy: NDArray[np.float64], level: float) -> float:
        low, high = world.vehicle.height_m
        return float(np.clip((0.25 + 0.5 * level) * world.roofs_above_ground(xy), low, high))

    return PathGuidance(world, rng, StreetWays(world, rng), below_the_roofs)


def _patrol(world: World, rng: np.random.Generator) -> Guidance:
    return PathGuidance(world, rng, StreetWays(world, rng))


def _revisit(world: World, rng: np.random.Generator) -> Guidance:
    return PathGuidance(world, rng, Returns(world, rng))


BY_NAME: dict[str, Pattern] = {
    RANDOM: Pattern(tuple(Agent), RandomGuidance),
    "survey": Pattern((Agent.DRONE,), _survey, height_m=(30.0, 60.0)),
    "orbit": Pattern((Agent.DRONE,), _orbit, speed_m_s=(3.2, 10.0)),
    "canyon": Pattern(
        (Agent.DRONE,), _canyon, (3.2, 9.0), (5.0, 30.0), confined=True, on_streets=True
    ),
    "patrol": Pattern((Agent.ROVER,), _patrol, on_streets=True),
    "revisit": Pattern(tuple(Agent), _revisit),
}
assert tuple(BY_NAME) == PATTERNS


def pattern_of(names: Sequence[str], agent: str, turn: int) -> str:
    """Return the pattern of an agent's session number `turn`: those that suit it, in turn.

    Raises:
        UsageError: none of the names is for this agent.
    """
    wanted = tuple(BY_NAME) if MIX in names else tuple(names)
    suiting = [name for name in wanted if agent in BY_NAME[name].agents]
    if not suiting:
        ours = ", ".join(name for name, p in BY_NAME.items() if agent in p.agents)
        raise UsageError(
            f"no {agent} follows the pattern {', '.join(names)}",
            remedy=f"add one of {ours}, or leave the {agent} out by --agents",
        )
    return suiting[turn % len(suiting)]
