"""List what can be downloaded: one readable list (`catalogue.json`).

An entry is `{name, group, url, file, bytes, sha256, licence}`; `file` is relative to the data
folder (`pretrained/…` is next to it, where the configs look). Further keys are optional:
`default` (part of a plain `vlwm download`), `optional` (not part of `--all`), `extract` (folder),
`about_bytes` (a size that is only about right), `format` and `ward` (PLATEAU), `how` (what a person
has to do where a form precedes the file), `together` (its archives are parts of one tree).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from vlwm.core.errors import DataError, UsageError, nearest
from vlwm.core.files import read_json
from vlwm.core.text import safe_text

GROUPS = ("plateau", "models", "nuscenes", "uavscenes", "tartanair", "midair")
FORMATS = ("obj", "citygml", "3dtiles")
_FORM = "write a list of {name, group, url, file, bytes, sha256, licence}"
_LONGEST = 2000
_LONGEST_PART = 200
"""bytes of a file's or folder's name; disks allow 255, and .part.json comes on top"""
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
        """Return the place of the file in (or, for weights, next to) the data folder."""
        root = data_dir.parent if self.file.startswith("pretrained/") else data_dir
        return root / self.file

    @property
    def size(self) -> int | None:
        """Bytes, exact or about; None where they are unknown."""
        return self.bytes if self.bytes is not None else self.about_bytes


def read_catalogue(path: Path | None = None) -> list[Entry]:
    """Return the entries of the built-in list, or of another one of the same form.

    Raises:
        DataError: the file is not such a list; the entry and key are named.
    """
    where = path or _BUILT_IN
    values = read_json(where)
    if not isinstance(values, list):
        raise DataError("a catalogue is a list of entries", where=where, remedy=_FORM)
    entries = [_entry(value, index, where) for index, value in enumerate(values)]
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise DataError(
                f"two entries are named {entry.name!r}", where=where, remedy="give one another name"
            )
        seen.add(entry.name)
    return entries


def _entry(value: object, index: int, where: Path) -> Entry:
    if not isinstance(value, Mapping):
        raise DataError(f"entry {index} is not an object", where=where, remedy=_FORM)
    missing = [k for k in ("name", "group", "url", "file") if k not in value]
    if missing:
        raise DataError(f"entry {index} lacks {', '.join(missing)}", where=where, remedy=_FORM)
    known = {f.name: str(f.type) for f in fields(Entry)}
    for key, entry_value in value.items():
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise DataError(
                f"entry {index} has an unknown key {safe_text(key, 60)!r}", where=where, remedy=hint
            )
        if not is_a(entry_value, known[key]):
            raise DataError(
                f"entry {index}: {key} is {safe_text(entry_value, 60)}", where=where,
                remedy=f"it should be {_PLAIN[known[key]]}",
            )  # fmt: skip
    entry = Entry(**value)
    _check(entry, where)
    return entry


_PLAIN = {
    "str": "a text without control characters",
    "str | None": "a text without control characters, or null",
    "int | None": "a whole number of bytes, or null",
    "bool": "true or false",
}


def is_a(value: object, kind: str) -> bool:
    """Return whether a JSON value has the type of an entry's field."""
    if value is None:
        return kind.endswith("None")
    if kind.startswith("str"):
        return (
            isinstance(value, str)
            and len(value) <= _LONGEST
            and safe_text(value, _LONGEST) == value
        )
    if kind.startswith("int"):
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60
    return isinstance(value, bool)


def _check(entry: Entry, where: Path) -> None:
    path = PurePosixPath(entry.file)
    too_long = any(len(part.encode()) > _LONGEST_PART for part in path.parts)
    if path.is_absolute() or ".." in path.parts or not path.parts or too_long:
        raise DataError(
            f"{entry.name}: the file {safe_text(entry.file, 80)!r} leads out of the data folder",
            where=where,
            remedy="write it relative to the data folder, without .., each name below 200 letters",
        )
    if entry.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", entry.sha256):
        raise DataError(
            f"{entry.name}: sha256 should be 64 hexadecimal digits",
            where=where,
            remedy="copy what sha256sum prints, or write null",
        )
    if entry.url is not None and not is_address(entry.url):
        raise DataError(
            f"{entry.name}: the address should begin with http, https or hf",
            where=where,
            remedy="write such an address (hf://datasets/OWNER/NAME), or null and a line `how` "
            "for what needs a form",
        )


def is_address(url: str) -> bool:
    """Return whether a text is an address that can be asked for: http, https or hf."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a bad IPv6 address, a port that is none
        return False
    if parts.scheme == "hf":
        return re.fullmatch(r"hf://(datasets|models|spaces)/[^/]+/[^/]+(/.+)?", url) is not None
    return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()


@dataclass(frozen=True)
class Selection:
    """The operator's request; an empty one means the default entries."""

    everything: bool = False
    groups: tuple[str, ...] = ()
    wards: tuple[str, ...] = ()
    format: str | None = None


def select(entries: Sequence[Entry], wanted: Selection) -> list[Entry]:
    """Return the entries of a selection, in the catalogue's order.

    Raises:
        UsageError: nothing in the catalogue fits; what there is is named.
    """
    if wanted.everything:
        chosen = [e for e in entries if not e.optional]
    elif not wanted.groups:
        chosen = [e for e in entries if e.default] or list(entries)
    else:
        chosen = [e for e in entries if _fits(e, wanted)]
    if not chosen and wanted.wards:
        kind = wanted.format or "obj"
        raise UsageError(
            f"the catalogue has no {kind} of ward {', '.join(wanted.wards)} alone",
            remedy="add --format citygml or --format 3dtiles for single wards, or leave --ward out "
            "for all 23 and give vlwm prepare --area",
        )
    if not chosen:
        have = sorted({e.group for e in entries})
        raise UsageError(
            "nothing in the catalogue matches", remedy=f"it has {', '.join(have)}; see --list"
        )
    return chosen


def _fits(entry: Entry, wanted: Selection) -> bool:
    if entry.group not in wanted.groups:
        return False
    if entry.group != "plateau":
        return True
    if entry.format not in (wanted.format or "obj", None):
        return False
    return not wanted.wards or entry.ward in wanted.wards


def divide(
    entries: Sequence[Entry], free: int, has: Callable[[Entry], bool]
) -> tuple[list[Entry], list[Entry]]:
    """Divide entries into those that have a size and fit the disk together, and the rest.

    Args:
        free: bytes that may be used; an archive that is unpacked needs its size twice.
        has: True for an entry that is downloaded already.
    """
    taken: set[str] = set()
    for entry in sorted(entries, key=lambda e: (not e.default, e.size or 0)):
        need = (entry.size or 0) * (2 if entry.extract else 1)
        if has(entry):
            taken.add(entry.name)
        elif entry.url is not None and entry.size is not None and need <= free:
            taken.add(entry.name)
            free -= need
    return [e for e in entries if e.name in taken], [e for e in entries if e.name not in taken]


def command_for(entry: Entry) -> str:
    """Return the command that downloads an entry alone, or with its group."""
    words = ["vlwm download", f"--{entry.group}"]
    if entry.group == "plateau" and entry.format not in (None, "obj"):
        words += ["--format", str(entry.format)]
        words += ["--ward", entry.ward] if entry.ward else []
    if entry.url is None:
        words += ["--links", "FILE"]
    return " ".join(words)


def file_name(url: str) -> str | None:
    """Return the file name at the end of an address; None where it is not one for our disk."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    plain = safe_text(name, _LONGEST) == name and len(name.encode()) <= _LONGEST_PART
    return name if plain and name not in ("", ".", "..") and "\\" not in name else None
