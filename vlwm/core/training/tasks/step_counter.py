"""A course: the steps of what stage 2 learns before its first one; those still to be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn
from torch.optim import AdamW


class Course:
    """The steps of a course that are still to be made.

    Args:
        first, steps: those done, and all.
        after: called with the number of steps done, after each.
    """

    def __init__(self, first: int, steps: int, after: Callable[[int], None]) -> None:
        self.first, self.steps, self.after = first, steps, after

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first, self.steps):
            yield step
            self.after(step + 1)


BeginCourse = Callable[[nn.Module, AdamW, int], Course]
"""module, its optimizer, steps of the course; may put both where an earlier process left them"""


def whole_course(module: nn.Module, optimizer: AdamW, steps: int) -> Course:
    """All steps, nothing kept."""
    return Course(0, steps, lambda done: None)
