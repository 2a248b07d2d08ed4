"""Read what a registration form gave: an archive, or a text file with one address per line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vlwm.core.errors import DataError, UsageError
from vlwm.core.fetch.catalogue import Entry, file_name, is_address
from vlwm.core.files import read_text
from vlwm.core.text import safe_text

PACKED = (".zip", ".tgz", ".tar.gz", ".tar")


def entries_of_links(entry: Entry, links: Path) -> list[Entry]:
    """Return entries for an archive, or for a list of addresses and files, one a line.

    Files are looked for in the folder of the list.

    Raises:
        UsageError: the list names nothing.
        DataError: the list or a file that it names cannot be read.
    """
    if links.name.endswith(PACKED):
        return [_linked(entry, _local(links, links, links.name), links)]
    lines = read_text(links).removeprefix("\ufeff").splitlines()
    named = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not named:
        raise UsageError("the link list is empty", where=links, remedy="put one URL per line")
    return [_linked(entry, _address(text, links), links) for text in named]


def _address(text: str, links: Path) -> str:
    """Return a line of the list as an address."""
    if text.startswith(("http://", "https://")):
        if not is_address(text):
            raise _neither(text, links)
        return text
    return _local(links.parent / text, links, text)


def _local(path: Path, links: Path, text: str) -> str:
    try:
        found = path.is_file()
    except (OSError, ValueError):  # too long, or a NUL
        found = False
    if not found:
        raise _neither(text, links)
    return path.resolve().as_uri()


def _neither(text: str, links: Path) -> DataError:
    return DataError(
        f'"{safe_text(text, 80)}" is neither a URL nor a file',
        where=links,
        remedy="put one URL (http or https) or one file name per line",
    )


def _linked(entry: Entry, url: str, links: Path) -> Entry:
    name = file_name(url)
    if name is None:
        raise DataError(
            f"no file name ends the address {safe_text(url.split('?')[0], 100)}",
            where=links,
            remedy="give the address of one file, such as https://host/part1.zip",
        )
    folder = entry.extract or entry.file
    return replace(
        entry,
        name=name,
        url=url,
        file=f"{folder}/{name}",
        extract=_unpacked(entry, name, folder) if name.endswith(PACKED) else None,
    )


def _unpacked(entry: Entry, name: str, folder: str) -> str:
    """Return where an archive is unpacked: parts of one tree together, others on their own."""
    return folder if entry.together else f"{folder}/{name.split('.')[0]}"
