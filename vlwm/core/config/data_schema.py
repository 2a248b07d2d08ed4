"""Define the parts of the config about data: how they are loaded, and how they are prepared."""

from __future__ import annotations

from dataclasses import dataclass

from vlwm.core.config.require import require
from vlwm.core.vocabulary import Agent


@dataclass(frozen=True)
class SourceConfig:
    """One of several data folders."""

    root: str = ""
    """folder of session folders"""
    weight: float = 1.0
    """how often a sample of this source is taken in an epoch: 2 is twice, 0.5 every other epoch"""

    def __post_init__(self) -> None:
        require(bool(self.root), "data.train.root", self.root, "give the folder of the sessions")
        require(self.weight > 0, "data.train.weight", self.weight, "use a number above 0")


@dataclass(frozen=True)
class DataConfig:
    """The loader."""

    train: tuple[SourceConfig, ...] = ()
    """several data folders of one grid in place of data_root, each split by its own rule, as
    [dict(root="data/a", weight=1.0), ...]"""

    samples_per_gpu: int = 3
    """windows in one step of stage 2, per GPU (batch size)"""
    epoch_samples: int = 0
    """windows of one epoch of stage 2, others in each; 0 takes all of the train split"""
    workers_per_gpu: int = 8
    """loader processes; 0 loads in the training process"""
    horizons: int = 0
    """future frames of each window that a step of stage 2 learns from; 0 takes all"""
    motion_samples: int = 1024
    """windows more in each step of stage 2, of which the pose loss takes the poses alone"""
    motion_steps: int = 2000
    """steps that the pose module learns from poses alone, before the first one of stage 2"""
    fusion_steps: int = 1500
    """steps of one window each that the fusion of past frames learns before the first of stage 2"""
    completion_steps: int = 1500
    """steps of one window each that the completion of an observed past learns before stage 2"""
    mirror: bool = True
    """mirror windows left to right at random in stage 2"""
    symmetries: bool = True
    """turn and mirror single frames at random in stage 1"""
    observed: bool = False
    """past frames are what a sensor saw (vlwm prepare --observe), not the truth"""
    cache_tokens: bool = True
    """keep the frozen tokenizer's codes of each frame in the run folder; changes no number"""

    def __post_init__(self) -> None:
        value = self.samples_per_gpu
        require(value >= 1, "data.samples_per_gpu", value, "use a batch of at least 1")
        value = self.epoch_samples
        require(value >= 0, "data.epoch_samples", value, "use 0 for all, or a number")
        require(self.horizons >= 0, "data.horizons", self.horizons, "use 0 for all, or a number")
        value = self.motion_samples
        require(value >= 0, "data.motion_samples", value, "use 0 or more")
        value = self.motion_steps
        require(value >= 0, "data.motion_steps", value, "use 0 or more")
        value = self.fusion_steps
        require(value >= 0, "data.fusion_steps", value, "use 0 or more")
        value = self.completion_steps
        require(value >= 0, "data.completion_steps", value, "use 0 or more")
        good = not (self.observed and self.cache_tokens)
        require(good, "data.cache_tokens", True, "with data.observed, use False: no true past")
        value = self.workers_per_gpu
        require(value >= 0, "data.workers_per_gpu", value, "use 0 or more")


PATTERNS = ("random", "survey", "orbit", "canyon", "patrol", "revisit")
"""names of the ways that vehicles can go; 'mix' is all that suit a vehicle, in turn"""


OBSERVE = ("none", "lidar", "HDL-32E", "VLP-16", "Livox", "depth")
"""values of `prepare.observe`"""


@dataclass(frozen=True)
class PrepareConfig:
    """Defaults of `vlwm prepare`, used when no option overrides them."""

    source: str = "tiles"
    """'tiles': city models from disk; 'procedural': a made-up city, named as such everywhere"""
    input: str = "data/plateau/meshes/obj"
    """folder of the city tiles"""
    frames: int = 500
    """frames of a session"""
    sessions: int = 10
    """number of sessions, all agents together"""
    agents: tuple[str, ...] = tuple(agent.value for agent in Agent)
    """vehicles, taken in turn"""
    patterns: tuple[str, ...] = ("mix",)
    """where they go, taken in turn: random, survey, orbit, canyon, patrol, revisit; 'mix' is all"""
    seed: int = 42
    """seed of city, regions and trajectories"""
    held_out: float = 0.3
    """share of the built area for validation and test, half each; for cities up to 20 km²"""
    fill: str = "surface"
    """'surface': cells met by a surface; 'solid': the inside of closed buildings too"""
    procedural_size_m: float = 800.0
    """side of the procedural city, metres"""
    lidar: bool = False
    """write a lidar scan of every frame, about 1 MB each; not used in training"""
    lidar_model: str = "HDL-32E"
    """whose beams, range and noise the scans have: 'HDL-32E' (32 beams) or 'VLP-16' (16)"""
    camera: bool = False
    """write a picture of every frame, 900 x 1600 pixels; not used in training"""
    observe: str = "none"
    """write for every frame which cells a sensor saw occupied and free: 'lidar' (that of
    lidar_model), 'HDL-32E', 'VLP-16', 'Livox' or 'depth'; 'none': the frames are the truth"""
    pose_noise: str = "none"
    """errors of the poses that the vehicle believes: 'none', '5cm' (and 0.1 degrees), '15cm' (and
    0.3 degrees)"""

    def __post_init__(self) -> None:
        good = self.lidar_model in ("HDL-32E", "VLP-16")
        require(good, "prepare.lidar_model", self.lidar_model, "use 'HDL-32E' or 'VLP-16'")
        good = self.observe in OBSERVE
        require(good, "prepare.observe", self.observe, f"use one of {', '.join(OBSERVE)}")
        good = self.pose_noise in ("none", "5cm", "15cm")
        require(good, "prepare.pose_noise", self.pose_noise, "use 'none', '5cm' or '15cm'")
        good = 0.1 <= self.held_out <= 0.6
        require(good, "prepare.held_out", self.held_out, "use a share from 0.1 to 0.6")
        good = self.source in ("tiles", "procedural")
        require(good, "prepare.source", self.source, "use 'tiles' or 'procedural'")
        good = self.fill in ("surface", "solid")
        require(good, "prepare.fill", self.fill, "use 'surface' or 'solid'")
        good = bool(self.agents) and all(a in tuple(Agent) for a in self.agents)
        require(good, "prepare.agents", self.agents, "use 'drone', 'rover' or both")
        good = bool(self.patterns) and set(self.patterns) <= {"mix", *PATTERNS}
        known = ", ".join(("mix", *PATTERNS))
        require(good, "prepare.patterns", self.patterns, f"use some of {known}")

    @property
    def observed_by(self) -> str | None:
        """Name of the sensor that observes the frames, or None."""
        if self.observe == "none":
            return None
        return self.lidar_model if self.observe == "lidar" else self.observe
