"""The mount table and the space of disks.

The file system of a folder decides how much fits and what outlives the machine; the table
is the only honest witness (`/workspace` is a plain folder on one rented box and a volume on the
next).
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlwm.core.hardware.machine import Machine

_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = ("nfs", "nfs4", "ceph", "cifs", "smb3", "lustre", "gpfs", "beegfs", "glusterfs", "9p",
            "virtiofs", "fuse.juicefs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.mfs",
            "fuse.moosefs", "fuse.gcsfuse", "fuse.geesefs", "fuse.drive", "wekafs", "vastnfs",
            "afs")  # fmt: skip
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


@dataclass(frozen=True)
class Mount:
    """One line of the mount table."""

    point: str
    kind: str
    """file system type, such as ext4"""
    source: str
    """device or server"""
    read_only: bool = False
    size_bytes: int | None = None
    """limit of a file system in memory"""
    part: str = "/"
    """which folder of the file system is shown here; not `/` for a bind mount"""

    @property
    def in_memory(self) -> bool:
        """Gone when the machine stops."""
        return self.kind in _MEMORY

    @property
    def network(self) -> bool:
        """On another machine."""
        return self.kind in _NETWORK or (self.kind == "fuse" and self.source.startswith("mfs#"))

    @property
    def container_layer(self) -> bool:
        """The writable layer of a container: gone with the container."""
        return self.kind in ("overlay", "aufs", "fuse.fuse-overlayfs")


@dataclass(frozen=True)
class DiskSpace:
    """Space of the file system that holds a folder, for this user."""

    total_bytes: int
    free_bytes: int


def read_mounts(machine: Machine) -> tuple[Mount, ...]:
    """Return the mount table in the order of mounting; empty where it cannot be read."""
    text = machine.text("/proc/self/mountinfo") or ""
    return tuple(m for line in text.splitlines() if (m := _mount(line)) is not None)


def _mount(line: str) -> Mount | None:
    """Parse one line of mountinfo (proc(5)): fields, optional fields, a hyphen, three more."""
    left, hyphen, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not hyphen or len(fields) < 6 or len(rest) < 3:
        return None
    options = set(fields[5].split(","))
    size = [o for o in rest[2].split(",") if o.startswith("size=")]
    return Mount(
        point=_plain(fields[4]),
        kind=rest[0],
        source=_plain(rest[1]),
        read_only="ro" in options,
        size_bytes=_size(size[0][5:]) if size else None,
        part=_plain(fields[3]),
    )


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 8)), text)


def _size(text: str) -> int | None:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number, unit = text[:-1], units.get(text[-1:].lower())
    if unit is None:
        number, unit = text, 1
    return int(number) * unit if number.isdigit() else None


def mount_of(path: str | Path, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount of an absolute path: the longest prefix, the newest on a tie."""
    parts = PurePosixPath(path).parts
    best: Mount | None = None
    for mount in mounts:
        own = PurePosixPath(mount.point).parts
        if parts[: len(own)] == own and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def resolved(path: str | Path, machine: Machine) -> str:
    """Return an absolute path of the machine with its symbolic links followed."""
    absolute = Path(path) if Path(path).is_absolute() else Path.cwd() / path
    if machine.real:
        return os.path.realpath(absolute)
    real, root = os.path.realpath(machine.path(absolute)), os.path.realpath(machine.root)
    return "/" + os.path.relpath(real, root) if real.startswith(root) else str(absolute)


def existing_folder(path: str | Path, machine: Machine) -> Path:
    """Return `path` or its nearest parent that is there, links followed."""
    folder = machine.path(resolved(path, machine))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk_space(path: str | Path, machine: Machine) -> DiskSpace | None:
    """Return space on the disk of `path` or its nearest existing parent."""
    try:
        usage = shutil.disk_usage(existing_folder(path, machine))
    except OSError:
        return None
    return DiskSpace(usage.total, usage.free)
