"""Two models of one place are one; what stands on a building or beside it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.core.city.town import TOWN, Block, gml_text, obj_text, town_gml
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city

Blocks = Sequence[Block]


def read(folder: Path, first: Blocks, second: Blocks) -> City:
    """Two CityGML files under different names."""
    for name, blocks in (("a", first), ("b", second)):
        (folder / f"{name}.gml").write_text(gml_text(town_gml(list(blocks), name)))
    return read_city([folder])


def volume(city: City) -> float:
    """The volume of all closed shells, cubic metres."""
    a, b, c = city.triangles.transpose(1, 0, 2)
    return float(np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6)


def of(blocks: Blocks) -> float:
    return sum(w * d * h for _, _, w, d, _, h in blocks)


PODIUMS = [(x, y, w, d, z, 5.0 + k % 3) for k, (x, y, w, d, z, h) in enumerate(TOWN)]
TOWERS = [(x + 2, y + 2, w - 4, d - 4, z + low, h) for (x, y, w, d, z, h), low in
          zip(TOWN, [p[5] for p in PODIUMS], strict=True)]  # fmt: skip
STOREYS = [(x, y, w, d, z + 3.0, 3.0) for x, y, w, d, z, h in TOWN]
FLOORS = [(x, y, w, d, z, 3.0) for x, y, w, d, z, h in TOWN]
BESIDE = [(x + w / 2, y, w, d, z, h) for x, y, w, d, z, h in TOWN]
HALVES = [(x + k * w / 2, y, w / 2, d, z, h) for x, y, w, d, z, h in TOWN for k in (0, 1)]
RAISED = [(x + 0.5, y, w, d, z + 37.1, h) for x, y, w, d, z, h in TOWN]
BASEMENTS = [(x, y, w, d, z - 8.0, 8.0) for x, y, w, d, z, h in TOWN]


@pytest.mark.parametrize(("first", "second"), [
    (PODIUMS, TOWERS), (TOWERS, PODIUMS), (FLOORS, STOREYS), (TOWN, BESIDE), (TOWN, BASEMENTS),
], ids=["towers", "podiums", "storeys", "half covered", "basements"])  # fmt: skip
def test_what_is_on_or_beside_a_building_is_kept(
    tmp_path: Path, first: Blocks, second: Blocks
) -> None:
    city = read(tmp_path, first, second)
    assert city.report.buildings == len(first) + len(second)
    assert volume(city) == pytest.approx(of(first) + of(second), rel=1e-3)
    assert not [n for n in city.report.notes if "cover" in n]


@pytest.mark.parametrize(("second", "words"), [
    (HALVES, "72 of 72 buildings of"), (RAISED, "(it is about 37 m higher)"),
    ([*RAISED[:33], (400.0, 0.0, 9.0, 9.0, 80.0, 9.0)], "33 of 34 buildings of"),
], ids=["in halves", "another height system", "and a new one"])  # fmt: skip
def test_a_second_model_is_left_out(tmp_path: Path, second: Blocks, words: str) -> None:
    city = read(tmp_path, TOWN, second)
    new = second[33:] if len(second) == 34 else []
    assert city.report.buildings == len(TOWN) + len(new)
    assert volume(city) == pytest.approx(of(TOWN) + of(new), rel=1e-3)
    assert words in " ".join(city.report.notes)


def test_walls_and_roofs_in_files_of_their_own_are_both_kept(tmp_path: Path) -> None:
    text = obj_text()
    head, faces = [], []
    for line in text.splitlines():
        (faces if line[:2] in ("f ", "o ") else head).append(line)
    kinds = {True: "walls", False: "roofs"}
    for walls, name in kinds.items():
        lines, k = [], 0
        for line in faces:
            if line.startswith("o "):
                lines.append(f"{line}_{name}")
                k = 0
            elif (k >= 4) == walls:  # the first two quads are floor and roof
                lines.append(line)
                k += 1
            else:
                k += 1
        (tmp_path / f"{name}.obj").write_text("\n".join([*head, *lines]) + "\n")
    city = read_city([tmp_path])
    assert city.report.buildings == 2 * len(TOWN)
    assert city.report.triangles == 12 * len(TOWN)
