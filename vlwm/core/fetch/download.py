"""Download chosen entries: plain files, trees of 3D Tiles, and files of the Hub.

The Hub goes through huggingface-hub (`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` as it documents them).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vlwm.core.errors import DataError, MachineError
from vlwm.core.fetch.answers import stated_length, without_secrets
from vlwm.core.fetch.archive import extract
from vlwm.core.fetch.catalogue import Entry
from vlwm.core.fetch.content import is_whole, proves_itself
from vlwm.core.fetch.tile_set import fetch_tile_set
from vlwm.core.fetch.transfer import Policy, Transfer
from vlwm.core.files import atomic_path, free_bytes, make_folder, read_json, write_json
from vlwm.core.text import safe_text

OnProgress = Callable[[Entry, int, "int | None"], None]


@dataclass(frozen=True)
class Fetched:
    """The result of one entry."""

    entry: Entry
    path: Path
    bytes: int
    was_there: bool
    extracted: int = 0


@dataclass
class Download:
    """Downloads entries into a data folder.

    Args:
        only: glob patterns over the members of archives that are unpacked, and over Hub files.
        notice: gets a sentence for each failed try that is followed by another.
    """

    data_dir: Path
    policy: Policy = field(default_factory=Policy)
    progress: OnProgress = lambda entry, done, total: None
    only: Sequence[str] = ("*",)
    notice: Callable[[str], None] = lambda text: None

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
        """Return whether the entry is in the data folder, whole, and unpacked where it is to be."""
        path = entry.path(self.data_dir)
        if entry.extract and self._marker(entry).exists():
            return True
        if entry.url is None or _is_tree(entry):
            return self._marker(entry).exists()
        if path.is_file() and _size_in(self._marker(entry)) == path.stat().st_size:
            return True
        return is_whole(path, entry.bytes, entry.about_bytes)

    def fetch(self, entry: Entry) -> Fetched:
        """Download one entry, and unpack it where the catalogue asks for it.

        Raises:
            DataError: it cannot be downloaded, or is not what the catalogue describes.
            MachineError: the disk has no room.
        """
        path = entry.path(self.data_dir)
        if self.is_there(entry) and self._agrees(entry, path):
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
            self._file(entry, entry.url, path, entry.bytes, entry.sha256, again=path.is_file())
            if not _is_sure(entry, path):
                write_json(self._marker(entry), {"bytes": path.stat().st_size})
        return Fetched(entry, path, _bytes_of(path), False, self._unpack(entry, path))

    def _agrees(self, entry: Entry, path: Path) -> bool:
        """Compare a file that proves nothing by itself with the length that the server states."""
        sure = _is_sure(entry, path) or self._marker(entry).exists() or path.is_dir()
        if sure or not (entry.url or "").startswith("http"):
            return True
        stated = stated_length(str(entry.url), self.policy.connect_s)
        return stated is None or stated == path.stat().st_size

    def _file(
        self,
        entry: Entry,
        url: str,
        path: Path,
        size: int | None,
        sha256: str | None,
        *,
        again: bool = False,
    ) -> None:
        alone = url == entry.url
        Transfer(
            url,
            path,
            size=size,
            sha256=sha256,
            about=entry.about_bytes if alone else None,
            again=again,
            policy=self.policy,
            notice=self.notice,
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
        """Unpack a file that the operator has, or copy it into the data folder."""
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
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            lines = without_secrets(str(error)).strip().splitlines()
            reason = safe_text(lines[0]) if lines else "no answer"
            raise DataError(
                f"could not download {repo['repo_id']} from Hugging Face: {reason}",
                where=entry.name,
                remedy="check the network; where a login is asked for, set HF_TOKEN and accept "
                "the data set's terms on its page; then run the same command again",
            ) from error


def _by_hand(entry: Entry) -> DataError:
    how = entry.how or "see its publisher's page, then give --links FILE"
    return DataError(f"{entry.name} requires registration", remedy=how)


def _is_sure(entry: Entry, path: Path) -> bool:
    """Return whether size, hash or the file itself shows that it is whole."""
    return entry.bytes is not None or proves_itself(path, path.name)


def _size_in(marker: Path) -> int | None:
    """Return the size that was noted when a file was downloaded."""
    try:
        value = read_json(marker)
    except DataError:
        return None
    size = value.get("bytes") if isinstance(value, dict) else None
    return size if isinstance(size, int) else None


def _is_tree(entry: Entry) -> bool:
    url = entry.url or ""
    hub_folder = url.startswith("hf://") and url.count("/") < 5
    return hub_folder or entry.file.endswith("tileset.json")


def _bytes_of(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else 0


def to_json(fetched: Fetched) -> dict[str, Any]:
    """Return one result as plain values for `--json`."""
    values = {
        "name": fetched.entry.name,
        "path": str(fetched.path),
        "bytes": fetched.bytes,
        "was_there": fetched.was_there,
        "extracted": fetched.extracted,
    }
    return json.loads(json.dumps(values))
