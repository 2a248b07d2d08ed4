"""Start one process per GPU with torch's launcher, for `--gpu-ids 0,1`.

The launcher runs in a session of its own. A signal is passed on once, and a second one ends all
processes. The launcher's exit code shows only that some process failed, so this one returns the
exit code that the run wrote into status.json.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from vlwm.core.errors import DataError, MachineError
from vlwm.core.run_folder import RunFolder
from vlwm.core.signals import kill_tree
from vlwm.core.training.runtime.stop_signal import LAUNCHED, StopSignal


def usable_gpus(count: int) -> str:
    """Return which GPUs this machine has, for the sentence that refuses one."""
    if count == 0:
        return "this machine has no usable GPU"
    return "only GPU 0 is usable" if count == 1 else f"GPUs 0 to {count - 1} are usable"


def refuse_missing_gpus(gpus: Sequence[int]) -> None:
    """Check that every GPU that was asked for exists.

    Raises:
        MachineError: one does not.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    missing = [gpu for gpu in gpus if gpu >= count]
    if missing:
        raise MachineError(
            f"GPU {missing[0]} not found: {usable_gpus(count)}",
            remedy="vlwm setup shows them; leave --gpu-ids out for the first one or the CPU",
        )


def launch(
    arguments: Sequence[str], processes: int, folder: RunFolder, environment: dict[str, str]
) -> int:
    """Run `vlwm` with `arguments` in several processes; return the exit code of the run.

    Args:
        arguments: of the command line, from "train" on.
        processes: how many.
        folder: the run folder; its status has the exit code.
        environment: variables to set, such as CUDA_VISIBLE_DEVICES.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", "-m", "vlwm", *arguments,
    ]  # fmt: skip
    started = time.time()
    own = {**os.environ, **environment, LAUNCHED: "1"}
    with StopSignal() as stop:
        # its own session: a Ctrl-C of the terminal reaches it once, through us
        child = subprocess.Popen(command, env=own, start_new_session=True)
        # a second signal ends the launcher and everything below it
        stop.last_act = lambda code: kill_tree(child.pid)
        passed_on = False
        while child.poll() is None:
            if stop.received is not None and not passed_on:
                child.send_signal(
                    signal.SIGINT if stop.received == signal.SIGINT else signal.SIGTERM
                )
                passed_on = True
            time.sleep(0.1)
    return 0 if child.returncode == 0 else _exit_code(folder, started)


def _exit_code(folder: RunFolder, started: float) -> int:
    """Return the exit code that the run wrote into its status since `started`, else 1."""
    try:
        status = folder.read_status() or {}
    except DataError:
        return 1
    code = status.get("exit_code")
    # an older status is of an earlier run in this folder
    return int(code) if code and status.get("heartbeat", 0.0) >= started else 1
