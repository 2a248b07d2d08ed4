"""Fetch chosen entries: plain files, trees of 3D Tiles, and files of the Hub.

The Hub goes through huggingface-hub (`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` as it documents them).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.fetch.archive import extract
from vlwm.core.fetch.catalogue import Entry
from vlwm.core.fetch.tile_set import fetch_tile_set
from vlwm.core.fetch.transfer import Policy, Transfer, without_secrets
from vlwm.core.files import atomic_path, free_bytes, make_folder, write_json

_PACKED = (".zip", ".tgz", ".tar.gz", ".tar")

OnProgress = Callable[[Entry, int, "int | None"], None]


@dataclass(frozen=True)
class Fetched:
    """What became of one entry."""

    entry: Entry
    path: Path
    bytes: int
    was_there: bool
    extracted: int = 0


@dataclass
class Download:
    """Fetches entries into a data folder.

    Args:
        only: glob patterns over the members of archives that are unpacked, and over Hub files.
    """

    data_dir: Path
    policy: Policy = field(default_factory=Policy)
    progress: OnProgress = lambda entry, done, total: None
    only: Sequence[str] = ("*",)

    def check_room(self, entries: Sequence[Entry]) -> None:
        """Refuse before the first byte where the disk cannot hold what is known to come.

        Raises:
            MachineError: the folder's own disk has too little room.
        """
        missing = [e for e in entries if not self.is_there(e)]
        need = sum((e.size or 0) * (2 if e.extract else 1) for e in missing)
        free = free_bytes(self.data_dir)
        if need > free:
            raise MachineError(
                f"about {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
                where=self.data_dir,
                remedy="give a folder on another disk with --data-dir, or fetch less",
            )

    def is_there(self, entry: Entry) -> bool:
        """Whether the entry lies in the data folder, whole and unpacked where it is to be."""
        path = entry.path(self.data_dir)
        if entry.extract and self._marker(entry).exists():
            return True
        if entry.url is None or _is_tree(entry):
            return self._marker(entry).exists()
        return path.is_file() and entry.bytes in (None, path.stat().st_size)

    def fetch(self, entry: Entry) -> Fetched:
        """Fetch one entry, unpack it where the catalogue says so.

        Raises:
            DataError: it cannot be had, or is not what the catalogue says.
            MachineError: the disk has no room.
        """
        path = entry.path(self.data_dir)
        if self.is_there(entry):
            return Fetched(entry, path, _bytes_of(path), True)
        if entry.url is None:
            raise _by_hand(entry)
        if entry.url.startswith("file://"):
            path = Path(unquote(urlsplit(entry.url).path))
            return Fetched(entry, path, _bytes_of(path), False, self._take(entry, path))
        if entry.url.startswith("hf://"):
            self._from_hub(entry, path)
        elif path.name == "tileset.json":
            self._tiles(entry, path)
        else:
            self._file(entry, entry.url, path, entry.bytes, entry.sha256)
        return Fetched(entry, path, _bytes_of(path), False, self._unpack(entry, path))

    def _file(
        self, entry: Entry, url: str, path: Path, size: int | None, sha256: str | None
    ) -> None:
        Transfer(
            url,
            path,
            size=size,
            sha256=sha256,
            policy=self.policy,
            progress=lambda done, total: self.progress(entry, done, total or entry.size),
        ).run()

    def _marker(self, entry: Entry) -> Path:
        path = entry.path(self.data_dir)
        return path.with_name(f".{path.name}.done.json")

    def _unpack(self, entry: Entry, path: Path) -> int:
        if entry.extract is None:
            return 0
        files = extract(path, self.data_dir / entry.extract, only=self.only)
        if tuple(self.only) == ("*",):
            write_json(self._marker(entry), {"files": len(files), "bytes": path.stat().st_size})
        return len(files)

    def _take(self, entry: Entry, path: Path) -> int:
        """A file that the operator has: unpacked where it lies, or copied into the data folder."""
        make_folder(entry.path(self.data_dir).parent)
        if entry.extract is not None:
            return self._unpack(entry, path)
        with atomic_path(entry.path(self.data_dir)) as temporary:
            shutil.copyfile(path, temporary)
        return 0

    def _tiles(self, entry: Entry, path: Path) -> None:
        """Fetch a 3D Tiles tree: the tile set, and the content of its finest tiles."""
        assert entry.url is not None
        count = fetch_tile_set(
            entry.url,
            path,
            lambda url, target: self._file(entry, url, target, None, None),
            lambda done, total: self.progress(entry, done, total),
        )
        write_json(self._marker(entry), {"tiles": count})

    def _from_hub(self, entry: Entry, path: Path) -> None:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        assert entry.url is not None
        kind, owner, name, *inside = entry.url.removeprefix("hf://").split("/")
        repo: dict[str, Any] = {"repo_id": f"{owner}/{name}", "repo_type": kind.removesuffix("s")}
        try:
            if inside:
                make_folder(path.parent)
                name = "/".join(inside)
                got = hf_hub_download(**repo, filename=name, local_dir=path.parent)
                os.replace(got, path)
            else:
                snapshot_download(**repo, local_dir=path, allow_patterns=list(self.only))
                write_json(self._marker(entry), {"only": list(self.only)})
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            told = without_secrets(str(error)).strip()
            reason = told.splitlines()[0] if told else "no answer"
            raise DataError(
                f"the Hub does not give {repo['repo_id']}: {reason}",
                where=entry.name,
                remedy="check the network; where a login is asked for, set HF_TOKEN and accept "
                "the data set's terms on its page; then run the same command again",
            ) from error


def entries_of_links(entry: Entry, links: Path) -> list[Entry]:
    """Entries for what a form gave: an archive, or a list of addresses and files, one a line.

    Files are looked for beside the list.

    Raises:
        UsageError: the list names nothing.
        DataError: the list or a file that it names cannot be read.
    """
    if links.name.endswith(_PACKED):
        return [_linked(entry, _local(links, links))]
    try:
        lines = links.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the list of links cannot be read: {error}",
            where=links,
            remedy="give the text file with one address a line, or the archive itself",
        ) from error
    named = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not named:
        raise UsageError("no address in the list of links", where=links, remedy="one a line")
    return [_linked(entry, _address(text, links)) for text in named]


def _address(text: str, links: Path) -> str:
    """A line of the list as an address."""
    if text.startswith(("http://", "https://")):
        return text
    return _local(links.parent / text, links)


def _local(path: Path, links: Path) -> str:
    if not path.is_file():
        raise DataError(
            f"{path.name} is neither an address nor a file",
            where=links,
            remedy="one address that begins with http, or one file, a line",
        )
    return path.resolve().as_uri()


def _linked(entry: Entry, url: str) -> Entry:
    name = unquote(urlsplit(url).path).rpartition("/")[2] or "download"
    folder = entry.extract or entry.file
    return replace(
        entry,
        name=name,
        url=url,
        file=f"{folder}/{name}",
        extract=_unpacked(entry, name, folder) if name.endswith(_PACKED) else None,
    )


def _unpacked(entry: Entry, name: str, folder: str) -> str:
    """Parts of one tree go into one folder; independent archives each into their own."""
    return folder if entry.together else f"{folder}/{name.split('.')[0]}"


def _by_hand(entry: Entry) -> DataError:
    return DataError(f"{entry.name} stands behind a form", remedy=entry.how)


def _is_tree(entry: Entry) -> bool:
    url = entry.url or ""
    hub_folder = url.startswith("hf://") and url.count("/") < 5
    return hub_folder or entry.file.endswith("tileset.json")


def _bytes_of(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else 0


def to_json(fetched: Fetched) -> dict[str, Any]:
    """One result as plain values for `--json`."""
    values = {
        "name": fetched.entry.name,
        "path": str(fetched.path),
        "bytes": fetched.bytes,
        "was_there": fetched.was_there,
        "extracted": fetched.extracted,
    }
    return json.loads(json.dumps(values))
