"""Large stacks compute with all threads where these pay, and with one where not."""

import pytest
import torch

from skreg._utils import threads
from skreg._utils.threads import PARALLEL_FLOP, ThreadRace


@pytest.fixture
def clock(monkeypatch):
    """Seconds that work takes, by the number of threads; and what was used."""
    seconds, used, now = {}, [], [0.0]

    def work():
        used.append(torch.get_num_threads())
        now[0] += seconds[used[-1]]

    monkeypatch.setattr(threads, "perf_counter", lambda: now[0])
    monkeypatch.setattr(threads, "_lost_at", -1e9)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    work.seconds, work.used = seconds, used
    yield work
    assert torch.get_num_threads() == 4
    torch.set_num_threads(before)


def run(clock, n, flop=10 * PARALLEL_FLOP):
    race = ThreadRace(flop)
    for _ in range(n):
        race.run(clock)
    return clock.used


def test_threads_that_pay_are_used(clock):
    clock.seconds.update({1: 1.0, 4: 0.5})
    assert run(clock, 5) == [1, 4, 4, 4, 4]


@pytest.mark.parametrize("of_all", [0.95, 1.0, 10.0])
def test_threads_that_wait_for_each_other_are_not(clock, of_all):
    clock.seconds.update({1: 1.0, 4: of_all})
    assert run(clock, 5) == [1, 4, 1, 1, 1]


def test_a_machine_that_becomes_busy_is_noticed(clock):
    clock.seconds.update({1: 1.0, 4: 0.5})
    race = ThreadRace(10 * PARALLEL_FLOP)
    for _ in range(4):
        race.run(clock)
    clock.seconds[4] = 8.0
    for _ in range(3):
        race.run(clock)
    assert clock.used == [1, 4, 4, 4, 4, 1, 1]


def test_a_lost_race_is_not_run_again_at_once(clock):
    clock.seconds.update({1: 1.0, 4: 9.0})
    assert run(clock, 3) == [1, 4, 1]
    assert run(clock, 3)[3:] == [1, 1, 1]
    clock.seconds[1] = threads.SECONDS_LOST
    assert run(clock, 2)[6:] == [1, 4]


@pytest.mark.parametrize(("flop", "n"), [(PARALLEL_FLOP / 2, 1), (float("inf"), 4)])
def test_what_is_small_or_unknown_does_not_race(clock, flop, n):
    clock.seconds.update({1: 1.0, 4: 1.0})
    assert run(clock, 3, flop) == [n, n, n]


def test_errors_leave_the_threads_as_they_were(clock):
    def fails():
        raise RuntimeError("of the work")

    with pytest.raises(RuntimeError, match="of the work"):
        ThreadRace(10 * PARALLEL_FLOP).run(fails)
