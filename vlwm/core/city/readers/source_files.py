"""Files of city models, loose or inside archives that stay unopened.

A `Source` is one readable file: `name.obj`, `name.gml`, `name.gml.gz`, or a `tileset.json`, on the
disk or as a member of a zip. PLATEAU's names say what it holds: `53394611_bldg_6697_op.gml` under
`udx/bldg` is the buildings of mesh 53394611; `bldg/lod2/…` of an OBJ archive is their finer form.
"""

from __future__ import annotations

import gzip
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, ClassVar

from vlwm.core.errors import DataError

READ_KINDS = ("bldg", "brid", "veg", "tran", "dem")
"""codes of what is read, in this order: the ground is laid under what stands"""
_CODED = re.compile(r"^\d{6,10}_([a-z]{3,4})(?=_|\.)")
_MESH = re.compile(r"^(\d{6}|\d{8,10})(?=_|\.)")
_LOD = re.compile(r"(?:^|[/_])lod([1-4])(?=[/_.])", re.IGNORECASE)
_CITY = re.compile(r"(?<!\d)\d{5}_([a-z0-9-]+)_20\d\d_")
_SUFFIXES = (".obj", ".gml", ".gml.gz")
_LOOKED_FOR = "OBJ (.obj), CityGML (.gml, .gml.gz), 3D Tiles (tileset.json) or a .zip of them"


@dataclass(frozen=True)
class Folder:
    """A folder of the disk, as a place where files are found by relative name."""

    path: Path

    def names(self) -> list[str]:
        found = (p for p in self.path.rglob("*") if p.is_file())
        return sorted(p.relative_to(self.path).as_posix() for p in found)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with open(self.path / name, "rb") as stream:
            yield stream

    def where(self, name: str) -> str:
        return str(self.path / name)


@dataclass(frozen=True)
class Archive:
    """A zip, read member by member and never unpacked."""

    path: Path

    @cached_property
    def _members(self) -> frozenset[str]:
        try:
            with zipfile.ZipFile(self.path) as opened:
                infos = [i for i in opened.infolist() if not i.is_dir()]
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(
                f"the archive is damaged: {error}", where=self.path, remedy="download it again"
            ) from error
        if any(i.flag_bits & 1 for i in infos):
            raise DataError("the archive is encrypted", where=self.path, remedy="unpack it first")
        return frozenset(i.filename for i in infos)

    def names(self) -> list[str]:
        return sorted(self._members)

    def has(self, name: str) -> bool:
        return name in self._members

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as opened, opened.open(name) as stream:
            yield stream

    def where(self, name: str) -> str:
        return f"{self.path}!{name}"


Place = Folder | Archive


@dataclass(frozen=True)
class Source:
    """One readable file of a place."""

    damage: ClassVar = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)

    place: Place
    member: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return posixpath.basename(self.member)

    @property
    def format(self) -> str:
        """obj, gml or tiles."""
        lower = self.name.lower()
        return "obj" if lower.endswith(".obj") else "tiles" if lower.endswith(".json") else "gml"

    @property
    def kind(self) -> str | None:
        """PLATEAU's code of what it holds (bldg, dem, …), None where names do not say."""
        coded = _CODED.match(self.name)
        if coded:
            return coded.group(1)
        words = re.split(r"[_.-]", self.name)
        folders = self.member.split("/")[:-1]
        return next((k for k in READ_KINDS if k in words or k in folders), None)

    @property
    def lod(self) -> int | None:
        """Level of detail, where a folder or the name says it."""
        found = _LOD.findall(self.member)
        return int(found[-1]) if found else None

    @property
    def mesh(self) -> str | None:
        """Mesh code that the name begins with."""
        match = _MESH.match(self.name)
        return match.group(1) if match else None

    @property
    def city(self) -> str | None:
        """Name of the city in the official folder or archive name: `tokyo23-ku`."""
        found = _CITY.findall(self.place.where(self.member))
        return found[-1] if found else None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file's bytes, unpacked where the file itself is gzip.

        Raises:
            DataError: it cannot be opened.
        """
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self.place.open(self.member))
            except self.damage as error:
                raise self.broken(0, f"the file cannot be read: {error}") from error
            if self.name.lower().endswith(".gz"):
                stream = stack.enter_context(gzip.open(stream))  # type: ignore[arg-type]
            yield stream

    def read(self, most: int = -1) -> bytes:
        """All bytes, or the first `most`.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with self.open() as stream:
                return stream.read(most)
        except self.damage as error:
            raise self.broken(0, f"the file is damaged: {error}") from error

    def broken(self, line: int, reason: str) -> DataError:
        """What is wrong with this file, as an error that names it and the line."""
        where = self.place.where(self.member)
        return DataError(
            reason, where=f"{where}:{line}" if line else where, remedy="download it again"
        )


def find_sources(inputs: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """Readable files below the inputs, in the order of reading, and notes about what is not read.

    A folder's archives are read only where nothing in it lies unpacked.

    Raises:
        DataError: an input is missing, or holds no city model.
    """
    found: list[Source] = []
    for given in inputs:
        sources = _sources_of(Path(given))
        if not sources:
            raise DataError(
                f"no city model here; looked for {_LOOKED_FOR}",
                where=given,
                remedy="vlwm download fetches Tokyo; or give another folder with --input",
            )
        found += sources
    chosen = [s for s in dict.fromkeys(found) if s.kind in (None, *READ_KINDS)]
    if not chosen:
        raise DataError(
            "these files hold no buildings",
            where=", ".join(str(p) for p in inputs),
            remedy="give the folder that holds udx/bldg",
        )
    return sorted(chosen, key=_order), _left_out(found)


def _sources_of(given: Path) -> list[Source]:
    if not given.exists():
        raise DataError(
            "no such file or folder",
            where=given,
            remedy="give city models with --input, or vlwm download",
        )
    if given.is_file():
        if given.suffix.lower() == ".zip":
            return _listed(Archive(given))
        source = Source(Folder(given.parent), given.name)
        return [source] if _is_model(source.member) else []
    loose = _listed(Folder(given))
    return loose or [s for z in sorted(given.rglob("*.zip")) for s in _listed(Archive(z))]


def _listed(place: Place) -> list[Source]:
    return [Source(place, name) for name in place.names() if _is_model(name)]


def _is_model(member: str) -> bool:
    name = posixpath.basename(member).lower()
    if name.startswith(".") or member.startswith("__MACOSX/"):
        return False
    return name.endswith(_SUFFIXES) or name == "tileset.json"


def _order(source: Source) -> tuple[int, int, str]:
    """Buildings first and the ground last; of two levels of detail the finer first."""
    return (
        READ_KINDS.index(source.kind) if source.kind else 0,
        -(source.lod or 0),
        source.place.where(source.member),
    )


def _left_out(found: Sequence[Source]) -> list[str]:
    counts = Counter(s.kind for s in found if s.kind not in (None, *READ_KINDS))
    return [f"not read: {count} files of {kind}" for kind, count in sorted(counts.items())]  # type: ignore[type-var]
