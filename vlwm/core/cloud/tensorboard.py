"""The address at which TensorBoard can be seen from home, for each provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vlwm.core.cloud.provider import Provider
from vlwm.core.hardware.machine import Machine

PORT = 6006


@dataclass(frozen=True)
class Board:
    """Command that starts TensorBoard, and the address to open."""

    command: str
    """what to type on the machine"""
    url: str
    """what to open at home"""
    tunnel: str | None = None
    """what to type at home first"""
    note: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return plain values for `--json`."""
        return asdict(self)


def board_of(run: str, machine: Machine, provider: Provider) -> Board:
    """Return how to show a run folder in TensorBoard.

    A provider's proxy or open port needs `--bind_all`; through an SSH tunnel it does not.
    """
    inside = f"tensorboard --logdir {run} --port {PORT}"
    values = provider.variables
    if provider.name == "runpod":
        url = f"https://{values['RUNPOD_POD_ID']}-{PORT}.proxy.runpod.net"
        note = f"expose HTTP port {PORT} in the pod's settings"
        return Board(f"{inside} --bind_all", url, note=note)
    if provider.name == "vast" and f"VAST_TCP_PORT_{PORT}" in values:
        host = values.get("PUBLIC_IPADDR", "the instance's address")
        url = f"http://{host}:{values[f'VAST_TCP_PORT_{PORT}']}"
        return Board(f"{inside} --bind_all", url)
    if provider.name in ("colab", "kaggle"):
        magic = f"%load_ext tensorboard\n%tensorboard --logdir {run}"
        return Board(magic, "in the notebook", note="type the two lines in a cell")
    return Board(inside, f"http://localhost:{PORT}", f"ssh {_ssh(machine, provider)}")


def _ssh(machine: Machine, provider: Provider) -> str:
    """Return the arguments of ssh that bring the port home."""
    values, user = provider.variables, machine.environ.get("USER") or "root"
    port = values.get("VAST_TCP_PORT_22") or values.get("RUNPOD_TCP_PORT_22")
    connection = (machine.environ.get("SSH_CONNECTION") or "").split()
    server = connection[2] if len(connection) == 4 else None
    host = values.get("PUBLIC_IPADDR") or values.get("RUNPOD_PUBLIC_IP") or server or "HOST"
    way = f"-p {port} " if port else ""
    return f"{way}-L {PORT}:localhost:{PORT} {user}@{host}"
