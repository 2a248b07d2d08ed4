"""Python and its parts, tools of the shell, logins, completion."""

from __future__ import annotations

import importlib.metadata
import netrc
import os
import re
import shutil
import sys
from pathlib import Path

from vlwm.core.cloud.check import Check, Command
from vlwm.core.hardware.machine import Machine
from vlwm.core.locale_names import LOCALE_NAMES, is_utf8, locale_exists, original_locale

_LEAST_PYTHON = (3, 10)
_SCREENS = ("screen", "tmux")  # one of them is enough
_TOOLS = ("git", "unzip", "rsync")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)")
_SPECIFIER = re.compile(r"^([^;]+)")


def python_check(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check the version of Python."""
    words = ".".join(map(str, version))
    if version[:2] < _LEAST_PYTHON:
        fix = "take Python 3.10 or newer (torch's older versions load checkpoints unsafely)"
        return Check("python", "fail", words, fix)
    return Check("python", "ok", f"{words} ({sys.prefix})")


def parts_check(required: list[str] | None = None) -> Check:
    """Check that every package that vlwm requires is installed."""
    required = _required() if required is None else required
    missing = [spec for spec in required if not _installed(spec)]
    if not missing:
        return Check("packages", "ok", f"all {len(required)} are installed")
    names = ", ".join(_name(spec) for spec in missing)
    install: Command = (sys.executable, "-m", "pip", "install", *missing)
    fix = "pip install " + " ".join(f"'{spec}'" for spec in missing)
    return Check("packages", "fail", f"missing: {names}", fix, (install,))


def _required() -> list[str]:
    """Return the requirements in the installed package's metadata, extras apart."""
    try:
        lines = importlib.metadata.requires("vlwm") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    plain = [line for line in lines if "extra ==" not in line]
    return [match[1].strip() for line in plain if (match := _SPECIFIER.match(line))]


def _name(spec: str) -> str:
    match = _NAME.match(spec)
    return match[1] if match else spec


def _installed(spec: str) -> bool:
    try:
        importlib.metadata.version(_name(spec))
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tools_check(machine: Machine) -> Check:
    """Check the programs of the shell that a long run on a rented machine needs."""
    there = [tool for tool in (*_SCREENS, *_TOOLS) if _which(tool, machine) is not None]
    needed = [tool for tool in _TOOLS if tool not in there]
    if not set(_SCREENS) & set(there):
        needed = [*_SCREENS, *needed]
    if not needed:
        return Check("tools", "ok", " ".join(there))
    return Check("tools", "warn", f"missing: {', '.join(needed)}", *_by_apt(needed, machine))


def _by_apt(tools: list[str], machine: Machine) -> tuple[str, tuple[Command, ...]]:
    """Return the command that installs tools, and whether it can be run from here."""
    root = os.geteuid() == 0
    sudo: Command = () if root else ("sudo",)
    update: Command = (*sudo, "apt-get", "update", "-q")
    install: Command = (*sudo, "apt-get", "install", "-y", "-q", *tools)
    words = f"{' '.join(update)} && {' '.join(install)}"
    can = _which("apt-get", machine) is not None and (root or _which("sudo", machine) is not None)
    return words, (update, install) if can and machine.real else ()


def _which(tool: str, machine: Machine) -> str | None:
    folders = machine.environ.get("PATH", os.defpath).split(os.pathsep)
    places = [str(machine.path(folder)) for folder in folders if folder.startswith("/")]
    return shutil.which(tool, path=os.pathsep.join(places)) if places else None


def session_check(machine: Machine) -> Check:
    """Check whether a run started now would survive the connection."""
    environ = machine.environ
    if environ.get("STY") or environ.get("TMUX"):
        return Check("session", "ok", "inside screen or tmux")
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        what = "a plain SSH session: the run would end with the connection"
        return Check("session", "warn", what, "screen -S training")
    return Check("session", "ok", "local")


def locale_check(machine: Machine) -> Check:
    """Check that screen and tmux will pass UTF-8 on."""
    environ = original_locale(machine.environ) if machine.real else machine.environ
    named = next((v for n in LOCALE_NAMES if (v := environ.get(n))), None)
    fix = "export LANG=C.UTF-8 before screen or tmux (or screen -U, tmux -u)"
    if named is None:
        return Check("locale", "warn", "none is set: screen and tmux show plain characters", fix)
    if not is_utf8(named):
        return Check("locale", "warn", f"{named} is not UTF-8: plain characters are used", fix)
    if machine.real and not locale_exists(named):
        return Check("locale", "warn", f"{named} is not generated on this machine", fix)
    return Check("locale", "ok", named)


def wandb_check(machine: Machine) -> Check:
    """Check whether runs can be sent to Weights & Biases. The key itself is never read out."""
    if machine.environ.get("WANDB_API_KEY") or _in_netrc(machine, "api.wandb.ai"):
        return Check("wandb", "ok", "logged in; vlwm train --wandb sends the run")
    return Check("wandb", "ok", "no login: --wandb logs offline; `wandb login` to send runs")


def hub_check(machine: Machine, lasting: str | None) -> Check:
    """Check login and cache of the Hugging Face Hub."""
    home = machine.environ.get("HF_HOME") or f"{_home(machine)}/.cache/huggingface"
    known = bool(machine.environ.get("HF_TOKEN")) or machine.exists(f"{home}/token")
    words = "logged in" if known else "no login: public data needs none; else `hf auth login`"
    if lasting is not None and not home.startswith(lasting):
        words += f"; `export HF_HOME={lasting.rstrip('/')}/hf` keeps its cache"
    return Check("hub", "ok", words)


def _home(machine: Machine) -> str:
    return machine.environ.get("HOME") or "/root"


def _in_netrc(machine: Machine, host: str) -> bool:
    path = machine.path(f"{_home(machine)}/.netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def completion_check(machine: Machine) -> Check:
    """Check whether the shell completes vlwm's options."""
    home, shell = _home(machine), Path(machine.environ.get("SHELL") or "").name
    places = {
        "bash": f"{home}/.bash_completions/vlwm.sh",
        "zsh": f"{home}/.zfunc/_vlwm",
        "fish": f"{home}/.config/fish/completions/vlwm.fish",
    }
    if shell not in places:
        return Check("completion", "ok", "this shell has none")
    if machine.exists(places[shell]):
        return Check("completion", "ok", f"{shell} completes vlwm's options")
    neighbour = Path(sys.executable).with_name("vlwm")
    repair: Command = (str(neighbour) if neighbour.exists() else "vlwm", "--install-completion")
    return Check("completion", "warn", f"Shell completion is not installed ({shell})",
                 "vlwm --install-completion", (repair,) if machine.real else ())  # fmt: skip
