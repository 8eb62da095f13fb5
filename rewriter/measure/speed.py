"""The time that work will take: how much there is, and how fast this machine does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

Clock = Callable[[], float]
Timed = Callable[[int, float], None]
"""Takes the number of all runs, and the seconds of one, once a few are done."""
BATCH = 16
"""Samples of a batch that is timed."""
RUNS = 9
"""So often something is timed at most; the median counts, for others may run beside it."""
ENOUGH = 0.5
"""Seconds after which it is not timed again."""
SIZE = 1024
"""Rows and columns of matrices that are multiplied to time linear algebra."""


@dataclass(frozen=True)
class Workload:
    """What is to be done.

    Attributes:
        macs: multiply-accumulates of networks.
        reads: samples that are read and prepared.
        flops: floating-point operations of dense linear algebra.
        nodes: nodes of graphs that are analysed, copied or loaded.
    """

    macs: float = 0.0
    reads: float = 0.0
    flops: float = 0.0
    nodes: float = 0.0

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            self.macs + other.macs,
            self.reads + other.reads,
            self.flops + other.flops,
            self.nodes + other.nodes,
        )

    def __mul__(self, times: float) -> Workload:
        return Workload(self.macs * times, self.reads * times, self.flops * times, self.nodes * times)


@dataclass(frozen=True)
class Speed:
    """How fast a machine is.

    Attributes:
        macs: multiply-accumulates of a network in a second.
        reads: samples that are read in a second.
        flops: floating-point operations of linear algebra in a second.
        nodes: nodes that are analysed, copied or loaded in a second.
    """

    macs: float
    reads: float
    flops: float
    nodes: float = 1000.0

    def seconds(self, work: Workload) -> float:
        """Return how long ``work`` takes."""
        return (
            work.macs / self.macs
            + work.reads / self.reads
            + work.flops / self.flops
            + work.nodes / self.nodes
        )

    @classmethod
    def measured(
        cls, model: Model, macs: int, samples: Samples, device: Device, clock: Clock = time.perf_counter
    ) -> Speed:
        """Measure the speed by a few batches and a few products.

        Args:
            model: runs them.
            macs: multiply-accumulates of ``model`` for one sample.
            samples: the first of them are run.
            device: where they run.
            clock: returns seconds.

        Raises:
            GraftError: a sample cannot be read or run.
        """
        matrix = np.ones((SIZE, SIZE), np.float32)
        matrix @ matrix  # starts the threads
        algebra = _median(lambda: matrix @ matrix, clock)  # first: threads of a session would take its time
        read, run = _read_and_run(model, samples, device, clock)
        return cls(macs=max(1, macs) / run, reads=1 / max(read, 1e-9), flops=2 * SIZE**3 / algebra)


def seconds_a_sample(
    model: Model, samples: Samples, device: Device, clock: Clock = time.perf_counter
) -> float:
    """Return how long it takes to read and run one sample, by a few batches.

    Args:
        model: runs them.
        samples: the first of them are run.
        device: where they run.
        clock: returns seconds.

    Raises:
        GraftError: a sample cannot be read or run.
    """
    return sum(_read_and_run(model, samples, device, clock))


def _read_and_run(model: Model, samples: Samples, device: Device, clock: Clock) -> tuple[float, float]:
    """Return the seconds that reading a sample takes, and those of running it."""
    few = samples.take(np.arange(min(BATCH, len(samples))))
    begin = clock()
    next(few.batches(len(few)))
    read = clock() - begin
    session = device.open(model)
    for number in (1, BATCH):  # where one takes long, so many would take as many times longer
        feed, _ = next(session.batches(few.take(np.arange(min(number, len(few)))), number))
        if _seconds(partial(session.run, feed), clock) > ENOUGH:
            break
    return read / len(few), _median(partial(session.run, feed), clock) / session.count(feed)


def _median(work: Callable[[], object], clock: Clock) -> float:
    """Return the seconds that ``work`` takes, the median of several times."""
    found: list[float] = []
    while len(found) < RUNS and sum(found) < ENOUGH:
        found.append(_seconds(work, clock))
    return max(float(np.median(found)), 1e-9)


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    begin = clock()
    work()
    return clock() - begin
