"""Diagnose a run for the person who watches: its state, warnings, and the command to type next."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from vlwm.core.monitoring.formatting import Glyphs
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.run_status import HealthSign
from vlwm.core.text import span
from vlwm.core.vocabulary import Phase, Stage

STAGE_WORDS: dict[str, str] = {Stage.TOKENIZER: "tokenizer", Stage.WORLD: "world model"}
PHASE_WORDS: dict[str, str] = {
    Phase.START: "starting",
    Phase.PREPARE: "preparing data",
    Phase.PROBE: "trying the batch size",
    Phase.COMPILE: "compiling",
    Phase.PRIOR: "counting the column prior",
    Phase.MOTION: "warm-up 1 of 2: motion model",
    Phase.FUSION: "warm-up 2 of 2: frame fusion",
    Phase.COMPLETION: "warm-up: completion of the unseen",
    Phase.TOKENIZER: "training",
    Phase.WORLD: "training",
    Phase.VALIDATE: "validating",
    Phase.SAVE: "saving",
    Phase.EVAL: "scoring on the test split",
    Phase.DONE: "done",
}


@dataclass(frozen=True)
class StateSign:
    """State as a mark, a word and a colour."""

    mark: str
    word: str
    colour: str


def state_of(snapshot: Snapshot, glyphs: Glyphs) -> StateSign:
    """Return the run's state as the header shows it."""
    code = snapshot.status.exit_code
    failed = "failed" if code is None else f"failed, exit {code}"
    if snapshot.liveness == "ended":
        return {
            "done": StateSign(glyphs.good, "done", "green"),
            "stopped": StateSign(glyphs.pause, "stopped, resumable", "yellow"),
        }.get(snapshot.status.state, StateSign(glyphs.bad, failed, "red"))
    return {
        "alive": StateSign(glyphs.live, "running", "green"),
        "stalled": StateSign(glyphs.warn, "stalled", "yellow"),
        "silent": StateSign(glyphs.warn, "silent", "yellow"),
        "gone": StateSign(glyphs.bad, "process gone", "red"),
    }.get(snapshot.liveness, StateSign(glyphs.wait, "waiting", "cyan"))


def worries(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    """Return the run's own health signs and what can only be seen from outside."""
    return (
        *_of_the_process(snapshot),
        *snapshot.status.health,
        *_of_the_machine(snapshot),
        *_of_the_files(snapshot),
    )


def _of_the_process(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    age = span(snapshot.heartbeat_age_s)
    resume = _anywhere(snapshot) or "run the same command again with --resume"
    if snapshot.liveness == "stalled":
        message = f"no heartbeat for {age}, the process is still there"
        remedy = f"look at the end of {_log_of(snapshot)}; if it hangs, stop it and resume"
        return (HealthSign("stalled", "warn", message, remedy),)
    if snapshot.liveness == "silent":
        message = f"no heartbeat for {age} from {snapshot.status.host}"
        return (HealthSign("silent", "warn", message, "look at that machine; else resume here"),)
    if snapshot.liveness == "gone":
        message = f"process {snapshot.status.pid} died {age} ago (killed or crashed)"
        return (HealthSign("gone", "fail", message, resume),)
    if snapshot.status.state == "failed":
        remedy = f"read the last lines of {_log_of(snapshot)}"
        return (HealthSign("failed", "fail", "the run failed", remedy),)
    return ()


def _log_of(snapshot: Snapshot) -> str:
    return shlex.quote(str(snapshot.path.absolute())) + "/train_*.log"


def _of_the_machine(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    if snapshot.machine is None or snapshot.elsewhere:
        return ()
    remedy = "look for Xid in dmesg; if the run hangs, stop it and resume on another machine"
    return tuple(
        HealthSign("gpu_lost", "fail", f"{name} does not answer any more", remedy)
        for name in snapshot.machine.lost_gpus
    )


def _of_the_files(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    return tuple(HealthSign("files", "warn", note, "") for note in snapshot.notes)


def next_step(snapshot: Snapshot) -> str | None:
    """Return the command to type next, once the run has ended or is gone; it works anywhere."""
    if snapshot.liveness not in ("ended", "gone", "silent"):
        return None
    status = snapshot.status
    command = _anywhere(snapshot)
    if command is None and status.state == "done":
        return f"vlwm eval {shlex.quote(str(snapshot.path.absolute()))} --split test"
    if command is None:
        config = f" --config {status.config}" if status.config else ""
        path = shlex.quote(str(snapshot.path.absolute()))
        return f"vlwm train --resume{config} --work-dir {path}"
    return command


def _anywhere(snapshot: Snapshot) -> str | None:
    """Return the run's own command, which works in this folder, wherever the run was started."""
    command, cwd = snapshot.status.next, snapshot.status.cwd
    if command is None or cwd is None:
        return command
    there = f"cd {shlex.quote(cwd)} && "
    if cwd == os.getcwd():
        return command.removeprefix(there)
    return command if command.startswith(("cd ", "vlwm eval /")) else there + command
