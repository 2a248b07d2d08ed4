"""What can be fetched: one readable list (`catalogue.json`), and PLATEAU's own catalogue.

An entry is `{name, group, url, file, bytes, sha256, licence}`; `file` is relative to the data
folder (`pretrained/…` lies beside it, where the configs look). Further keys are optional:
`default` (part of a plain `vlwm download`), `optional` (not part of `--all`), `extract` (folder),
`about_bytes` (a size that is only about right), `format` and `ward` (PLATEAU), `how` (what a person
has to do where a form stands before the file), `together` (its archives are parts of one tree).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from vlwm.core.errors import DataError, UsageError, nearest
from vlwm.core.files import make_folder, read_json, write_json

GROUPS = ("plateau", "models", "nuscenes", "uavscenes", "tartanair", "midair")
FORMATS = ("obj", "citygml", "3dtiles")
PLATEAU_API = "https://api.plateauview.mlit.go.jp/datacatalog/plateau-datasets"
_FORM = "write a list of {name, group, url, file, bytes, sha256, licence}"
_BUILT_IN = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Entry:
    """One thing that can be fetched."""

    name: str
    group: str
    url: str | None
    file: str
    bytes: int | None = None
    sha256: str | None = None
    licence: str = "unknown"
    default: bool = False
    optional: bool = False
    extract: str | None = None
    about_bytes: int | None = None
    format: str | None = None
    ward: str | None = None
    scenes: bool = False
    together: bool = False
    how: str | None = None

    def path(self, data_dir: Path) -> Path:
        """Where the file belongs below (or, for weights, beside) the data folder."""
        root = data_dir.parent if self.file.startswith("pretrained/") else data_dir
        return root / self.file

    @property
    def size(self) -> int | None:
        """Bytes, exact or about; None where nobody says."""
        return self.bytes if self.bytes is not None else self.about_bytes


def read_catalogue(path: Path | None = None) -> list[Entry]:
    """The built-in list, or another of the same form.

    Raises:
        DataError: the file is not such a list; the entry and key are named.
    """
    where = path or _BUILT_IN
    values = read_json(where)
    if not isinstance(values, list):
        raise DataError("a catalogue is a list of entries", where=where, remedy=_FORM)
    entries = [_entry(value, index, where) for index, value in enumerate(values)]
    names = [e.name for e in entries]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two entries are named {name!r}", where=where, remedy="give one another name"
            )
    return entries


def _entry(value: Any, index: int, where: Path) -> Entry:
    if not isinstance(value, Mapping):
        raise DataError(f"entry {index} is not an object", where=where, remedy=_FORM)
    missing = [k for k in ("name", "group", "url", "file") if k not in value]
    if missing:
        raise DataError(f"entry {index} lacks {', '.join(missing)}", where=where, remedy=_FORM)
    known = {f.name for f in fields(Entry)}
    for key in value:
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise DataError(f"entry {index} has an unknown key {key!r}", where=where, remedy=hint)
    entry = Entry(**value)
    _check(entry, where)
    return entry


def _check(entry: Entry, where: Path) -> None:
    path = PurePosixPath(entry.file)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(
            f"{entry.name}: the file {entry.file!r} leads out of the data folder",
            where=where,
            remedy="write it relative to the data folder, without ..",
        )
    if entry.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", entry.sha256):
        raise DataError(
            f"{entry.name}: sha256 should be 64 hexadecimal digits",
            where=where,
            remedy="copy what sha256sum prints, or write null",
        )
    if entry.url is not None and not entry.url.startswith(("http://", "https://", "hf://")):
        raise DataError(
            f"{entry.name}: the address should begin with http, https or hf",
            where=where,
            remedy="write such an address, or null and a line `how` for what needs a form",
        )


@dataclass(frozen=True)
class Selection:
    """What the operator asked for; nothing means the guide's default."""

    everything: bool = False
    groups: tuple[str, ...] = ()
    wards: tuple[str, ...] = ()
    format: str | None = None


def select(entries: Sequence[Entry], wanted: Selection) -> list[Entry]:
    """The entries of a selection, in the catalogue's order.

    Raises:
        UsageError: nothing in the catalogue fits; what there is is named.
    """
    if wanted.everything:
        chosen = [e for e in entries if not e.optional and e.format in (None, "obj")]
    elif not wanted.groups:
        chosen = [e for e in entries if e.default] or list(entries)
    else:
        chosen = [e for e in entries if _fits(e, wanted)]
    if not chosen:
        have = sorted({e.group for e in entries})
        raise UsageError(
            "the catalogue holds nothing like that", remedy=f"it has {', '.join(have)}; see --list"
        )
    return chosen


def _fits(entry: Entry, wanted: Selection) -> bool:
    if entry.group not in wanted.groups:
        return False
    if entry.group != "plateau":
        return True
    if entry.format not in (wanted.format or "obj", None):
        return False
    return not wanted.wards or entry.ward in (None, *wanted.wards)


def plateau_entries(
    wards: Iterable[str], kind: str, answer: Mapping[str, Any]
) -> tuple[list[Entry], list[str]]:
    """Entries of wards (or cities) from an answer of PLATEAU's catalogue, and the codes not found.

    Args:
        wards: five-digit codes, such as 13101 for Chiyoda.
        kind: 'citygml' or '3dtiles' (PLATEAU's catalogue lists no OBJ).
        answer: the JSON object of `PLATEAU_API`.
    """
    found: list[Entry] = []
    missing: list[str] = []
    for code in wards:
        rows = _rows(answer, code, kind)
        if not rows:
            missing.append(code)
            continue
        found.append(_plateau_entry(code, kind, max(rows, key=_rank)))
    return found, missing


def _rows(answer: Mapping[str, Any], code: str, kind: str) -> list[Mapping[str, Any]]:
    rows = answer.get("citygml" if kind == "citygml" else "datasets") or []
    here = [r for r in rows if code in (r.get("ward_code"), r.get("city_code")) and r.get("url")]
    if kind == "citygml":
        return here
    return [r for r in here if r.get("type_en") == "bldg" and r.get("format") == "3D Tiles"]


def _rank(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Newest year first, then the finer level of detail, then without textures."""
    year, lod = str(row.get("year") or 0), str(row.get("lod") or 0)
    return int(year), int(lod) if lod.isdigit() else 0, 0 if row.get("texture") else 1


def _plateau_entry(code: str, kind: str, row: Mapping[str, Any]) -> Entry:
    url = str(row["url"])
    name = url.rpartition("/")[2]
    folder = f"plateau/{kind}"
    inside = f"{folder}/{code}/{name}" if name == "tileset.json" else f"{folder}/{name}"
    size = row.get("size") or row.get("file_size")
    return Entry(
        name=f"{code}-{kind}-{row.get('year', 'latest')}",
        group="plateau",
        url=url,
        file=inside,
        about_bytes=size if isinstance(size, int) else None,
        licence="CC BY 4.0, Project PLATEAU (MLIT)",
        format=kind,
        ward=code,
    )


def ask_plateau(cache: Path, api: str = PLATEAU_API) -> Mapping[str, Any]:
    """PLATEAU's catalogue; asked with its ETag, so that an unchanged one is not sent again.

    Raises:
        DataError: the service does not answer and nothing is cached.
    """
    import requests

    known = read_json(cache) if cache.exists() else {}
    headers = {"If-None-Match": known["etag"]} if known.get("etag") else {}
    try:
        response = requests.get(api, headers=headers, timeout=(10, 60))
        if response.status_code == 304:
            return known["answer"]
        response.raise_for_status()
        answer = response.json()
    except (requests.exceptions.RequestException, ValueError) as error:
        if known.get("answer"):
            return known["answer"]
        raise DataError(
            f"PLATEAU's catalogue does not answer ({type(error).__name__})",
            where=api,
            remedy="try again later, or take the built-in files without --ward",
        ) from error
    make_folder(cache.parent)
    write_json(cache, {"etag": response.headers.get("ETag"), "answer": answer})
    return answer
