"""The tree of tiles of a 3D Tiles `tileset.json`, walked once for everybody that needs it.

`download` fetches what `prepare` reads, so both ask this module (specifications: OGC 22-025r4,
3D Tiles 1.1, and OGC 18-053r2, 1.0). Content belongs to the finest model of a place where its tile
is refined by ADD, or has no children with content: under REPLACE a parent is a simplified copy of
its children. Nothing is fetched or opened here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from vlwm.core.text import plain_reason, safe_text

_MULTIPLE = "3DTILES_multiple_contents"
_IMPLICIT = "3DTILES_implicit_tiling"
_UNDERSTOOD = frozenset(
    {
        _MULTIPLE, "3DTILES_content_gltf", "3DTILES_metadata", "3DTILES_batch_table_hierarchy",
        "3DTILES_bounding_volume_S2", "3DTILES_bounding_volume_cylinder", "3DTILES_ellipsoid",
        "MAXAR_content_3tz",
    }
)  # fmt: skip
"""extensions that change nothing about which tiles there are and where"""
MOST_TILES = 2_000_000
_LONGEST_NAME = 4096


class NotATileSet(Exception):
    """A file that is not a tile set, or one that is not read, and why."""


@dataclass(frozen=True)
class Content:
    """One file of a tile.

    Attributes:
        uri: as it is written.
        transforms: 4 x 4, column by column, of the tile and those above it, the root's first.
    """

    uri: str
    transforms: tuple[tuple[float, ...], ...]

    @property
    def path(self) -> str:
        """The name without query and percent signs; empty for an address of another host.

        Backslashes of Windows are slashes, as in browsers.
        """
        parts = urlsplit(self.uri)
        return "" if parts.scheme or parts.netloc else unquote(parts.path).replace("\\", "/")

    @property
    def is_set(self) -> bool:
        """True where the name is that of another tile set."""
        return self.path.lower().endswith((".json", ".json.gz"))


@dataclass
class TileTree:
    """Content of a tile set.

    Attributes:
        contents: of the finest tiles, in the order of the tree.
        up_axis: the axis of its glTF that points up (`asset.gltfUpAxis`): X, Y or Z.
        notes: what is not read, in words.
        copyright: of its asset, where it states one.
    """

    contents: list[Content] = field(default_factory=list)
    up_axis: str = "Y"
    notes: list[str] = field(default_factory=list)
    copyright: str = ""


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text, gzipped or not.

    Raises:
        ValueError: it is none, or it is nested too deep.
    """
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its gzip is damaged: {error}") from error


def read_tree(
    data: bytes, is_wanted: Callable[[dict[str, Any]], bool] = lambda tile: True
) -> TileTree:
    """Return the contents of a tile set's finest tiles.

    Args:
        data: the text of `tileset.json`.
        is_wanted: False for a tile that is left out with everything below it.

    Raises:
        NotATileSet: not JSON, no root tile, or a form of 3D Tiles that is not read.
    """
    try:
        return _tree(parse_json(data), is_wanted)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise NotATileSet(f"not a tile set: {plain_reason(error)}") from error


def _tree(tileset: dict[str, Any], is_wanted: Callable[[dict[str, Any]], bool]) -> TileTree:
    unknown = sorted(set(map(str, tileset.get("extensionsRequired") or ())) - _UNDERSTOOD)
    root = tileset["root"]
    if not isinstance(root, dict):
        raise ValueError("its root is not a tile")
    if _IMPLICIT in unknown or _is_implicit(root):
        raise NotATileSet(
            "the tile set is implicit (3D Tiles 1.1, subtrees), which is not read; "
            "take the CityGML of the same place"
        )
    if unknown:
        names = safe_text(", ".join(unknown))
        raise NotATileSet(f"the tile set needs {names}, which is not read")
    asset = tileset.get("asset") or {}
    tree = TileTree(
        up_axis=str(asset.get("gltfUpAxis", "Y")).upper(),
        copyright=safe_text(asset.get("copyright") or ""),
    )
    if tree.up_axis not in ("X", "Y", "Z"):
        tree.notes.append(f"gltfUpAxis {safe_text(tree.up_axis, 20)} is unknown; Y is taken")
        tree.up_axis = "Y"
    implicit = 0
    for content in _walk(root, is_wanted):
        if content is None:
            implicit += 1
        else:
            tree.contents.append(content)
    if implicit:
        tree.notes.append(f"not read: {implicit} tiles that are implicit (3D Tiles 1.1, subtrees)")
    return tree


@dataclass
class _Visit:
    """A tile on the way through the tree."""

    tile: dict[str, Any]
    transforms: tuple[tuple[float, ...], ...]
    refine: str


def _walk(
    root: dict[str, Any], is_wanted: Callable[[dict[str, Any]], bool]
) -> Iterator[Content | None]:
    """Yield contents of the finest tiles in order, and None for an implicit tile."""
    stack = [_Visit(root, (), "REPLACE")]
    has_content = _subtrees_with_content(root)
    count = 0
    while stack:
        visit = stack.pop()
        tile = visit.tile
        count += 1
        if count > MOST_TILES:
            raise ValueError(f"it has more than {MOST_TILES} tiles")
        if not is_wanted(tile):
            continue
        placed = visit.transforms
        if tile.get("transform") is not None:
            numbers = tuple(float(v) for v in tile["transform"])
            if len(numbers) != 16:
                raise ValueError("a transform has not 16 numbers")
            placed = (*placed, numbers)
        refine = str(tile.get("refine") or visit.refine).upper()
        if _is_implicit(tile):
            yield None
            continue
        children = _children(tile)
        is_finest = refine == "ADD" or not any(id(c) in has_content for c in children)
        for uri in _uris(tile):
            content = Content(uri, placed)
            if is_finest or content.is_set:
                yield content
        stack += [_Visit(child, placed, refine) for child in reversed(children)]


def _subtrees_with_content(root: dict[str, Any]) -> set[int]:
    """Return the identities of tiles that have content, or have a tile with content below them."""
    order, stack, parents = [], [root], dict[int, int]()
    while stack:
        tile = stack.pop()
        order.append(tile)
        if len(order) > MOST_TILES:
            raise ValueError(f"it has more than {MOST_TILES} tiles")
        for child in _children(tile):
            parents[id(child)] = id(tile)
            stack.append(child)
    found: set[int] = set()
    for tile in reversed(order):  # children come before their parents
        if id(tile) in found or _uris(tile) or _is_implicit(tile):
            found.add(id(tile))
            above = parents.get(id(tile))
            if above is not None:
                found.add(above)
    return found


def _children(tile: dict[str, Any]) -> list[dict[str, Any]]:
    children = tile.get("children") or []
    if not isinstance(children, list) or not all(isinstance(c, dict) for c in children):
        raise ValueError("the children of a tile are not a list of tiles")
    return children


def _uris(tile: dict[str, Any]) -> list[str]:
    """Return the names of a tile's contents: `content`, `contents`, or the extension of 1.0."""
    several = (tile.get("extensions") or {}).get(_MULTIPLE) or {}
    contents = (
        tile.get("contents") or several.get("contents") or several.get("content")
        or [tile.get("content") or {}]
    )  # fmt: skip
    found = []
    for content in contents:
        uri = content.get("uri") or content.get("url")
        if uri is None:
            continue
        if not isinstance(uri, str) or len(uri) > _LONGEST_NAME:
            raise ValueError("the address of a content is not text")
        urlsplit(uri)  # raises ValueError for an address that is none
        found.append(uri)
    return found


def _is_implicit(tile: dict[str, Any]) -> bool:
    return "implicitTiling" in tile or _IMPLICIT in (tile.get("extensions") or {})
