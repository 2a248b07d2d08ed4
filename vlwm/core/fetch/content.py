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

_MAGIC: dict[str, tuple[bytes, ...]] = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".tgz": (b"\x1f\x8b",),
    ".gz": (b"\x1f\x8b",),
    ".pth": (b"PK\x03\x04", b"\x80"),
    ".pt": (b"PK\x03\x04", b"\x80"),
}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_PAGE = re.compile(
    rb"\s*(<\?xml[^>]*\?>|<!--.*?-->|\s)*<(!doctype\s+html|html|head|body|script)\b", re.S
)
_LOOKED_AT = 4096
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
    """Return whether a file's first bytes contradict its name."""
    magic = _MAGIC.get(suffix)
    if magic is None or not head:
        return False
    return not any(head.startswith(m[: len(head)]) for m in magic)


def proves_itself(name: str) -> bool:
    """Return whether a file of this name shows by itself that it is whole."""
    return name.endswith((".zip", ".tgz", ".gz", ".tar", ".pth", ".pt", ".json"))


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
    if name.endswith(".zip") or (name.endswith((".pth", ".pt")) and head.startswith(b"PK")):
        return _damage_of_zip(path)
    if name.endswith((".pth", ".pt")):
        return None if head.startswith(_TORCH_LEGACY) else "it is not a file of torch.save"
    if name.endswith((".tgz", ".tar.gz", ".tar")):
        with tarfile.open(path) as opened:
            opened.next()
    if name.endswith((".tgz", ".gz")):
        with gzip.open(path) as unpacked:  # its last bytes are a checksum
            while unpacked.read(1 << 20):
                pass
    if name.endswith(".json"):
        json.loads(path.read_bytes())
    return None


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
