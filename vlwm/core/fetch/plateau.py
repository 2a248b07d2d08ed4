"""Ask PLATEAU's own catalogue for single wards and cities; its answer is read with suspicion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError
from vlwm.core.fetch.answers import cause, whole_number
from vlwm.core.fetch.catalogue import Entry, file_name, is_a, is_address
from vlwm.core.files import make_folder, read_json, write_text
from vlwm.core.text import safe_text

PLATEAU_API = "https://api.plateauview.mlit.go.jp/datacatalog/plateau-datasets"


def plateau_entries(
    wards: Iterable[str], kind: str, answer: Mapping[str, Any]
) -> tuple[list[Entry], list[str]]:
    """Return the entries of wards (or cities) in an answer of PLATEAU, and the codes not found.

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


def _rows(answer: Any, code: str, kind: str) -> list[Mapping[str, Any]]:
    """Return the rows of a ward whose address can be asked for and whose file has a plain name."""
    found = (
        answer.get("citygml" if kind == "citygml" else "datasets")
        if isinstance(answer, Mapping)
        else None
    )
    rows = [r for r in (found if isinstance(found, list) else ()) if isinstance(r, Mapping)]
    here = [r for r in rows if code in (r.get("ward_code"), r.get("city_code")) and _file_of(r)]
    if kind == "citygml":
        return here
    return [r for r in here if r.get("type_en") == "bldg" and r.get("format") == "3D Tiles"]


def _file_of(row: Mapping[str, Any]) -> str | None:
    url = row.get("url")
    return file_name(url) if isinstance(url, str) and is_address(url) else None


def _rank(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the sort key: newest year, then the finer level of detail, then without textures."""
    year, lod = whole_number(str(row.get("year"))), whole_number(str(row.get("lod")))
    return year or 0, lod or 0, 0 if row.get("texture") else 1


def _plateau_entry(code: str, kind: str, row: Mapping[str, Any]) -> Entry:
    url, name = str(row["url"]), _file_of(row)
    folder = f"plateau/{kind}"
    inside = f"{folder}/{code}/{name}" if name == "tileset.json" else f"{folder}/{name}"
    size = row.get("size") or row.get("file_size")
    return Entry(
        name=f"{code}-{kind}-{safe_text(row.get('year', 'latest'), 20)}",
        group="plateau",
        url=url,
        file=inside,
        about_bytes=size if is_a(size, "int | None") and size else None,
        licence="CC BY 4.0, Project PLATEAU (MLIT)",
        format=kind,
        ward=code,
    )


def ask_plateau(cache: Path, api: str = PLATEAU_API) -> Mapping[str, Any]:
    """Return PLATEAU's catalogue; its ETag keeps an unchanged one from being sent again.

    Raises:
        DataError: the service does not answer, or with something else, and nothing is cached.
    """
    import requests

    known = _cached(cache)
    headers = {"If-None-Match": known["etag"]} if known.get("etag") else {}
    try:
        response = requests.get(api, headers=headers, timeout=(4, 60))
        if response.status_code == 304 and known.get("answer"):
            return dict(known["answer"])
        response.raise_for_status()
        answer = response.json()
        if not isinstance(answer, Mapping):
            raise ValueError("not an object")
    except (requests.exceptions.RequestException, ValueError, RecursionError) as error:
        if known.get("answer"):
            return dict(known["answer"])
        raise DataError(
            f"PLATEAU's catalogue does not answer ({cause(error)})",
            where=api,
            remedy="try again later, or leave --ward out to take the built-in files of all wards",
        ) from error
    make_folder(cache.parent)
    etag = response.headers.get("ETag")
    write_text(
        cache, json.dumps({"etag": etag if etag and etag.isascii() else None, "answer": answer})
    )
    return answer


def _cached(cache: Path) -> dict[str, Any]:
    """Return the cached answer; empty where there is none, or it is damaged."""
    try:
        known = read_json(cache) if cache.exists() else {}
    except DataError:
        return {}
    whole = isinstance(known, dict) and isinstance(known.get("answer"), Mapping)
    return known if whole and isinstance(known.get("etag"), str | None) else {}
