"""What the state of a run means for the one who watches: its name, its worries, the next step."""

from __future__ import annotations

from dataclasses import dataclass

from vlwm.core.monitoring.formatting import Glyphs, span
from vlwm.core.monitoring.snapshot import HealthSign, Snapshot

STAGE_WORDS = {"tokenizer": "tokenizer", "world": "world model"}
PHASE_WORDS = {
    "start": "starting",
    "prepare": "preparing data",
    "motion": "learning motion",
    "fusion": "learning fusion",
    "tokenizer": "training",
    "world": "training",
    "validate": "validating",
    "save": "saving",
    "eval": "judging on the test split",
    "done": "done",
}


@dataclass(frozen=True)
class StateSign:
    """The state in a mark, a word and a colour."""

    mark: str
    word: str
    colour: str


def state_of(snapshot: Snapshot, glyphs: Glyphs) -> StateSign:
    """The run's state as the header shows it."""
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
    """The run's own health signs, and what only an onlooker can see."""
    return (*_of_the_process(snapshot), *snapshot.status.health, *_of_the_files(snapshot))


def _of_the_process(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    age = span(snapshot.heartbeat_age_s)
    resume = snapshot.status.next or "run the same command again with --resume"
    if snapshot.liveness == "stalled":
        message = f"no heartbeat for {age}, the process is still there"
        remedy = "look at the end of train_*.log; if it hangs, stop it and resume"
        return (HealthSign("stalled", "warn", message, remedy),)
    if snapshot.liveness == "silent":
        message = f"no heartbeat for {age} from {snapshot.status.host}"
        return (HealthSign("silent", "warn", message, "look at that machine; else resume here"),)
    if snapshot.liveness == "gone":
        message = f"process {snapshot.status.pid} ended without a word {age} ago"
        return (HealthSign("gone", "fail", message, resume),)
    if snapshot.status.state == "failed":
        return (HealthSign("failed", "fail", "the run failed", "its last lines in train_*.log"),)
    return ()


def _of_the_files(snapshot: Snapshot) -> tuple[HealthSign, ...]:
    return tuple(HealthSign("files", "warn", note, "") for note in snapshot.notes)


def next_step(snapshot: Snapshot) -> str | None:
    """The command to type next, once the run has ended or is gone."""
    if snapshot.liveness not in ("ended", "gone", "silent"):
        return None
    if snapshot.status.next:
        return snapshot.status.next
    if snapshot.status.state == "done":
        return f"vlwm eval {snapshot.path} --split test"
    config = f" --config {snapshot.status.config}" if snapshot.status.config else ""
    return f"vlwm train --resume{config} --work-dir {snapshot.path}"
