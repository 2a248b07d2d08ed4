"""Real cities, tile by tile: what is in the file, what was read, and whether geometry was kept.

    python benchmarks/city.py --input DIR [DIR …] [--json]      a table of every tile
    python benchmarks/city.py --large TILE.gml.gz [--mb 60]     one large tile, read by itself

Buildings in the file are counted without a parser. Volumes are those of closed LOD1 shells, by the
divergence theorem, beside footprint times height. The large tile is a real one repeated, each copy
under names of its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.assembly.watertight import open_features
from vlwm.core.city.city import City
from vlwm.core.city.crs import project, zone_of
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.citygml import Feature, read_features
from vlwm.core.city.readers.citygml_triangles import clean
from vlwm.core.city.readers.source_files import find_sources
from vlwm.core.geometry.triangulate import Polygons, triangulate

_BUILDING = re.compile(rb"<(?:bldg:Building|brid:Bridge)[ />]")
_MEMBER = b"<core:cityObjectMember>"


def bytes_of(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def in_the_file(path: Path) -> int:
    """Buildings and bridges in a file, counted as text; of 3D Tiles the names in the tables of
    every tile that is there."""
    if path.suffix == ".json":
        tiles = [tile.read_bytes() for tile in path.parent.rglob("*.b3dm")]
        return len({name for raw in tiles for name in names_in_table(raw)})
    raw = bytes_of(path)
    if path.suffix == ".obj":
        return len(re.findall(rb"^o ", raw, re.MULTILINE))
    return len(_BUILDING.findall(raw))


def names_in_table(tile: bytes) -> list[str]:
    """`gml_id` of the batch table's JSON, which follows the header and the feature table."""
    lengths = struct.unpack("<3I", tile[12:24])
    table = tile[28 + lengths[0] + lengths[1] : 28 + sum(lengths)]
    return list(json.loads(table)["gml_id"])


def volumes(city: City) -> tuple[int, float, float]:
    """Closed LOD1 blocks: how many, their volume, and their footprints times heights, m³."""
    triangles, owner = city.mesh.triangles(), city.feature_of_face
    count = len(city.feature_ids)
    closed = ~open_features(triangles, owner, count)
    a, b, c = (triangles[:, k] - triangles[:, 0].mean(axis=0) for k in range(3))
    volume = np.bincount(owner, np.einsum("ij,ij->i", a, np.cross(b, c)), minlength=count) / 6
    normal = np.cross(b - a, c - a)
    roof = np.bincount(owner, np.clip(normal[:, 2], 0, None) / 2, minlength=count)
    top, bottom = np.full(count, -np.inf), np.full(count, np.inf)
    np.maximum.at(top, np.repeat(owner, 3), triangles[:, :, 2].reshape(-1))
    np.minimum.at(bottom, np.repeat(owner, 3), triangles[:, :, 2].reshape(-1))
    prism = roof * (top - bottom)
    blocks = closed if not city.report.lod2 else closed & flat_topped(triangles, owner, count)
    return int(blocks.sum()), float(volume[blocks].sum()), float(prism[blocks].sum())


def flat_topped(
    triangles: NDArray[np.float64], owner: NDArray[np.int32], count: int
) -> NDArray[np.bool_]:
    """Features (G,) whose corners lie at two heights only: blocks among finer models."""
    corners = np.round(triangles[:, :, 2].reshape(-1), 2)
    pairs = np.unique(np.column_stack([np.repeat(owner, 3), corners]), axis=0)
    return np.bincount(pairs[:, 0].astype(int), minlength=count) == 2


def worst_cover(path: Path) -> float | None:
    """Largest relative difference between a polygon's area and its triangles', over a CityGML
    file; of polygons over 0.01 m²."""
    worst = 0.0
    for source in find_sources([path])[0]:
        features = [f for f in read_features(source) if isinstance(f, Feature)]
        if source.format != "gml" or not features:
            return None
        rings, _ = clean(features)
        metres = project(rings.points, zone_of(*features[0].points[0, :2]))
        polygons = Polygons(metres, rings.ring_sizes, rings.polygon_rings)
        triangles, owner = triangulate(polygons)
        corners = metres[triangles]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = polygons.areas()
        along = np.linalg.norm(
            np.stack([np.bincount(owner, n, minlength=len(areas)) for n in normal.T], axis=-1),
            axis=-1,
        )
        big = areas > 0.01
        worst = max(worst, float(np.abs(along[big] / 2 / areas[big] - 1).max(initial=0.0)))
    return worst


def tile_row(path: Path) -> dict[str, Any]:
    city = read_city([path])
    blocks, volume, prism = volumes(city)
    skipped = len(city.report.skipped)
    return {
        "tile": f"3D Tiles, {path.parent.name}" if path.suffix == ".json" else path.name,
        "in_file": in_the_file(path),
        "read": len(city.feature_ids),
        "skipped": skipped,
        "lod2": city.report.lod2,
        "closed_blocks": blocks,
        "volume_m3": round(volume),
        "prisms_m3": round(prism),
        "volume_error": round(volume / prism - 1, 6) if prism else None,
        "cover_error": worst_cover(path) if ".gml" in path.name else None,
    }


def tiles_of(inputs: list[Path]) -> list[Path]:
    found = [p for given in inputs for p in ([given] if given.is_file() else given.rglob("*"))]
    wanted = re.compile(r"(bldg|brid).*\.gml(\.gz)?$|\.obj$|^tileset\.json$")
    return sorted(p for p in found if wanted.search(p.name))


def repeated(path: Path, megabytes: float) -> bytes:
    """The file with its members repeated until it has a size; every copy has its own names."""
    raw = bytes_of(path)
    start, end = raw.index(_MEMBER), raw.rindex(b"</core:cityObjectMember>") + 24
    members = raw[start:end]
    copies = max(1, round((megabytes * 1e6 - len(raw) + len(members)) / len(members)))
    many = [members.replace(b'gml:id="', b'gml:id="c%d_' % k) for k in range(copies)]
    return raw[:start] + b"\n".join(many) + raw[end:]


def read_alone(path: Path) -> dict[str, Any]:
    """Read a city in this process; its CPU seconds and highest memory.

    VmHWM, because `ru_maxrss` begins with what the process had that started this one.
    """
    started = time.process_time()
    city = read_city([path])
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    return {
        "seconds": round(time.process_time() - started, 2),
        "peak_mb": round(int(peak.group(1)) / 1024),
        "buildings": city.report.buildings,
    }


def large(path: Path, megabytes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tile = Path(folder) / path.name.removesuffix(".gz")
        tile.write_bytes(repeated(path, megabytes))
        command = [sys.executable, __file__, "--alone", str(tile)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        return {"tile": path.name, "mb": round(tile.stat().st_size / 1e6, 1), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, nargs="+", default=[], help="folders or files")
    parser.add_argument("--large", type=Path, help="a CityGML tile to repeat and read")
    parser.add_argument("--mb", type=float, default=60.0, help="size of the repeated tile")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.alone or options.large:
        alone = options.alone
        print(json.dumps(read_alone(alone) if alone else large(options.large, options.mb)))
        return
    rows = [tile_row(path) for path in tiles_of(options.input)]
    if options.json:
        print(json.dumps(rows))
        return
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v:.1e}" if k == "cover_error" and v is not None else str(v)
                                for k, v in row.items()) + " |")  # fmt: skip


if __name__ == "__main__":
    main()
