"""Small CityGML documents."""

from __future__ import annotations

from pathlib import Path

GML = """<?xml version="1.0"?>
<core:CityModel xmlns:core="http://www.opengis.net/citygml/2.0"
 xmlns:bldg="http://www.opengis.net/citygml/building/2.0"
 xmlns:brid="http://www.opengis.net/citygml/bridge/2.0"
 xmlns:dem="http://www.opengis.net/citygml/relief/2.0"
 xmlns:tran="http://www.opengis.net/citygml/transportation/2.0"
 xmlns:gml="http://www.opengis.net/gml">
{members}
</core:CityModel>
"""
LATITUDE, LONGITUDE = 35.68, 139.76


def ring(low: float, high: float, height: float) -> str:
    """A square ring, in hundred-thousandths of a degree."""
    at = [(low, low), (low, high), (high, high), (high, low), (low, low)]
    text = " ".join(f"{LATITUDE + a * 1e-5} {LONGITUDE + b * 1e-5} {height}" for a, b in at)
    return f"<gml:LinearRing><gml:posList>{text}</gml:posList></gml:LinearRing>"


def polygon(height: float, *, hole: bool = False, low: float = 0, high: float = 10) -> str:
    inner = f"<gml:interior>{ring(low + 4, low + 6, height)}</gml:interior>" if hole else ""
    return (
        f"<gml:Polygon><gml:exterior>{ring(low, high, height)}</gml:exterior>{inner}</gml:Polygon>"
    )


def solid(height: float, **shape: float) -> str:
    """An LOD1 block that is its roof alone."""
    return f"<bldg:lod1Solid>{polygon(height, **shape)}</bldg:lod1Solid>"


def wall(height: float) -> str:
    """An LOD2 surface."""
    return (
        "<bldg:boundedBy><bldg:WallSurface><bldg:lod2MultiSurface>"
        f"{polygon(height)}</bldg:lod2MultiSurface></bldg:WallSurface></bldg:boundedBy>"
    )


def member(body: str, name: str | None, tag: str = "bldg:Building") -> str:
    ident = f' gml:id="{name}"' if name else ""
    return f"<core:cityObjectMember><{tag}{ident}>{body}</{tag}></core:cityObjectMember>"


def write_members(path: Path, *members: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(GML.format(members="\n".join(members)))
    return path


def write_gml(path: Path, *bodies: str) -> Path:
    """A document of buildings b0, b1, …"""
    return write_members(path, *(member(b, f"b{i}") for i, b in enumerate(bodies)))
