"""Machines that share a plan without talking seldom make the same session twice."""

from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np

from vlwm.core.data.generation.session_order import SessionOrder, longest_pause_s

PATIENCE = 1.5


def made_twice(sessions: int, machines: int, seed: int) -> int:
    """Sessions that were made more than once, machines of different speed."""
    rng = np.random.default_rng(seed)
    orders = [SessionOrder(sessions, int(rng.integers(1 << 40))) for _ in range(machines)]
    speed = rng.uniform(0.6, 1.6, machines)
    met, waited = [False] * machines, [False] * machines
    done: set[int] = set()
    events: list[tuple[float, int, int]] = []
    twice = 0

    def begin(machine: int, now: float) -> None:
        missing = [index for index in range(sessions) if index not in done]
        if not missing:
            return
        if orders[machine].all_in_work(missing) and not waited[machine]:
            waited[machine] = True
            heapq.heappush(events, (now + PATIENCE * speed[machine], machine, -1))
            return
        waited[machine] = False
        index = orders[machine].choose(missing, met=met[machine])
        assert index in missing
        heapq.heappush(events, (now + speed[machine] * rng.uniform(0.7, 1.3), machine, index))

    for machine in range(machines):
        begin(machine, float(rng.uniform(0, 0.5)))
    while events:
        now, machine, index = heapq.heappop(events)
        if index >= 0:
            met[machine] = index in done
            twice += met[machine]
            done.add(index)
        begin(machine, now)
    assert len(done) == sessions
    return twice


def made_in_step(sessions: int, machines: int, seed: int) -> int:
    """Sessions made beyond the plan by machines of one speed, on a store whose PUT takes a tenth.

    A machine looks before it writes: two that are closer than a PUT do not see each other.
    """
    rng, put_s = np.random.default_rng(seed), 0.1
    orders = [SessionOrder(sessions, int(rng.integers(1 << 40))) for _ in range(machines)]
    made, met, waited = [0] * machines, [False] * machines, [False] * machines
    at: dict[int, float] = {}  # when a session is there
    events = [(0.02 * rng.random(), machine, -1) for machine in range(machines)]
    heapq.heapify(events)
    beyond = 0
    while events:
        now, machine, index = heapq.heappop(events)
        if index >= 0:
            made[machine] += 1
            met[machine] = at.get(index, np.inf) <= now
            beyond += index in at
            at.setdefault(index, now + put_s)
            now += 0.0 if met[machine] else put_s
        missing = [k for k in range(sessions) if at.get(k, np.inf) > now]
        if missing and orders[machine].all_in_work(missing) and not waited[machine]:
            waited[machine] = True
            heapq.heappush(events, (now + PATIENCE, machine, -1))
        elif missing:
            waited[machine] = False
            pause = rng.uniform(0.0, longest_pause_s(made[machine], 1.0, put_s))
            index = orders[machine].choose(missing, met=met[machine])
            heapq.heappush(events, (now + pause + rng.uniform(0.99, 1.01), machine, index))
    assert len(at) == sessions
    return beyond


def test_machines_that_begin_in_step_part() -> None:
    """Fault: pauses shorter than a PUT, with which two walk through the whole plan in step."""
    beyond = np.array([made_in_step(8, 3, seed) for seed in range(300)])
    assert beyond.max() <= 8 and beyond.mean() / 3 < 0.83


def test_three_machines_make_less_than_one_session_twice_each() -> None:
    for sessions in (8, 30):
        assert np.mean([made_twice(sessions, 3, seed) / 3 for seed in range(30)]) < 0.75


def test_ten_machines_make_about_one_session_twice_each() -> None:
    """A random order makes 4.7 of 100 sessions twice on each of ten machines."""
    assert np.mean([made_twice(100, 10, seed) / 10 for seed in range(12)]) < 1.2


def test_a_machine_alone_goes_through_the_plan_once() -> None:
    order, missing, made = SessionOrder(20, 3), list(range(20)), []
    while missing:
        made.append(order.choose(missing))
        missing.remove(made[-1])
    assert sorted(made) == list(range(20))
    # after the first place it takes one after the other, so at most once it has to jump
    assert sum((a + 1) % 20 != b for a, b in pairwise(made)) == 0


def test_after_a_meeting_a_machine_leaves_the_way_of_the_other() -> None:
    order = SessionOrder(100, 5)
    first = order.choose(list(range(100)))
    missing = [index for index in range(100) if index != first]
    assert order.choose(missing, met=True) != (first + 1) % 100


def test_single_gaps_are_probably_in_work() -> None:
    order = SessionOrder(10, 0)
    assert order.all_in_work([2, 5, 9]) and order.all_in_work([0])
    assert not order.all_in_work([2, 3]) and not order.all_in_work([0, 9])
    assert not order.all_in_work(list(range(10)))
