"""Tell what a file is that looks like a city model by its name and is not one that is read.

A sign-in page, a pointer of Git LFS or an error of a server often have the name of the model that
was asked for. Each is named for what it is, with what helps.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence

from vlwm.core.text import safe_text

ENDINGS = frozenset((
    ".fbx", ".dae", ".stl", ".ply", ".3ds", ".3dm", ".dwg", ".dxf", ".ifc", ".ifczip", ".glb",
    ".gltf", ".b3dm", ".i3dm", ".pnts", ".cmpt", ".las", ".laz", ".shp", ".gpkg", ".gdb",
    ".geojson", ".geojsonl", ".cityjson", ".jsonl", ".skp", ".blend", ".usd", ".usda", ".usdc",
    ".usdz", ".rvt", ".kml", ".kmz", ".slpk", ".3dtiles", ".x3d", ".wrl", ".max", ".c4d",
))  # fmt: skip
"""endings of models that are not read, unless they belong to a tile set"""
TILE_CONTENT = (".b3dm", ".glb", ".gltf", ".cmpt", ".i3dm", ".pnts", ".geojson")
_ELEVATION = (".tif", ".tiff", ".asc", ".img", ".xyz", ".dem", ".hgt")
_ELEVATION_WORDS = re.compile(
    r"(?:^|[/_.\-])(dem|dtm|dsm|dgm|dom|mnt|relief|terrain|elevation|ground|lidar)", re.IGNORECASE
)
_CITYJSON = re.compile(rb'"type"\s*:\s*"CityJSON(Feature)?"')
_XML_KINDS = (
    (b"FGD_GMLSchema", "the base map of Japan (FGD_GMLSchema)"),
    (b"landxml.org", "LandXML"),
    (b"<LandXML", "LandXML"),
)
_PACKED = (
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "XZ"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
)
"""what files of a packer begin with"""
_LFS = b"version https://git-lfs"
_PAGE = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
_SERVER_ERROR = re.compile(rb"<(?:\w+:)?(?:ExceptionReport|ServiceExceptionReport|Error)\b[^>]*>")
_MESSAGE = re.compile(
    rb"<(?:\w+:)?(?:ExceptionText|ServiceException|Message)\b[^>]*>\s*([^<]{1,200})"
)
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_AGAIN = "download it again"


def as_utf8(head: bytes) -> bytes:
    """Return the beginning of a text in UTF-8, where a byte order mark tells that it is UTF-16."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return head.decode(encoding, "ignore").encode()
    return head


def is_city_gml(head: bytes) -> bool:
    """Return True for the head of a CityGML document."""
    text = as_utf8(head)
    return b"CityModel" in text or b"opengis.net/citygml" in text


def is_tile_set(head: bytes) -> bool:
    """Return True for the head of a `tileset.json` of any name."""
    return b'"asset"' in head and (b'"root"' in head or b'"geometricError"' in head)


def is_city_json(head: bytes) -> bool:
    """Return True for the head of a CityJSON document."""
    return _CITYJSON.search(head) is not None


def what_else(head: bytes, model: str) -> tuple[str, str] | None:
    """Return what a file is instead of a model, and the remedy; None where it may be one.

    Args:
        head: its first bytes.
        model: obj, gml or tiles, as its name tells.
    """
    if not head:
        return "the file is empty", _AGAIN
    if head.startswith(_LFS):
        return "a pointer of Git LFS, not the model itself", "git lfs pull in its repository"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive under another name", "name it .zip"
    packer = next((name for mark, name in _PACKED if head.startswith(mark)), None)
    if packer is not None:
        return f"packed by {packer}, which is not read", "unpack it first (7-Zip can)"
    text = as_utf8(head)
    if _PAGE.search(text):
        return "a web page, not a city model", f"sign in at its publisher's, then {_AGAIN}"
    if model != "obj" and is_city_json(text):
        return "CityJSON, which is not read", (
            "convert it to CityGML (citygml-tools from-cityjson), or take the CityGML of the place"
        )
    if model != "tiles" and not is_city_gml(text) and (error := _SERVER_ERROR.search(text)):
        message = _MESSAGE.search(text)
        words = message.group(1).strip() if message else error.group(0)
        shown = safe_text(words.decode("utf-8", "replace"), 120)
        return f"an error message of a server, not a city model: {shown}", _AGAIN
    if model == "obj" and b"\0" in text:
        return "not a text, so not an OBJ model", "give the models' own folder with --input"
    return None


def named(rest: Sequence[str], is_tiled: bool, head_of: Callable[[str], bytes]) -> list[str]:
    """Return notes of files that hold models or heights in forms that are not read.

    Args:
        rest: names of files that are not read.
        is_tiled: a tile set is read, to which the content of tiles belongs.
        head_of: returns the first bytes of a file.
    """
    counts = Counter[str]()
    for name in rest:
        lower = name.lower()
        ending = posixpath.splitext(lower)[1]
        if ending in ENDINGS and not (is_tiled and ending in TILE_CONTENT):
            counts[f"files of {ending}"] += 1
        elif ending in _ELEVATION and _ELEVATION_WORDS.search(name):
            counts[f"files of {ending} (heights of the ground)"] += 1
        elif lower.endswith(".city.json"):
            counts["files of .city.json"] += 1
        elif ending == ".json" and is_city_json(head_of(name)):
            counts["files of CityJSON"] += 1
        elif ending == ".xml":
            head = as_utf8(head_of(name))
            kind = next((kind for mark, kind in _XML_KINDS if mark in head), None)
            if kind:
                counts[f"files of {kind}"] += 1
    return [f"not read: {count} {kind}" for kind, count in sorted(counts.items())]
