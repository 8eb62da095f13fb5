"""What a long command will take, said before it starts; another method where the default takes too long."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import click

from graft.passes.decompose import Decompose
from graft.passes.estimate import Subject
from graft.passes.identify import DEFAULT, default_method
from graft.passes.identify.ablation import Ablation
from graft.passes.parent import Parent
from graft.rewriter.data.folds import FOLDS
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.speed import Speed, Workload, seconds_a_sample
from graft.rewriter.run.session import Device
from graft.tools import console as show

PLAN_TIME = 600.0
"""Seconds that the default method may take for all plans."""
LONG_PLAN = 120.0
"""Seconds beyond which one plan by default takes no more than so many passes over the samples."""
PASSES = 30
HALF = 0.5
"""Budget where searching one takes too long."""
SAID = 10.0
"""Seconds from which on an estimate is printed."""
SHORT = 5.0
"""Work that takes less even on a slow machine is not timed."""
SLOW = Speed(macs=1e8, reads=200.0, flops=1e9)
USUAL = Speed(macs=2e10, reads=500.0, flops=5e10)

PASSES_OF_A_FIT = 2.0
"""Passes over the training samples that fitting scores takes."""
FEW = 100
"""Fewer samples than this are run in no time, or are their own estimate."""

clock = time.perf_counter
measured = Speed.measured
a_sample = seconds_a_sample


@dataclass(frozen=True)
class Choice:
    """An importance method, and why it was taken.

    Attributes:
        method: its name.
        reason: ``asked for``, ``default``, or what the default would have taken; never a measured time.
    """

    method: str
    reason: str

    def plain(self) -> dict[str, str]:
        """Return it as ``graft.json`` holds it."""
        return {"method": self.method, "method_reason": self.reason}


@dataclass(eq=False)
class Estimate:
    """What is to be done with a parent and its samples, and how long that takes here.

    The machine is timed on a few batches where it matters.

    Args:
        parent: the parent.
        samples: the calibration set; ``None``: there is none.
        device: what runs the parent.
        insist: option that names a method.

    Attributes:
        subject: says how much work operations are.
        seconds: what was estimated last.
    """

    parent: Parent
    samples: Samples | None
    device: Device
    insist: str = "--method"
    seconds: float = 0.0
    _begun: float = field(default_factory=lambda: clock())
    _speed: Speed | None = None

    def __post_init__(self) -> None:
        self.subject = Subject.of(self.parent, self.samples)

    def of(self, work: Workload) -> float:
        """Return the seconds that ``work`` takes."""
        if self.samples is None or SLOW.seconds(work) < SHORT:
            return USUAL.seconds(work)
        if self._speed is None:
            macs = round(self.subject.macs)
            self._speed = measured(self.parent.model, macs, self.samples, self.device)
        return self._speed.seconds(work)

    def choose(self, asked: str | None, plans: float, limit: float | None) -> Choice:
        """Return the method that plans are made by.

        The default is measured on the network, channel by channel. Where all plans together take longer
        than ``limit`` it is :data:`DEFAULT`, which needs the profile alone; a warning tells how to insist.

        Args:
            asked: the method that was asked for; ``None``: none.
            plans: number of plans to be made.
            limit: seconds; ``None``: :data:`PLAN_TIME`, and for one plan :data:`LONG_PLAN` where that is
                more than :data:`PASSES` passes over the samples.
        """
        if asked is not None:
            return Choice(asked, "asked for")
        best = default_method(self.parent.groups, self.samples is not None)
        plain = Choice(best, "default")
        if best == DEFAULT:
            return plain
        work = self.subject.plan(Decompose((), method=best))
        most = PLAN_TIME if limit is None else limit
        if SLOW.seconds(work * plans) <= most:
            return plain
        one = self.of(work)
        usual = self.of(self.subject.passes(self.subject.count))
        dear = limit is None and one > LONG_PLAN and one > PASSES * usual
        if one * plans <= most and not dear:
            return plain
        runs = Ablation().runs(self.subject.groups)
        taken = f"about {duration(one * plans)}" + ("" if plans == 1 else f" for {plans:.0f} plans")
        why = (
            f"more than {PASSES} passes over the samples"
            if one * plans <= most
            else f"more than --plan-time {duration(most, short=True)}"
        )
        _say(
            f"{best} would take {taken}, {why}: {DEFAULT} chooses the channels",
            f"to insist: {command(self.insist, best)}",
        )
        return Choice(DEFAULT, f"{best} takes {runs} runs of one sample a plan, more than --plan-time allows")

    def budget(self, decompose: Decompose, max_drop: float, limit: float | None) -> tuple[float | None, str]:
        """Return the budget of every module where by default it is searched, and why it is that one.

        Where the search for one module takes longer than ``limit`` it is :data:`HALF`; a warning tells how
        to insist.

        Args:
            decompose: the options of every module.
            max_drop: points that the search allows.
            limit: seconds; ``None``: :data:`PLAN_TIME`.

        Returns:
            The share; ``None``: it is searched.
        """
        most = PLAN_TIME if limit is None else limit
        work = self.subject.search(decompose)
        if SLOW.seconds(work) <= most or (taken := self.of(work)) <= most:
            return None, ""
        _say(
            f"searching the budget of a module would take about {duration(taken)}, more than --plan-time "
            f"{duration(most, short=True)}: every module keeps {HALF:.0%} of the cost (--keep {HALF})",
            f"to insist: {command('--max-drop', f'{max_drop:g}')}",
        )
        return HALF, "a search takes more than --plan-time allows"

    def announce(self, work: Workload, what: str) -> None:
        """Print a line on standard error about long work.

        Args:
            work: all that is to be done.
            what: the same in words.
        """
        self.seconds = self.of(work)
        if self.seconds >= SAID:
            _say(f"about {duration(self.seconds)}: {what}")

    def left(self) -> float:
        """Return the seconds that are left of what was estimated."""
        return max(0.0, self.seconds - (clock() - self._begun))

    def plain(self) -> dict[str, float]:
        """Return what was estimated and what it took so far, for ``--json``; files hold neither."""
        return {"estimate_seconds": round(self.seconds, 1), "seconds": round(clock() - self._begun, 1)}


class Passes:
    """What running models on all samples takes, for commands that do little else.

    Args:
        models: each runs all samples.
        split: the samples; ``None``: there are none.
        times: how often.
        device: where they run.
    """

    def __init__(self, models: Sequence[Model], split: Split | None, times: float, device: Device) -> None:
        self._begun = clock()
        self.seconds = 0.0
        if split is not None and len(split) >= FEW:
            each = sum(_a_sample(model, split, device) for model in models)
            self.seconds = times * len(split) * each

    def announce(self, what: str) -> None:
        """Print a line on standard error about long work, in words."""
        if self.seconds >= SAID:
            _say(f"about {duration(self.seconds)}: {what}")

    def plain(self) -> dict[str, float]:
        """Return what was estimated and what it took so far, for ``--json``."""
        return {"estimate_seconds": round(self.seconds, 1), "seconds": round(clock() - self._begun, 1)}


def announce_runs(what: str) -> Callable[[int, float], None]:
    """Return what prints a line on standard error about long work, once its first runs were timed.

    It takes the number of runs and the seconds of one.

    Args:
        what: the work in words, with ``{}`` where the number of runs goes.
    """

    def announce(runs: int, each: float) -> None:
        if runs * each >= SAID:
            _say(f"about {duration(runs * each)}: {what.format(runs)}")

    return announce


def _a_sample(model: Model, split: Split, device: Device) -> float:
    """Return the seconds of a sample; 0 where none fits, which is said where they are used."""
    try:
        return a_sample(model, Samples.match(split, model.require_card()), device)
    except GraftError:
        return 0.0


def decomposing(
    estimate: Estimate, decompose: Decompose, sets: int, search: bool, profiled: bool
) -> tuple[Workload, str]:
    """Return the work of modules with their plans and the profile, and the same in words.

    Args:
        estimate: of the parent.
        decompose: the options of every module.
        sets: number of modules.
        search: their budgets are searched on folds.
        profiled: the profile is there.
    """
    subject = estimate.subject
    work = subject.modules(decompose, sets, search)
    if decompose.fixed_plan is None:
        work += subject.plan(decompose) * plans(sets, search)
    if not profiled:
        work += subject.profile(tuple(decompose.classes), subject.count)
    words = [f"{sets} module{'s' * (sets > 1)} from {subject.count} samples"]
    if decompose.fixed_plan is None:
        words.append(f"planned by {decompose.method}")
    if decompose.compensate == "refit":
        words.append("refitted layer by layer")
    if search:
        words.append(f"budget{'s' * (sets > 1)} searched on {FOLDS} folds (--keep 0.5 takes no search)")
    return work, ", ".join(words)


def plans(sets: int, search: bool) -> int:
    """Return the number of times that channels are scored: for each module, and each fold of a search."""
    return sets * (1 + FOLDS * search)


def duration(seconds: float, short: bool = False) -> str:
    """Return a time to be read.

    >>> duration(42), duration(250), duration(5400), duration(600, short=True)
    ('42 s', '4 min', '1.5 h', '10m')
    """
    if seconds == float("inf"):
        return "none"
    if short:
        return f"{seconds / 60:g}m" if seconds >= 60 else f"{seconds:g}s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(text: str, hint: str = "") -> None:
    """Print a line on standard error, unless nothing but errors is wanted there."""
    if not click.get_current_context().meta.get("quiet", False):
        show.say(text, hint=hint)


def command(*more: str) -> str:
    """Return the command that runs, with further options, to be copied."""
    given: Sequence[str] = click.get_current_context().obj or ()
    return shlex.join(["graft", *given, *more])
