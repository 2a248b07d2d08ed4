"""Define what a loss hands to the optimizer step: named, weighted terms, and their report.

A loss is a generator of `LossTerm`s. The caller may send the gradient of each term back
before asking for the next one, so that only one term's graph is in memory at a time; no term may
depend on the graph of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vlwm.core.metric_names import is_maximum, is_minimum


@dataclass(frozen=True)
class LossTerm:
    """One summand of a loss, a mean over the samples of a batch.

    Attributes:
        name: logged as "loss/<name>", unless `numbers` names what is logged.
        value: scalar with its graph.
        weight: factor in the total.
        count: number of terms of this name in the loss; each contributes its share.
        numbers: scalars to log in place of `value`, by full name ("loss/focal", "pred/min").
    """

    name: str
    value: Tensor
    weight: float = 1.0
    count: int = 1
    numbers: Mapping[str, Tensor] | None = None

    def contribution(self) -> Tensor:
        """Return what this term adds to the total, with its graph."""
        return self.weight * self.value / self.count

    def logged(self) -> Mapping[str, Tensor]:
        """Return the scalars to log by full name."""
        return {f"loss/{self.name}": self.value} if self.numbers is None else self.numbers


class LossReport:
    """The sum of a loss's terms, and the numbers logged with them.

    Names that end in "/min" or "/max" keep the extreme over the terms, all others the mean.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._values: dict[str, list[Tensor]] = {}

    @classmethod
    def of(cls, terms: Iterable[LossTerm]) -> LossReport:
        """Return the report of all terms, whose total keeps the graph of all of them."""
        report = cls()
        for term in terms:
            report.add(term, term.contribution())
        return report

    @property
    def total(self) -> Tensor:
        """The sum of all contributions so far: a scalar.

        Raises:
            ValueError: the loss has no term.
        """
        if self._total is None:
            raise ValueError("the loss has no term")
        return self._total

    def add(self, term: LossTerm, contribution: Tensor) -> None:
        """Add a term; a detached `contribution` keeps its graph out of the total."""
        # starts with the first term: its device and dtype are those of the total
        self._total = contribution if self._total is None else self._total + contribution
        for name, value in term.logged().items():
            self._values.setdefault(name, []).append(value.detach())

    def numbers(self) -> dict[str, Tensor]:
        """Return float32 scalars by logged name, "train/loss" among them, without graph."""
        reduced = {name: _reduced(name, values) for name, values in self._values.items()}
        whole = {"train/loss": self.total, **reduced}
        return {name: value.detach().float() for name, value in whole.items()}


def _reduced(name: str, values: list[Tensor]) -> Tensor:
    # one value or many: the mean of a single one is exact
    # (T,), one value for each term of this name
    stacked = torch.stack(values)
    if is_minimum(name):
        return stacked.min()
    return stacked.max() if is_maximum(name) else stacked.mean()
