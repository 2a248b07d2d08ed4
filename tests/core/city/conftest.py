"""Real cities that several tests look at, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlwm.core.city.city import City
from vlwm.core.city.read import read_city


@pytest.fixture(scope="session")
def plateau(shared_data: Path) -> Path:
    """Real PLATEAU files."""
    return shared_data / "plateau"


@pytest.fixture(scope="session")
def matsumoto(plateau: Path) -> City:
    """LOD2 and LOD1 on a slope at 600 m."""
    return read_city([plateau / "citygml/matsumoto"])


@pytest.fixture(scope="session")
def niiza(plateau: Path) -> City:
    """Four adjoining LOD1 tiles."""
    return read_city([plateau / "citygml/niiza"])


@pytest.fixture(scope="session")
def osaka(plateau: Path) -> City:
    """High-rise port side, with its roads."""
    return read_city([plateau / "citygml/osaka"])


@pytest.fixture(scope="session")
def marunouchi(plateau: Path) -> City:
    """OBJ tiles."""
    return read_city([plateau / "tokyo_marunouchi_obj"])
