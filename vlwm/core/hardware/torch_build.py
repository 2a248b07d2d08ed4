"""Find out what the installed torch was built for, in a process of its own.

A broken CUDA library may end the process that imports torch; here it ends only the question. The
import takes seconds, which other checks use.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_QUESTION = """
import json
found = {}
try:
    import torch
    found["version"], found["cuda"] = str(torch.__version__), torch.version.cuda
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    found["arch"] = flags().split() if flags and torch.version.cuda else []
    found["available"] = bool(torch.cuda.is_available())
    if torch.version.cuda and not found["available"]:
        torch.cuda.init()
except ImportError as error:
    found.setdefault("error", "not importable: " + str(error))
except Exception as error:
    found.setdefault("error", str(error))
print(json.dumps(found))
"""
_PATIENCE_S = 90.0


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch; None means unknown."""

    version: str | None = None
    cuda: str | None = None
    """CUDA version it was built with; None for a CPU build"""
    arch: tuple[str, ...] = ()
    """GPU architectures it holds kernels for, such as sm_80"""
    available: bool = False
    """whether it reaches a GPU"""
    error: str | None = None
    """first line of its output instead"""


def ask_torch() -> TorchBuild:
    """Import torch in a child process and ask."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TorchBuild(error=f"importing it took longer than {_PATIENCE_S:.0f} s")
    lines = done.stdout.strip().splitlines()
    try:
        found: Any = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = {}
    if not found:
        return TorchBuild(error=f"importing it ended the process (exit code {done.returncode})")
    return _build(found)


def _build(found: dict[str, Any]) -> TorchBuild:
    error = found.get("error")
    return TorchBuild(
        version=found.get("version"),
        cuda=found.get("cuda"),
        arch=tuple(found.get("arch") or ()),
        available=bool(found.get("available")),
        error=None if error is None else str(error).strip().split("\n")[0][:200],
    )


def runs_on(build: TorchBuild, capability: tuple[int, int]) -> bool:
    """Return whether the build runs on a GPU: binaries of its own generation up to its minor
    version (sm_80 runs on 8.6), or portable code of any older one (compute_90 runs on 12.0)."""
    for name in build.arch:
        kind, _, digits = name.partition("_")
        if not digits.isdigit():  # sm_90a runs on exactly 9.0
            exact = digits[:-1].isdigit() and divmod(int(digits[:-1]), 10) == capability
            if kind == "sm" and exact:
                return True
            continue
        major, minor = divmod(int(digits), 10)
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def least_driver(cuda: str) -> int:
    """Return the oldest driver branch for a CUDA version: r580 for 13, r525 for 12, r450 for 11."""
    return {11: 450, 12: 525}.get(int(cuda.split(".")[0]), 580)
