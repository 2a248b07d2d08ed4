"""What `train` names for the dashboard: TensorBoard's address on each provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_machine import plain_machine
from vlwm.commands.shared.live import run_links
from vlwm.core.hardware.machine import Machine

RUN = Path("/mnt/my runs/one")
COMMAND = "tensorboard --logdir '/mnt/my runs/one' --port 6006"


@pytest.mark.parametrize(
    ("environ", "url", "tunnel"),
    [
        (
            {
                "VAST_CONTAINERLABEL": "C.1",
                "PUBLIC_IPADDR": "1.2.3.4",
                "VAST_TCP_PORT_6006": "40123",
            },
            "http://1.2.3.4:40123",
            None,
        ),
        (
            {"VAST_CONTAINERLABEL": "C.1", "PUBLIC_IPADDR": "1.2.3.4", "VAST_TCP_PORT_22": "40022"},
            "http://localhost:6006",
            "ssh -p 40022 -L 6006:localhost:6006 root@1.2.3.4",
        ),
        ({"RUNPOD_POD_ID": "ab12"}, "https://ab12-6006.proxy.runpod.net", None),
        (
            {"SSH_CONNECTION": "9.9.9.9 5000 1.2.3.4 22", "USER": "ubuntu"},
            "http://localhost:6006",
            "ssh -L 6006:localhost:6006 ubuntu@1.2.3.4",
        ),
    ],
)
def test_tensorboard_by_provider(
    tmp_path: Path, environ: dict[str, str], url: str, tunnel: str | None
) -> None:
    fake = plain_machine(tmp_path)
    links = run_links(RUN, Machine(fake.root, environ))
    assert links["TensorBoard"] == url
    assert links["TensorBoard: type on this machine"].startswith(COMMAND)
    assert links.get("TensorBoard: type on your own computer first") == tunnel
