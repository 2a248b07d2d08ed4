"""Files of city models, loose or inside archives that stay unopened.

A `Source` is one readable file: OBJ, CityGML or the root of a 3D tile set, on the disk or as a
member of a zip, gzipped or not. PLATEAU's names tell what it holds:
`53394611_bldg_6697_op.gml` under `udx/bldg` is the buildings of mesh 53394611; `bldg/lod2/…` of an
OBJ archive is their finer form. Whatever looks like a city model and is not read is named in a
note.
"""

from __future__ import annotations

import gzip
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, cast

from vlwm.core.city.readers import foreign
from vlwm.core.city.readers.foreign import TILE_CONTENT
from vlwm.core.city.readers.places import DAMAGE, Archive, Folder, Place, unreadable
from vlwm.core.errors import DataError
from vlwm.core.text import safe_text

READ_KINDS = ("bldg", "brid", "veg", "tran", "dem")
"""codes of what is read, in this order: the ground is made under everything else"""
_CODED = re.compile(r"^\d{6,10}_([a-z]{3,4})(?=_|\.)", re.ASCII)
_MESH = re.compile(r"^(\d{6}|\d{8,10})(?=_|\.)", re.ASCII)
_LOD = re.compile(r"(?:^|[/_])lod([1-4])(?=[/_.])", re.IGNORECASE | re.ASCII)
_CITY = re.compile(r"(?<!\d)\d{5}_([a-z0-9-]+)_20\d\d_", re.ASCII)
_OFFICIAL = re.compile(r"^\d{6,10}_[a-z]{3,4}_\d{4}(?:_[a-z0-9]+)*\.", re.ASCII)
_OBJ, _GML, _XML = (".obj", ".obj.gz"), (".gml", ".gml.gz", ".citygml"), (".xml", ".xml.gz")
_LOOKED_FOR = "OBJ (.obj), CityGML (.gml, .gml.gz), 3D Tiles (tileset.json) or a .zip of them"
_ARCHIVES = (".zip", ".3tz")
_PACKED = re.compile(
    r"\.(7z|rar|tar|tgz|tbz2?|txz|lzh|cab|zst|bz2|xz|lzma|lz4|br|tar\.\w+|zipx|(?:zip|7z)\.\d{3}|z\d\d|"
    r"part\d+)$",
    re.IGNORECASE | re.ASCII,
)
_GZIP = b"\x1f\x8b"
_SNIFF_BYTES = 4096
_NAMED = 3


@dataclass(frozen=True)
class Source:
    """One readable file of a place."""

    damage: ClassVar = DAMAGE

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
        return "obj" if lower.endswith(_OBJ) else "tiles" if lower.endswith(".json") else "gml"

    @property
    def kind(self) -> str | None:
        """PLATEAU's code of what it holds (bldg, dem, …), None where names do not tell."""
        coded = _CODED.match(self.name)
        if coded:
            return coded.group(1)
        words = re.split(r"[_.-]", self.name)
        folders = self.member.split("/")[:-1]
        return next((k for k in READ_KINDS if k in words or k in folders), None)

    @property
    def lod(self) -> int | None:
        """Level of detail, where a folder or the name tells it."""
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

    @property
    def official(self) -> bool:
        """True where the file has a name as Project PLATEAU gives it."""
        return self.city is not None or _OFFICIAL.match(self.name) is not None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file's bytes, unpacked where they begin as gzip does.

        Raises:
            DataError: it cannot be opened.
        """
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self.place.open(self.member))
                packed = stream.read(2) == _GZIP or self.name.lower().endswith(".gz")
                stream.seek(0)
            except PermissionError as error:
                raise unreadable(self.place.where(self.member)) from error
            except self.damage as error:
                raise self.broken(0, f"the file cannot be read: {error}") from error
            if packed:
                # mypy does not count GzipFile as IO, though it has all that readers use
                stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
            yield stream

    def read(self, most: int = -1) -> bytes:
        """Return all bytes, or the first `most`.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with self.open() as stream:
                return stream.read(most)
        except (*self.damage, MemoryError) as error:
            raise self.broken(0, f"the file is damaged: {error}") from error

    def refuse_what_is_no_model(self) -> None:
        """Look at the first bytes.

        Raises:
            DataError: the file is something else under a model's name.
        """
        other = foreign.what_else(self.read(_SNIFF_BYTES), self.format)
        if other:
            raise self.broken(0, *other)

    def broken(self, line: int, reason: str, remedy: str = "download it again") -> DataError:
        """Return what is wrong with this file, as an error that names it and the line."""
        where = self.place.where(self.member)
        return DataError(reason, where=f"{where}:{line}" if line else where, remedy=remedy)


def find_sources(inputs: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """Return readable files below the inputs, in the order of reading, and notes of the others.

    Of an archive next to unpacked files those members are read that are not unpacked there.

    Raises:
        DataError: an input is missing, cannot be read, or holds no city model.
    """
    found: list[Source] = []
    notes: list[str] = []
    for path in inputs:
        sources, passed_over = _sources_of(Path(path))
        if not sources:
            raise _nothing_in(Path(path), passed_over)
        found += sources
        notes += passed_over
    chosen = [s for s in dict.fromkeys(found) if s.kind in (None, *READ_KINDS)]
    if not chosen:
        raise DataError(
            "these files hold no buildings",
            where=", ".join(str(p) for p in inputs),
            remedy="give the folder that holds udx/bldg",
        )
    return sorted(chosen, key=_order), _other_kinds(found) + list(dict.fromkeys(notes))


def _nothing_in(path: Path, passed_over: list[str]) -> DataError:
    """Return the error of an input without a model, with what is there instead."""
    packed = [n for n in passed_over if "unpack" in n]
    remedy = "vlwm download fetches Tokyo; or give another folder with --input"
    if packed:
        remedy = "unpack it and give the folder with --input"
    elif passed_over:
        remedy = f"give models in one of these forms, or {remedy}"
    seen = "; " + "; ".join(passed_over[:_NAMED]) if passed_over else ""
    return DataError(
        f"no city model here; looked for {_LOOKED_FOR}{seen}", where=path, remedy=remedy
    )


def _sources_of(path: Path) -> tuple[list[Source], list[str]]:
    """Return the models of one input, and notes of what looks like one and is not read."""
    try:
        there = path.exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise DataError(
            "no such file or folder",
            where=path,
            remedy="give city models with --input, or vlwm download",
        )
    if path.is_file():
        return _of_file(path)
    folder = Folder(path)
    names = folder.names()
    loose, notes = _models(folder, names)
    notes += _dead_links(folder)
    sizes = {(posixpath.basename(n), folder.size(n)) for n in names}
    for name in names:
        if name.lower().endswith(_ARCHIVES) and not posixpath.basename(name).startswith("."):
            inside, more = _in_archive(path / name, sizes if loose else set(), bool(loose))
            loose += inside
            notes += more
    return loose, notes


def _of_file(path: Path) -> tuple[list[Source], list[str]]:
    if path.suffix.lower() in _ARCHIVES:
        archive = Archive(path)
        return _models(archive, archive.names())
    source = Source(Folder(path.parent), path.name)
    if _is_named_model(source.member) or path.suffix.lower() == ".json" or _is_gml_inside(source):
        return [source], []
    return _models(source.place, [source.member])


def _in_archive(
    path: Path, unpacked: set[tuple[str, int]], has_loose_models: bool
) -> tuple[list[Source], list[str]]:
    """Return models of an archive that are not unpacked next to it, and notes.

    Args:
        unpacked: (name, bytes) of the loose files.
        has_loose_models: there are loose models, so the archive is not the input itself.
    """
    archive = Archive(path)
    try:
        names = archive.names()
    except DataError as error:
        if not has_loose_models:
            raise
        return [], [f"not read: {path.name}: {error.what}"]
    found, notes = _models(archive, names)
    left = [s for s in found if (s.name, archive.size(s.member)) not in unpacked]
    if has_loose_models and left:
        notes.append(f"{path.name} is read too: {len(left)} of its files are not unpacked here")
    return left, notes


def _models(place: Place, names: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Return the models among files of a place, and notes of what looks like one."""
    visible = [n for n in names if not _is_hidden(n)]
    found = [Source(place, n) for n in visible if _is_named_model(n)]
    rest = [n for n in visible if not _is_named_model(n)]
    found += [s for n in rest if n.lower().endswith(_XML) and _is_gml_inside(s := Source(place, n))]
    if not any(s.format == "tiles" for s in found) and _has_content(visible):
        found += [
            s for n in rest if n.lower().endswith(".json") and _is_tile_set(s := Source(place, n))
        ]
    return sorted(found, key=lambda s: s.member), _passed_over(place, rest, found)


def _passed_over(place: Place, rest: Sequence[str], found: Sequence[Source]) -> list[str]:
    notes = []
    for name in rest:
        shown = safe_text(posixpath.basename(name))
        if _PACKED.search(name):
            notes.append(f"not read: {shown}: unpack it first")
        elif isinstance(place, Archive) and name.lower().endswith(_ARCHIVES):
            notes.append(f"not read: {shown} inside {place.path.name}: unpack that once")
    is_tiled = any(s.format == "tiles" for s in found)
    return notes + foreign.named(rest, is_tiled, lambda name: _head(Source(place, name)))


def _dead_links(folder: Folder) -> list[str]:
    dead = folder.dead_links()
    shown = ", ".join(safe_text(n) for n in dead[:_NAMED])
    more = ", …" if len(dead) > _NAMED else ""
    return [f"not read: {len(dead)} links that lead nowhere: {shown}{more}"] if dead else []


def _is_hidden(member: str) -> bool:
    return posixpath.basename(member).startswith(".") or member.startswith("__MACOSX/")


def _is_named_model(member: str) -> bool:
    name = posixpath.basename(member).lower()
    return not _is_hidden(member) and (name.endswith((*_OBJ, *_GML)) or name == "tileset.json")


def _has_content(names: Sequence[str]) -> bool:
    return any(n.lower().endswith(TILE_CONTENT) for n in names)


def _is_gml_inside(source: Source) -> bool:
    return foreign.is_city_gml(_head(source))


def _is_tile_set(source: Source) -> bool:
    return foreign.is_tile_set(_head(source))


def _head(source: Source) -> bytes:
    try:
        return source.read(_SNIFF_BYTES)
    except DataError:
        return b""


def _order(source: Source) -> tuple[int, int, str]:
    """Order sources: buildings first, the ground last; of two levels of detail the finer first."""
    return (
        READ_KINDS.index(source.kind) if source.kind else 0,
        -(source.lod or 0),
        source.place.where(source.member),
    )


def _other_kinds(found: Sequence[Source]) -> list[str]:
    """Return notes of files whose names tell that they hold something else."""
    kinds = (source.kind for source in found if source.kind is not None)
    counts = Counter(kind for kind in kinds if kind not in READ_KINDS)
    return [f"not read: {count} files of {kind}" for kind, count in sorted(counts.items())]
