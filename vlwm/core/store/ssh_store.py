"""Objects in a folder of another machine, by ssh and rsync; nothing is installed there.

    ssh://[USER@]HOST[:PORT]/FOLDER

Keys, known hosts and jump hosts come from the usual files of ssh; it never asks for a password.
A file is sent by rsync under a temporary name and then renamed, so it appears whole.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vlwm.core.errors import MachineError, UsageError
from vlwm.core.files import atomic_path, sha256_file
from vlwm.core.store.object_store import Entry, ObjectStore, gone

_TRIES = 4
_FIRST_WAIT_S = 1.0
_CONNECT_S = 15
_SILENT_S = 300
"""seconds without a byte after which rsync counts as cut"""
_LOST = 255
"""exit code of ssh where the connection failed; others are of the command"""
_MISSING = 44
"""exit code of our commands where there is no such object"""


class SshStore(ObjectStore):
    """Objects as files of a folder that ssh reaches.

    Args:
        url: `ssh://[USER@]HOST[:PORT]/FOLDER`.
        sleep: waits between tries; a test replaces it.

    Raises:
        UsageError: the URL has no host or folder, or ssh or rsync is not installed here.
    """

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        folder = unquote(parts.path).rstrip("/")
        host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
        # a host that begins with a dash would be an option of ssh
        if not parts.hostname or not folder or host.startswith("-") or port == -1:
            raise UsageError(
                f"{url} is not the address of a folder on another machine",
                remedy="write ssh://USER@HOST/FOLDER or ssh://USER@HOST:PORT/FOLDER",
            )
        missing = [name for name in ("ssh", "rsync") if shutil.which(name) is None]
        if missing:
            raise UsageError(
                f"ssh:// needs {' and '.join(missing)} on this machine",
                remedy=f"apt-get install {' '.join(missing)}".replace(" ssh", " openssh-client"),
            )
        self.url, self._host, self._folder, self._sleep = url, host, folder, sleep
        self._ssh = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}"]
        self._ssh += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        self._ssh += [] if port is None else ["-p", str(port)]

    def list(self) -> dict[str, Entry]:
        text = self._asked(
            f"cd {shlex.quote(self._folder)} 2>/dev/null || exit {_MISSING}; "
            "find . -maxdepth 1 -type f ! -name '.*' -exec stat -c '%s %Y %n' {} +"
        )
        found = {}
        for line in (text or b"").decode("utf-8", "replace").splitlines():
            size, modified, name = line.split(" ", 2)
            found[name.removeprefix("./")] = Entry(int(size), float(modified))
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes | None:
        path = self._path(name)
        return self._asked(f"test -f {path} || exit {_MISSING}; cat {path}")

    def write(self, name: str, data: bytes) -> None:
        self._asked(
            f"mkdir -p {shlex.quote(self._folder)} && cat > {self._path(_temporary(name))} "
            f"&& mv {self._path(_temporary(name))} {self._path(name)}",
            data,
        )

    def delete(self, name: str) -> None:
        self._asked(f"rm -f {self._path(name)}")

    def write_file(self, name: str, path: Path) -> None:
        self._asked(f"mkdir -p {shlex.quote(self._folder)}")
        self._rsync(str(path), self._remote(_temporary(name)))
        self._asked(f"mv {self._path(_temporary(name))} {self._path(name)}")

    def read_file(self, name: str, path: Path) -> str:
        if self._asked(f"test -f {self._path(name)} || exit {_MISSING}") is None:
            raise gone(self.place(name))
        with atomic_path(path) as temporary:
            self._rsync(self._remote(name), str(temporary))
        return sha256_file(path)

    def sha256(self, name: str) -> str | None:
        path = self._path(name)
        text = self._asked(f"test -f {path} || exit {_MISSING}; sha256sum < {path}")
        return None if text is None else text.split()[0].decode()

    def _path(self, name: str) -> str:
        """Return an object's path as a word of the other machine's shell."""
        return shlex.quote(f"{self._folder}/{name}")

    def _remote(self, name: str) -> str:
        return f"{self._host}:{self._folder}/{name}"

    def _asked(self, command: str, data: bytes | None = None) -> bytes | None:
        """Return what a command prints on the other machine; None for a missing object.

        Raises:
            MachineError: the machine is not reached after some tries, or the command fails.
        """
        done = self._retried([*self._ssh, self._host, command], data)
        if done.returncode == _MISSING:
            return None
        if done.returncode:
            raise self._refused(done)
        return done.stdout

    def _rsync(self, source: str, target: str) -> None:
        """Send or fetch one file.

        Raises:
            MachineError: it does not arrive after some tries.
        """
        # --secluded-args keeps the other shell from reading spaces and the like in names
        command = ["rsync", "-tL", "--inplace", "--secluded-args", f"--timeout={_SILENT_S}"]
        command += ["-e", shlex.join(self._ssh), "--", source, target]
        done = self._retried(command, None, every_fault=True)
        if done.returncode:
            raise self._refused(done)

    def _retried(
        self, command: Sequence[str], data: bytes | None, *, every_fault: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command, again after a lost connection; `every_fault`: after any fault."""
        wait_s = _FIRST_WAIT_S
        for remaining in reversed(range(_TRIES)):
            # without data nothing may read the terminal
            stdin = None if data is not None else subprocess.DEVNULL
            done = subprocess.run(
                command, input=data, stdin=stdin, capture_output=True, check=False
            )
            again = done.returncode == _LOST or (every_fault and done.returncode != 0)
            if not again or not remaining:
                return done
            self._sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns")

    def _refused(self, done: subprocess.CompletedProcess[bytes]) -> MachineError:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no answer")
        return MachineError(
            f"the other machine does not do it: {reason[:160]}",
            where=self.url,
            remedy=f"try ssh {self._host} true; its key has to work without a password",
        )


def _temporary(name: str) -> str:
    return f".{name}.tmp"
