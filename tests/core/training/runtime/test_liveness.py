"""A process that works alone gives signs of life; one that stops giving them counts as lost."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from vlwm.core.errors import MachineError, TrainingError, UsageError
from vlwm.core.training.runtime.distributed import Ranks, join_ranks
from vlwm.core.training.runtime.liveness import Lifeline, PeerLost, lost_reason, rank_timeout_s

TIMEOUT_S = 0.4


class Store:
    """What torch's store does, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.broken = False
        self.hangs = threading.Event()
        self.hangs.set()

    def set(self, key: str, value: str | bytes) -> None:
        self.values[key] = value if isinstance(value, bytes) else value.encode()

    def check(self, keys: list[str]) -> bool:
        self.hangs.wait()
        if self.broken:
            raise RuntimeError("Connection reset by peer")
        return all(key in self.values for key in keys)

    def get(self, key: str) -> bytes:
        return self.values[key]


def two(store: Store) -> tuple[Lifeline, Lifeline]:
    return Lifeline(store, TIMEOUT_S), Lifeline(store, TIMEOUT_S)


def test_long_work_is_waited_for_while_it_gives_signs_of_life() -> None:
    lead, other = two(Store())

    def work() -> None:
        with lead.working(lead.next_topic("lead")):
            time.sleep(3 * TIMEOUT_S)

    thread = threading.Thread(target=work)
    thread.start()
    assert other.wait_for(other.next_topic("lead"))
    thread.join()


def test_a_failure_is_told_and_the_next_work_is_another_one() -> None:
    lead, other = two(Store())
    with pytest.raises(ValueError), lead.working(lead.next_topic("lead")):
        raise ValueError
    with lead.working(lead.next_topic("lead")):
        pass
    assert [other.wait_for(other.next_topic("lead")) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("fault", ["silent", "stops", "cut", "reset"])
def test_a_lost_process_is_noticed_in_time(fault: str) -> None:
    store = Store()
    lead, other = two(store)
    topic = lead.next_topic("lead")
    if fault == "stops":  # SIGSTOP: the thread that counts stops too
        store.set(f"{topic}/beat", "7")
    if fault == "cut":
        store.hangs.clear()
    store.broken = fault == "reset"
    began = time.monotonic()
    with pytest.raises(PeerLost, match="was lost" if fault == "reset" else "no sign of life"):
        other.wait_for(other.next_topic("lead"))
    assert time.monotonic() - began < 3 * TIMEOUT_S
    store.hangs.set()


@pytest.mark.parametrize("fails", [False, True])
def test_all_wait_for_the_slowest_and_fail_together(fails: bool) -> None:
    """The slow process takes three timeouts; the fast one waits, and hears how it ended."""
    store, errors = Store(), dict[int, str]()

    def work(rank: int) -> int:
        if rank == 0:
            time.sleep(3 * TIMEOUT_S)
            if fails:
                raise ValueError("the slow one")
        return rank

    def run(rank: int) -> None:
        ranks = Ranks(rank, 2, lifeline=Lifeline(store, TIMEOUT_S))
        try:
            assert ranks.all_do(lambda: work(rank)) == rank
        except (TrainingError, ValueError) as error:
            errors[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(errors) == ([0, 1] if fails else [])
    assert not fails or (errors[0] == "the slow one" and "another process" in errors[1])


@pytest.mark.parametrize("text", ["soon", "0", "1e9", "nan"])
def test_a_timeout_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLWM_RANK_TIMEOUT_S", "120")
    assert rank_timeout_s() == 120.0
    monkeypatch.setenv("VLWM_RANK_TIMEOUT_S", text)
    with pytest.raises(UsageError, match="is not a number of seconds"):
        rank_timeout_s()
    monkeypatch.delenv("VLWM_RANK_TIMEOUT_S")
    assert rank_timeout_s() <= 600.0


@pytest.mark.parametrize(("text", "words"), [
    ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:17322",
     "its connection was closed"),
    ("[unbound_buffer.cc:84] Timed out waiting 30000ms for recv operation to complete",
     "it did not answer in time"),
    ("NCCL error in: ProcessGroupNCCL.cpp:268, unhandled system error", "the connection failed"),
])  # fmt: skip
def test_the_loss_of_a_process_is_told_without_the_librarys_text(text: str, words: str) -> None:
    assert lost_reason(RuntimeError(text)) == words


def test_a_port_in_use_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(taken.getsockname()[1])}  # fmt: skip
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        said = f"port {place['MASTER_PORT']} is in use"
        with pytest.raises(MachineError, match=said), join_ranks():
            pass
