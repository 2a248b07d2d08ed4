"""Fetch a tree of 3D Tiles: the tile set, the sets that it names, and the content of their tiles.

Which tiles belong to it is the business of `vlwm.core.tile_tree`, which `vlwm prepare` asks too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

from vlwm.core.errors import DataError
from vlwm.core.text import safe_text
from vlwm.core.tile_tree import Content, NotATileSet, parse_json, read_tree

_MOST_SETS = 10_000

Take = Callable[[str, Path], None]
"""fetches an address into a file"""


def fetch_tile_set(
    url: str,
    path: Path,
    take: Take,
    on_tiles: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Fetch a tile set and everything that `vlwm prepare` reads of it; return how many tiles.

    Args:
        path: of its `tileset.json`; the tiles go into that folder.

    Raises:
        DataError: it is not a tile set, or a tile leads out of the folder.
    """
    folder = path.parent.resolve()
    sets, seen, tiles = [(url, path)], {path.resolve()}, dict[Path, str]()
    while sets:
        set_url, set_path = sets.pop()
        was_there = set_path.exists()
        take(set_url, set_path)
        for content in _contents(set_path, keep=was_there):
            target = _target(content, set_path, folder)
            if target.resolve() in seen:
                continue
            seen.add(target.resolve())
            address = urljoin(set_url, content.uri)
            if content.is_set and len(seen) - len(tiles) < _MOST_SETS:
                sets.append((address, target))
            else:
                tiles[target] = address
    for done, (target, address) in enumerate(tiles.items()):
        take(address, target)
        if target.suffix == ".gltf":
            for buffer in _buffers(target):
                take(urljoin(address, buffer.uri), _target(buffer, target, folder))
        on_tiles(done + 1, len(tiles))
    return len(tiles)


def _contents(path: Path, *, keep: bool) -> list[Content]:
    """Return the contents of a tile set; what came in its place does not stay under its name."""
    try:
        return read_tree(path.read_bytes()).contents
    except NotATileSet as error:
        if not keep:
            path.unlink(missing_ok=True)
        raise DataError(
            f"not a 3D Tiles tileset: {error}",
            where=path,
            remedy=f"{'delete it and ' if keep else ''}check the address in the catalogue",
        ) from error


def _target(content: Content, path: Path, folder: Path) -> Path:
    """Return the file of a content, below the folder of the first tile set."""
    inside = content.path.lstrip("/")
    target = path.parent / inside
    try:
        is_inside = bool(inside) and target.resolve().is_relative_to(folder)
    except (OSError, ValueError):
        is_inside = False
    if not is_inside:
        raise DataError(
            f"the tile {safe_text(content.uri)!r} leads out of the folder",
            where=path,
            remedy="do not use this tileset; take another --format or --catalog",
        )
    return target


def _buffers(path: Path) -> list[Content]:
    """Return the files that a plain glTF names for its numbers."""
    try:
        buffers = parse_json(path.read_bytes()).get("buffers") or ()
        names = [b.get("uri") for b in buffers]
    except (ValueError, AttributeError, TypeError):
        return []
    return [Content(n, ()) for n in names if isinstance(n, str) and not n.startswith("data:")]
