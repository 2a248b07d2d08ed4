"""The projected system of a city, settled by the first thing that knows where it is."""

from __future__ import annotations

from dataclasses import dataclass

from vlwm.core.city.crs import zone_of
from vlwm.core.errors import DataError


@dataclass
class Zone:
    """One system for all files of a city: the first file's, or that of the area asked for.

    Attributes:
        crs: as EPSG code.
        guessed: the system follows from the area; a file that states its own may still change it.
    """

    crs: str | None = None
    guessed: bool = False

    def settle(self, latitude: float, longitude: float) -> str:
        """The city's system; the plane rectangular zone of this place if none was settled."""
        if self.crs is None:
            self.crs = zone_of(latitude, longitude)
        self.guessed = False
        return self.crs

    def require(self, crs: str, where: str) -> str:
        """Settle on a file's own system.

        Raises:
            DataError: the city is in another one.
        """
        if self.crs not in (None, crs) and not self.guessed:
            raise DataError(
                f"this file is in {crs} and the others are in {self.crs}",
                where=where,
                remedy="prepare places of different zones one by one",
            )
        self.crs, self.guessed = crs, False
        return crs
