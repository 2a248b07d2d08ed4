"""Look at what came before it gets its name: a page instead of a file, half an archive.

Without a hash in the catalogue this is the only proof that a file is the one that was asked for.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

_GZIP = b"\x1f\x8b"
_TILE = (b"b3dm", b"i3dm", b"pnts", b"cmpt", b"glTF")
_TILES = (".b3dm", ".i3dm", ".pnts", ".cmpt", ".glb")
_MAGIC: dict[str, tuple[bytes, ...]] = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".npz": (b"PK\x03\x04", b"PK\x05\x06"),
    ".npy": (b"\x93NUMPY",),
    ".tgz": (_GZIP,),
    ".gz": (_GZIP,),
    ".7z": (b"7z\xbc\xaf\x27\x1c",),
    ".pth": (b"PK\x03\x04", b"\x80"),
    ".pt": (b"PK\x03\x04", b"\x80"),
    ".bag": (b"#ROSBAG V",),
    ".db3": (b"SQLite format 3\0",),
    ".mcap": (b"\x89MCAP",),
    ".h5": (b"\x89HDF",),
    ".hdf5": (b"\x89HDF",),
    ".png": (b"\x89PNG",),
    **dict.fromkeys(_TILES, (*_TILE, _GZIP)),  # some servers keep their tiles packed
}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_PAGE = re.compile(
    rb"\s*(<\?xml[^>]*\?>|<!--.*?-->|\s)*<(!doctype\s+html|html|head|body|script)\b", re.S
)
_ROOT = re.compile(rb"\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>|\s)*<([\w.:-]+)", re.S)
_LOOKED_AT = 4096
_TAR_BLOCK = 512
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ABOUT = 2.0
"""a file may be this many times smaller or larger than the approximate size in a catalogue"""


def is_page(head: bytes, suffix: str, content_type: str = "") -> bool:
    """Return whether the beginning of a file is a web page where none was asked for.

    Args:
        head: the first bytes; a byte-order mark and comments may come before the page.
        suffix: of the file's name, with its dot.
        content_type: of the answer's header.
    """
    if suffix in (".html", ".htm"):
        return False
    text = head[:_LOOKED_AT].lower()
    for bom in _BOMS:
        text = text.removeprefix(bom)
    text = text.replace(b"\0", b"")  # UTF-16
    if _PAGE.match(text) is not None:
        return True
    return content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def is_wrong_kind(head: bytes, suffix: str) -> bool:
    """Return whether a file's first bytes contradict its name.

    Formats of text have no first bytes of their own; what servers send in place of a file, a
    message in JSON or XML, is told from them all the same.
    """
    if not head:
        return False
    text = head.removeprefix(_BOMS[0]).lstrip()[:1]
    if suffix in (".gml", ".xml"):
        return text in (b"{", b"[") or _root_of(head) == b"Error"
    if suffix == ".obj":
        return text in (b"{", b"[", b"<")
    magic = _MAGIC.get(suffix)
    return magic is not None and not any(head.startswith(m[: len(head)]) for m in magic)


def proves_itself(path: Path, name: str) -> bool:
    """Return whether a file shows by itself that it is whole: `damage` finds any end cut off.

    Args:
        path: the file under any name.
        name: the name it is to have.
    """
    name = name.lower()
    if name.endswith((".zip", ".npz", ".tgz", ".gz", ".tar", ".json", ".gltf", *_TILES)):
        return True
    with open(path, "rb") as file:
        head = file.read(_LOOKED_AT)
    if name.endswith((".pth", ".pt")):
        return head[:2] == b"PK"  # the old format of torch.save has no end
    return name.endswith((".gml", ".xml")) and _root_of(head) is not None


def damage(path: Path, name: str) -> str | None:
    """Return why a file is not whole, in words; None where nothing is wrong with it.

    Args:
        path: the file under any name.
        name: the name it is to have.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
        if not head:
            return "it is empty"
        suffix = Path(name).suffix.lower()
        if is_page(head, suffix):
            return "it is a web page"
        if is_wrong_kind(head, suffix):
            return f"it is not a {suffix} file"
        return _damage_inside(path, name.lower(), head)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError,
            NotImplementedError, RecursionError, gzip.BadGzipFile) as error:  # fmt: skip
        return f"it is damaged or cut short ({type(error).__name__})"


def _damage_inside(path: Path, name: str, head: bytes) -> str | None:
    if name.endswith((".zip", ".npz")) or (name.endswith((".pth", ".pt")) and head[:2] == b"PK"):
        return _damage_of_zip(path)
    if name.endswith((".pth", ".pt")):
        return None if head.startswith(_TORCH_LEGACY) else "it is not a file of torch.save"
    if name.endswith(".tar"):
        return _damage_of_tar(path)
    if name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(path) as opened:
            opened.next()
    if name.endswith((".tgz", ".gz")) or head.startswith(_GZIP):
        with gzip.open(path) as unpacked:  # its last bytes are a checksum
            while unpacked.read(1 << 20):
                pass
    elif name.endswith(_TILES):  # bytes 8 to 12 of every format of tiles: its length
        size = path.stat().st_size
        if len(head) < 12 or size < int.from_bytes(head[8:12], "little"):
            return "it is cut short"
    elif name.endswith((".gml", ".xml")):
        return _damage_of_xml(path, head)
    if name.endswith((".json", ".gltf")):
        json.loads(path.read_bytes())
    return None


def _damage_of_tar(path: Path) -> str | None:
    """Walk the members up to the empty block that ends every archive."""
    with tarfile.open(path) as opened, open(path, "rb") as file:
        while opened.next() is not None:
            opened.members = []  # type: ignore[attr-defined]  # not kept: there may be millions
        file.seek(opened.offset)
        return None if file.read(_TAR_BLOCK) == bytes(_TAR_BLOCK) else "it is cut short"


def _root_of(head: bytes) -> bytes | None:
    """Return the name of the first element of an XML file; None in encodings other than ASCII's."""
    root = _ROOT.match(head.removeprefix(_BOMS[0]))
    return None if root is None else root[1]


def _damage_of_xml(path: Path, head: bytes) -> str | None:
    """Look for the end of the first element; encodings that are not of bytes are left alone."""
    root = _root_of(head)
    if root is None:
        return None
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _LOOKED_AT))
        tail = file.read()
    ends = rb"</%s\s*>\s*(<!--.*?-->\s*|\0)*\Z" % re.escape(root)
    return None if re.search(ends, tail, re.S) else "it is cut short"


def _damage_of_zip(path: Path) -> str | None:
    """Open the directory at the end of a zip, and compare it with the length of the file."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            if info.header_offset + info.compress_size > size:
                return f"its member {info.filename[:80]!r} ends beyond the file"
    return None


def is_whole(path: Path, size: int | None = None, about: int | None = None) -> bool:
    """Return whether a file is whole, by its size where that is known, else by its content."""
    if not path.is_file():
        return False
    if size is not None:
        return path.stat().st_size == size
    if about is not None and not is_about(path.stat().st_size, about):
        return False
    return damage(path, path.name) is None


def is_about(size: int, about: int) -> bool:
    """Return True if a size is within a factor of the one that the catalogue estimates."""
    return about / _ABOUT <= size <= about * _ABOUT
