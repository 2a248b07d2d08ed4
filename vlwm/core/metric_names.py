"""Name the metrics that keep an extreme over steps and processes; all others are averaged."""

from __future__ import annotations


def is_minimum(name: str) -> bool:
    """Return True for a metric of which the smallest value counts, such as "pred/min"."""
    return name.endswith("/min")


def is_maximum(name: str) -> bool:
    """Return True for a metric of which the largest value counts, such as "pred/max"."""
    return name.endswith("/max")


def is_extreme(name: str) -> bool:
    """Return True for a metric that is not averaged."""
    return is_minimum(name) or is_maximum(name)
