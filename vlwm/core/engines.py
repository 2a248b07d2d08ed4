"""Engines that run a function over items: the processes of this machine, or Dask.

Both fulfil one protocol, `run(function, items)`. Results are small (names and counts); all bytes go
to the store, so a lost result costs nothing: the same command continues from what the store has.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from vlwm.core.errors import MachineError, UsageError, VlwmError
from vlwm.core.parallel import each

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRIES = 3
"""times that Dask runs a task again after a fault, or on another worker after one was lost"""
_CONNECT_S = 30.0
_LOOKS = 10
"""times `_CONNECT_S` that a result may take to arrive while the scheduler is there"""


class Engine(Protocol):
    """Runs a function over items.

    Attributes:
        elsewhere: True where other processes run it, which reach no memory of this one.
    """

    elsewhere: bool

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Result, None, None]:
        """Yield the result of each item as it is ready, in any order.

        Raises:
            MachineError: workers were lost again and again, or the scheduler was.
        """
        ...


class LocalEngine:
    """Forked processes of this machine, or this process alone.

    Args:
        workers: processes; 1 runs in this one.
    """

    elsewhere = False

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Result, None, None]:
        """Yield the results in order."""
        yield from each(function, items, self.workers)


class DaskEngine:
    """Workers of Dask: those of a scheduler, or processes of this machine.

    The function and the items travel to the workers by pickle, which need the same version of vlwm
    and reach the same store. A scheduler on this machine listens on the loopback address alone.

    Args:
        address: of the scheduler, tcp:// or tls://; None starts workers here.
        workers: processes to start here.
        connect_s: seconds to wait for the scheduler.
    """

    elsewhere = True

    def __init__(
        self, address: str | None, workers: int = 1, connect_s: float = _CONNECT_S
    ) -> None:
        self.address = address
        self.workers = workers
        self.connect_s = connect_s

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Result, None, None]:
        """Yield the results as they arrive; a lost worker's items run again on the others."""
        from distributed import Client, LocalCluster, as_completed

        _quiet("distributed", "asyncio", "tornado")
        where = self.address
        try:
            if where is None:
                cluster: LocalCluster | None = LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, host="127.0.0.1",
                    dashboard_address=None,
                )  # fmt: skip
                client = Client(cluster, set_as_default=False)
            else:
                cluster = None
                client = Client(where, timeout=self.connect_s, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise _lost(where, f"cannot be reached ({error})") from error
        try:
            futures = client.map(function, items, retries=_RETRIES, pure=False)
            with client.as_current():  # as_completed looks for the client of its futures there
                arriving = as_completed(futures)
            for future in arriving:
                yield _result(future, where)
                future.release()
        finally:
            with suppress(OSError, TimeoutError, RuntimeError):
                client.close(timeout=5)
                if cluster is not None:
                    cluster.close(timeout=5)


def _result(future: Any, where: str | None) -> Any:
    """Return the result of a future that is done.

    Raises:
        MachineError: workers were lost again and again, or the scheduler was.
    """
    from concurrent.futures import CancelledError

    from distributed import TimeoutError as LateError
    from distributed.scheduler import KilledWorker

    try:
        for _ in range(_LOOKS - 1):
            with suppress(LateError):
                return future.result(timeout=_CONNECT_S)
            # a busy machine is slow to send; a scheduler that is gone sends nothing
            if future.client.status != "running":
                break
        return future.result(timeout=_CONNECT_S)
    except VlwmError:
        raise
    except KilledWorker as error:
        raise MachineError(
            "workers of Dask were lost again and again at the same task",
            where=where,
            remedy="give them more memory, or raise distributed.scheduler.allowed-failures; the "
            "same command continues",
        ) from error
    except (CancelledError, OSError, LateError) as error:
        raise _lost(where, "was lost") from error


def in_order(
    results: Iterable[Result], keys: Sequence[Hashable], key_of: Callable[[Result], Hashable]
) -> Iterator[Result]:
    """Yield results in the order of `keys`, however they arrive; those that are early wait."""
    waiting = dict[Hashable, Result]()
    arriving = iter(results)
    for key in keys:
        while key not in waiting:
            result = next(arriving)
            waiting[key_of(result)] = result
        yield waiting.pop(key)


def _lost(where: str | None, how: str) -> MachineError:
    return MachineError(
        f"the scheduler of Dask {how}",
        where=where,
        remedy="start it again, then run the same command: what is in a store is kept",
    )


def open_engine(text: str | None, workers: int) -> Engine:
    """Return the engine of `--engine local|dask|dask://HOST:8786|dask+tls://HOST:8786`.

    Args:
        workers: processes of this machine, where the engine starts them.

    Raises:
        UsageError: another word, Dask is not installed, or TLS lacks its certificates.
    """
    word = text or "local"
    if word == "local":
        return LocalEngine(workers)
    scheme, found, host = word.partition("://")
    if word != "dask" and not (found and host and scheme in ("dask", "dask+tls")):
        raise UsageError(
            f"--engine {word} is unknown",
            remedy="use local, dask, dask://HOST:8786 or dask+tls://HOST:8786",
        )
    try:
        importlib.import_module("distributed")
    except ImportError as error:
        raise UsageError(
            "--engine dask needs the package distributed", remedy="pip install 'vlwm[dask]'"
        ) from error
    if word == "dask":
        return DaskEngine(None, workers)
    if scheme == "dask+tls":
        _check_certificates()
    return DaskEngine(f"{'tls' if scheme == 'dask+tls' else 'tcp'}://{host.rstrip('/')}")


def _check_certificates() -> None:
    """Raise where Dask has no certificates to speak TLS with.

    Raises:
        UsageError: they are not set, or cannot be read.
    """
    from distributed.security import Security

    try:
        context = Security().get_connection_args("client")["ssl_context"]
    except OSError as error:  # a file is missing, or is no certificate
        raise UsageError(
            f"the certificates of Dask cannot be read ({error})", remedy=_CERTIFICATES
        ) from error
    if context is None:
        raise UsageError("--engine dask+tls needs certificates", remedy=_CERTIFICATES)


_CERTIFICATES = (
    "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY to their files"
)


def _quiet(*packages: str) -> None:
    """Silence the loggers of packages: a lost task becomes one sentence; theirs are tracebacks."""
    # Dask gives each of its loggers a level of its own, so those of the packages are not enough
    for name in [*packages, *logging.root.manager.loggerDict]:
        if name.split(".")[0] in packages:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
