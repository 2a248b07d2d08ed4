"""Turn cities into occupancy data, train world models on it, and use their forecasts.

`vlwm.load`, `vlwm.Model` and `vlwm.Forecast` are the public interface (docs/python.md). They are
imported when they are first used, so that `import vlwm` stays light.
"""

from __future__ import annotations

from vlwm.version import __version__

TYPE_CHECKING = False  # `typing` would be most of the time that importing this takes


__all__ = ["Forecast", "Model", "VlwmError", "__version__", "load"]

if TYPE_CHECKING:  # type checkers take it as True
    from vlwm.api import Forecast, Model, VlwmError, load


def __getattr__(name: str) -> object:
    """Import a public name where it is first used."""
    if name in __all__:
        from vlwm import api

        return getattr(api, name)
    raise AttributeError(f"module 'vlwm' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
