"""Several machines without a common disk: two torchrun agents, each with a work folder of its own.

A process is killed, stopped or cut off; the others notice, write last.pth and end with 75.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.training.runtime.cable import HERE, Cable, cannot_lay
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder

TIMEOUT_S = 6.0
MORE = ("--set", "tokenizer.samples_per_gpu=3", "--batch-size", "2", "--epochs", "60")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Nodes:
    """One agent per machine, each in a process group of its own."""

    def __init__(
        self, tiny: Any, root: Path, data: list[Path], *options: str,
        address: str = "127.0.0.1", prefixes: tuple[tuple[str, ...], ...] = (),
    ) -> None:  # fmt: skip
        port = free_port()
        self.folders = [root / f"node{node}" / "run" for node in range(len(data))]
        self.agents = []
        for node, folder in enumerate(self.folders):
            folder.parent.mkdir(parents=True, exist_ok=True)
            words = tiny.command(folder, data[node], *MORE, *options)
            words[1:1] = [
                "-m", "torch.distributed.run", f"--nnodes={len(data)}", f"--node-rank={node}",
                "--nproc-per-node=1", f"--master-addr={address}", f"--master-port={port}",
            ]  # fmt: skip
            env = {**os.environ, "OMP_NUM_THREADS": "1", "VLWM_RANK_TIMEOUT_S": f"{TIMEOUT_S:g}"}
            self.agents.append(
                subprocess.Popen(
                    [*(prefixes[node] if prefixes else ()), *words], env=env,
                    stdout=subprocess.DEVNULL, stderr=(folder.parent / "stderr").open("w"),
                )
            )  # fmt: skip

    def worker(self, node: int) -> int:
        """Process id of a node's only worker."""
        pid = self.agents[node].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def said(self, node: int) -> str:
        return (self.folders[node].parent / "stderr").read_text()

    def ended(self, node: int, timeout_s: float) -> float:
        """Wait for the end of a node; return the seconds."""
        began = time.monotonic()
        self.agents[node].wait(timeout_s)
        return time.monotonic() - began

    def close(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
            agent.wait()


@pytest.fixture
def nodes(tiny: Any, tmp_path: Path) -> Iterator[Any]:
    made = []

    def start(data: list[Path], *options: str, **more: Any) -> Nodes:
        made.append(Nodes(tiny, tmp_path, data, *options, **more))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("lost", [0, 1])
def test_the_survivor_notices_writes_and_one_process_goes_on(
    tiny: Any, nodes: Any, tmp_path: Path, tiny_data: Path, number: int, lost: int
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_data, copy)
    run = nodes([tiny_data, copy])
    tiny.wait_for(run.folders[0], "world", 3, run.agents[0])
    worker = run.worker(lost)
    os.kill(worker, number)
    took = run.ended(1 - lost, TIMEOUT_S + 40)
    if number == signal.SIGSTOP:
        os.kill(worker, signal.SIGKILL)
    run.ended(lost, 60)
    print(f"lost {lost} by {signal.Signals(number).name}: the other node ended after {took:.1f} s")
    assert run.agents[1 - lost].returncode != 0 and took < TIMEOUT_S + 20
    status = RunFolder(run.folders[1 - lost]).read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75)
    kept = load_checkpoint(run.folders[1 - lost] / "last.pth")
    assert kept["step"] >= 3 and kept["sampler"]["processes"] == 2
    # the survivor's machine goes on alone, to three more steps
    folder = run.folders[1 - lost]
    alone = tiny.process(folder, tiny_data, *MORE, "--resume")
    tiny.wait_for(folder, "world", kept["step"] + 3, alone)
    alone.send_signal(signal.SIGTERM)
    assert alone.communicate()[1] and alone.returncode == 75
    assert load_checkpoint(folder / "last.pth")["sampler"]["processes"] == 2


@pytest.mark.ci
def test_a_machine_without_a_run_folder_gets_the_checkpoint_of_the_first(
    tiny: Any, nodes: Any, tmp_path: Path, tiny_data: Path
) -> None:
    """A run of one process goes on with two machines; the second has an empty work folder."""
    copy, folder = tmp_path / "copy", tmp_path / "node0" / "run"
    shutil.copytree(tiny_data, copy)
    alone = tiny.process(folder, tiny_data, *MORE)
    tiny.wait_for(folder, "world", 3, alone)
    alone.send_signal(signal.SIGTERM)
    assert alone.communicate()[1] and alone.returncode == 75
    kept = load_checkpoint(folder / "last.pth")["step"]
    run = nodes([tiny_data, copy], "--resume")
    tiny.wait_for(folder, "world", kept + 3, run.agents[0])
    for node in range(2):
        os.kill(run.worker(node), signal.SIGTERM)
    for node in range(2):
        run.ended(node, 60)
        assert "other data" not in run.said(node) and "other settings" not in run.said(node)
    status = RunFolder(folder).read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75)
    after = load_checkpoint(folder / "last.pth")
    assert after["step"] >= kept + 3 and after["sampler"]["processes"] == 1  # as it was begun


@pytest.mark.ci
def test_other_data_on_one_machine_are_one_sentence(
    tiny: Any, nodes: Any, tmp_path: Path, tiny_data: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_data, copy)
    shutil.rmtree(sorted(p for p in copy.iterdir() if p.is_dir() and p.name[0] != ".")[0])
    run = nodes([tiny_data, copy])
    for node in range(2):
        run.ended(node, 90)
    for node in range(2):
        assert run.said(node).count("process 1 read other data than the first one") == 1
    assert not RunFolder(run.folders[0]).holds_a_run()


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable to a network namespace, the second machine."""
    reason = cannot_lay()
    if reason:
        pytest.skip(reason)
    with Cable() as laid:
        yield laid


@pytest.mark.ci
@pytest.mark.parametrize("cut", [Cable.drop_packets, Cable.take_down], ids=["dropped", "down"])
def test_a_cut_network_is_noticed_on_both_sides(
    tiny: Any, nodes: Any, tmp_path: Path, tiny_data: Path, cable: Cable, cut: Any
) -> None:
    prefixes = (
        ("env", f"GLOO_SOCKET_IFNAME={cable.here}"),
        (*cable.inside, "env", f"GLOO_SOCKET_IFNAME={cable.there}"),
    )
    run = nodes([tiny_data, tiny_data], address=HERE, prefixes=prefixes)
    tiny.wait_for(run.folders[0], "world", 3, run.agents[0])
    cut(cable)
    began = time.monotonic()
    for node in range(2):
        run.ended(node, TIMEOUT_S + 60)
        took = time.monotonic() - began
        print(f"node {node} ended within {took:.1f} s of the cut, load {os.getloadavg()[0]:.1f}")
        status = RunFolder(run.folders[node]).read_status()
        assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75)
        assert load_checkpoint(run.folders[node] / "last.pth")["step"] >= 3
    assert cable.carried > 100 and cable.dropped > 0
