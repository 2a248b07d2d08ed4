"""Name the words that several rooms share: stages, phases, splits, agents, tracks, classes.

Each is a string and is written to files as one. Python 3.10 has no `StrEnum`; `Word` behaves as
one: a member equals its word, prints as it, and is written to JSON as it.
"""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A word from a fixed list."""

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class Stage(Word):
    """A stage of training, with checkpoints and a metric log of its own."""

    TOKENIZER = "tokenizer"
    WORLD = "world"


class Phase(Word):
    """Phase of a run, as its status names it."""

    START = "start"
    PREPARE = "prepare"
    PROBE = "probe"
    COMPILE = "compile"
    PRIOR = "prior"
    MOTION = "motion"
    FUSION = "fusion"
    COMPLETION = "completion"
    TOKENIZER = "tokenizer"
    WORLD = "world"
    VALIDATE = "validate"
    SAVE = "save"
    EVAL = "eval"
    DONE = "done"

    @classmethod
    def of_stage(cls, stage: Stage) -> Phase:
        """Return the phase in which a stage takes its steps."""
        return cls(stage.value)


class Split(Word):
    """A part of the data by use; `splits.json` assigns each place to one."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Agent(Word):
    """A kind of vehicle."""

    DRONE = "drone"
    ROVER = "rover"


class Track(Word):
    """A way to forecast with the model: from the past alone, or along the true future motion."""

    PREDICTED = "model"
    PLAN = "model_plan"


OCC3D_CLASSES = (
    "others", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle",
    "pedestrian", "traffic_cone", "trailer", "truck", "driveable_surface", "other_flat",
    "sidewalk", "terrain", "manmade", "vegetation", "free",
)  # fmt: skip
"""the classes of Occ3D-nuScenes by number; the last one is free space"""
UNLABELLED = 255
"""the class of a cell whose class is unknown"""


def class_name(number: int, count: int) -> str:
    """Return the name of a class among `count` ones, the last of which is free space."""
    if count == len(OCC3D_CLASSES):
        return OCC3D_CLASSES[number]
    return "free" if number == count - 1 else f"class_{number}"
