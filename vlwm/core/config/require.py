"""Refuse values of a config that cannot work."""

from __future__ import annotations

from vlwm.core.errors import ConfigError


def require(good: bool, key: str, value: object, remedy: str) -> None:
    """Raise `ConfigError` for a value of a key that is not good."""
    if not good:
        raise ConfigError(f"{key} = {value!r} cannot be", remedy=remedy)
