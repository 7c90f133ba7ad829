"""Work shared within one compiled call: every task of every pass once, with helpers and without."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from neuralsolve.kernels.cpu import team
from neuralsolve.kernels.cpu.threads import alongside, serial

TASKS = 7


@serial
def _work(job, task, done, counts):
    """Count a task; it has to find all tasks of the pass before it done."""
    number = job[team.DETAILS]
    for i in range(TASKS):
        counts[TASKS] += done[i] != number
    counts[task] += 1


@serial
def _lead(job, passes, done, counts):
    for number in range(passes):
        job[team.DETAILS] = number
        team.offer(job, TASKS)
        task = team.take(job)
        while task >= 0:
            _work(job, task, done, counts)
            team.done(job)
            task = team.take(job)
        team.wait_for(job, TASKS)
        for i in range(TASKS):
            done[i] = number + 1
    team.end(job)


@serial
def _help(job, done, counts):
    looks, task, taken = 0, team.NONE, 0
    while task != team.OVER:
        task = team.take(job)
        if task >= 0:
            _work(job, task, done, counts)
            team.done(job)
            looks, taken = 0, taken + 1
        else:
            looks = team.rest(looks)
    return taken


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_every_task_of_every_pass_is_done_once_and_in_time(helpers):
    passes, done, counts = 300, np.zeros(TASKS, np.int64), np.zeros((helpers + 1, TASKS + 1), np.int64)
    job = team.new_job(1)
    rows = iter(range(1, helpers + 1))
    alongside(helpers, lambda: _help(job, done, counts[next(rows)]))
    _lead(job, passes, done, counts[0])
    assert counts[:, :TASKS].sum(0).tolist() == [passes] * TASKS
    assert not counts[:, TASKS].any()


def test_who_comes_late_goes_home_at_once():
    job, done, counts = team.new_job(1), np.zeros(TASKS, np.int64), np.zeros(TASKS + 1, np.int64)
    _lead(job, 3, done, counts)
    assert _help(job, done, counts) == 0
    assert counts[:TASKS].tolist() == [3] * TASKS


def test_helpers_are_not_waited_for():
    gate = threading.Event()
    alongside(2, gate.wait)
    gate.set()
