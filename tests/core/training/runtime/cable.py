"""A network cable between this machine and a network namespace, which a test can cut.

Two TUN devices, one on each side, and a thread that carries packets from one to the other. After a
cut the thread drops them: both devices stay up, and no machine is told, as with a router that died.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import struct
import subprocess
import threading
from types import TracebackType

HERE, THERE = "10.77.0.1", "10.77.0.2"
_SET_INTERFACE = 0x400454CA  # TUNSETIFF
_TUN_WITHOUT_HEADER = 0x1001  # IFF_TUN | IFF_NO_PI
_MTU = 1500


def cannot_lay() -> str:
    """Return why no cable can be laid on this machine; empty where it can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and the command ip"
    name = f"vlwmtry{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "needs network namespaces (ip netns add)"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    try:
        os.close(_tun(f"vt{os.getpid()}"))
    except OSError as error:
        return f"needs TUN devices (/dev/net/tun: {error.strerror})"
    return ""


class Cable:
    """The device `here` on this machine and `there` in the namespace, with packets between them."""

    def __init__(self) -> None:
        self.namespace = f"vlwm{os.getpid()}"
        self.inside = ("ip", "netns", "exec", self.namespace)
        self.here, self.there = f"out{os.getpid()}", f"in{os.getpid()}"
        self.carried = 0
        self.dropped = 0
        self._is_cut = threading.Event()
        self._ends = threading.Event()
        self._sides: list[int] = []
        self._carrier = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Cable:
        _run("ip", "netns", "add", self.namespace)
        try:
            self._sides = [_tun(self.here), _tun(self.there)]
            _run("ip", "link", "set", self.there, "netns", self.namespace)
            _run("ip", "addr", "add", f"{HERE}/24", "dev", self.here)
            _run("ip", "link", "set", self.here, "up")
            _run(*self.inside, "ip", "addr", "add", f"{THERE}/24", "dev", self.there)
            _run(*self.inside, "ip", "link", "set", self.there, "up")
            _run(*self.inside, "ip", "link", "set", "lo", "up")
        except BaseException:
            self._take_up()
            raise
        self._carrier.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._ends.set()
        self._carrier.join()
        self._take_up()

    def drop_packets(self) -> None:
        """Lose every packet from now on; both devices stay up."""
        self._is_cut.set()

    def take_down(self) -> None:
        """Take the device in the namespace down: its side can tell, the other cannot."""
        _run(*self.inside, "ip", "link", "set", self.there, "down")

    def _carry(self) -> None:
        here, there = self._sides
        while not self._ends.is_set():
            for side in select.select(self._sides, [], [], 0.1)[0]:
                packet = os.read(side, _MTU + 100)
                if self._is_cut.is_set():
                    self.dropped += 1
                    continue
                try:
                    os.write(there if side == here else here, packet)
                    self.carried += 1
                except OSError:  # the other device is down
                    self.dropped += 1

    def _take_up(self) -> None:
        for side in self._sides:
            os.close(side)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)


def _tun(name: str) -> int:
    """Open a TUN device of this name; it lasts as long as the descriptor."""
    side = os.open("/dev/net/tun", os.O_RDWR)
    try:
        request = struct.pack("16sH22s", name.encode(), _TUN_WITHOUT_HEADER, b"")
        fcntl.ioctl(side, _SET_INTERFACE, request)
    except OSError:
        os.close(side)
        raise
    return side


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
