"""Derive the licence of trained weights from their data and their initial weights.

Never a default: a licence follows from the attribution of the training data and of the weights that
training began from, or the operator states it. Restrictions add up: where one source is
non-commercial or share-alike, so is the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlwm.core.errors import DataError, UsageError

_CC_BY = re.compile(r"CC[ -]BY((?:-NC|-SA|-ND)*)[ -](\d\.\d)", re.IGNORECASE)
_UNSTATED = "not stated"
_MADE_UP = "procedural city"
_OWN = "apache-2.0"
_OCCWORLD = "OccWorld's released weights, trained on nuScenes (CC BY-NC-SA 4.0)"


@dataclass(frozen=True)
class Licence:
    """The licence of trained weights with its reasons.

    Attributes:
        identifier: as the Hub writes it, such as 'cc-by-4.0'.
        sources: what has to be credited, each with its licence.
        why: a sentence for the model card.
    """

    identifier: str
    sources: tuple[str, ...]
    why: str

    def restriction_on(self, what: str) -> str:
        """Return the sentence of a card where the licence restricts `what`, else ''."""
        return f" The {what} are for non-commercial use only." if "-nc" in self.identifier else ""


def licence_of(
    attribution: str,
    *,
    procedural: bool | None,
    initial_weights: str | None,
    stated: str | None = None,
) -> Licence:
    """Return the licence that follows from the sources of a model.

    Args:
        attribution: of the training data, with its licence.
        procedural: True where a city was made by `vlwm prepare` and owes nobody anything; other
            sources of the same training are in the attribution.
        initial_weights: name of the file of the initial weights; None where there were none.
        stated: the operator's word, taken only where the sources do not name a licence.

    Raises:
        DataError: a source does not name a licence and none was stated.
        UsageError: the stated licence is weaker than that of a source.
    """
    real = "; ".join(p for p in attribution.split("; ") if not p.startswith(_MADE_UP))
    sources = [real or "training data without an attribution"]
    if procedural and not real:
        sources = []
    if initial_weights is not None:
        occworld = "occworld" in initial_weights.lower()
        sources.append(_OCCWORLD if occworld else f"initial weights {initial_weights}")
    # data of several sources are one string that names the licence of each
    found = [list(_CC_BY.finditer(source)) for source in sources]
    silent = [
        source
        for source, matches in zip(sources, found, strict=True)
        if not matches or _UNSTATED in source
    ]
    if silent and stated is None:
        raise DataError(
            "the licence of the weights is unknown",
            where="; ".join(silent),
            remedy="state it with --licence, such as --licence cc-by-4.0",
        )
    named = [match for matches in found for match in matches]
    required = _combined(named)
    if required is not None and stated is not None and stated.lower() != required:
        _refuse_weaker(stated.lower(), required, named)
    if not sources:
        return Licence(stated or _OWN, (), "The training data are a procedural city of vlwm.")
    identifier = (stated.lower() if silent and stated else None) or required or _OWN
    why = f"It follows from what the weights were made of: {'; '.join(sources)}."
    if silent:
        why += " Where a source names no licence, the publisher states this one."
    return Licence(identifier, tuple(sources), why)


def _combined(named: list[re.Match[str]]) -> str | None:
    """Return the identifier with the restrictions of all sources; None without a source."""
    if not named:
        return None
    marks = {part for match in named for part in match.group(1).upper().split("-") if part}
    version = max(match.group(2) for match in named)
    parts = [part for part in ("NC", "SA", "ND") if part in marks]
    return "-".join(["cc-by", *(p.lower() for p in parts), version])


def _refuse_weaker(stated: str, required: str, named: list[re.Match[str]]) -> None:
    """Raise where a stated licence drops a restriction of a source."""
    missing = [mark for mark in ("nc", "sa", "nd") if f"-{mark}" in required and
               f"-{mark}" not in stated]  # fmt: skip
    if missing:
        raise UsageError(
            f"--licence {stated} drops what {named[0].string} asks for",
            remedy=f"leave it out: {required} follows from the sources",
        )
