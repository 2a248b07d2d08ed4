"""Stop the rented machine that a finished run is on, by its provider's own interface.

    Vast.ai   PUT  /api/v0/instances/{id}/            CONTAINER_ID, CONTAINER_API_KEY
    RunPod    POST /v1/pods/{id}/stop                 RUNPOD_POD_ID, RUNPOD_API_KEY
    Lambda    POST /api/v1/instance-operations/terminate
                                                      LAMBDA_INSTANCE_ID, LAMBDA_API_KEY

Lambda can only end an instance with its disk, so there a copy of the run has to be elsewhere. Keys
come from the environment and are neither stored nor printed.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlwm.core.cloud.provider import LAMBDA_VOLUMES
from vlwm.core.errors import MachineError, UsageError
from vlwm.core.text import safe_text

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class _Call:
    """Request that stops an instance of a provider.

    Attributes:
        title: name for people.
        number: variable that names the instance.
        key: variable that holds the key.
        method, address, body: the request; {id} is the instance.
        keeps_disk: the disk outlives a stopped instance.
    """

    title: str
    number: str
    key: str
    method: str
    address: str
    body: Mapping[str, Any]
    keeps_disk: bool


CALLS = {
    "vast": _Call(
        "Vast.ai", "CONTAINER_ID", "CONTAINER_API_KEY", "PUT",
        "https://console.vast.ai/api/v0/instances/{id}/", {"state": "stopped"}, True,
    ),
    "runpod": _Call(
        "RunPod", "RUNPOD_POD_ID", "RUNPOD_API_KEY", "POST",
        "https://rest.runpod.io/v1/pods/{id}/stop", {}, True,
    ),
    "lambda": _Call(
        "Lambda Cloud", "LAMBDA_INSTANCE_ID", "LAMBDA_API_KEY", "POST",
        "https://cloud.lambda.ai/api/v1/instance-operations/terminate",
        {"instance_ids": ["{id}"]}, False,
    ),
}  # fmt: skip
"""by name of the provider"""


def refuse_stop(provider: str, work_dir: Path, *, backed_up: bool) -> None:
    """Check before a run that its instance can be stopped after it.

    Raises:
        UsageError: another provider, a variable is missing, or the run would be lost.
    """
    call = CALLS.get(provider)
    if call is None:
        raise UsageError(
            "--stop-instance works on Vast.ai, RunPod and Lambda Cloud, and this is none of them",
            remedy="use --when-done COMMAND with a command that stops this machine",
        )
    missing = [name for name in (call.number, call.key) if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"--stop-instance on {call.title} needs {' and '.join(missing)} in the environment",
            remedy=f"export {missing[0]}=…, then run the same command again",
        )
    persistent = str(work_dir.resolve()).startswith(LAMBDA_VOLUMES)
    if not call.keeps_disk and not persistent and not backed_up:
        raise UsageError(
            f"{call.title} ends an instance together with its disk, and the run is only there",
            where=work_dir,
            remedy=f"add --backup URL, or put --work-dir below {LAMBDA_VOLUMES}",
        )


def stop_instance(provider: str, *, base: str | None = None) -> str:
    """Ask the provider to stop this instance, and return a sentence about its answer.

    Args:
        provider: key of `CALLS`.
        base: address of a stand-in server; None: the provider's own.

    Raises:
        MachineError: the provider refuses or does not answer.
    """
    call = CALLS[provider]
    number, key = os.environ[call.number], os.environ[call.key]
    address = call.address.format(id=number)
    if base is not None:
        address = base + "/" + address.split("/", 3)[3]
    body = json.dumps(call.body).replace("{id}", number).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, body, headers, method=call.method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        raise _refused(call, f"{error.code} {safe_text(str(error.reason), 80)}") from error
    except OSError as error:
        raise _refused(call, safe_text(str(error), 80)) from error
    return f"{call.title} stops this instance (answer {status})"


def _refused(call: _Call, reason: str) -> MachineError:
    return MachineError(
        f"{call.title} did not stop this instance: {reason}",
        remedy="the run is finished; stop the instance in the provider's console, it still costs",
    )
