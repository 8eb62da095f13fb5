"""The one protocol of passes.

A pass is a frozen dataclass that holds configuration only. What it works on is the *subject* of the
call; samples, profile, device and seed come in a :class:`Context`. A plan is configuration: it says what to
keep, and may have been written by hand. Every call returns a
:class:`Report`: how much was changed, and what was declined, with the reason.

Two kinds, as in onnx-ir:

* *in place*: the subject is a graph that the pass changes (normalize, slice, compensate, adapt ...);
* *makes a model*: the subject stays as it is, and the report carries the new model (Decompose,
  Compose, Replace, Remove).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

Subject = TypeVar("Subject", contravariant=True)
Outcome = TypeVar("Outcome", bound="Report", covariant=True)


@dataclass(frozen=True)
class Declined:
    """Something that a pass left as it was.

    Attributes:
        where: name of the node, channel group, network or output.
        reason: why, in a few words.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a pass.

    Attributes:
        changed: number of nodes, channels or classes that were changed; the pass says which.
        declined: what was left as it was, and why.
    """

    changed: int = 0
    declined: tuple[Declined, ...] = ()


def all_declined(reports: Iterable[Report]) -> tuple[Declined, ...]:
    """Return what ``reports`` declined, each once: several modules may decline the same."""
    return tuple(dict.fromkeys(declined for report in reports for declined in report.declined))


@dataclass(frozen=True)
class Context:
    """Data and means that passes may use beside their subject.

    Attributes:
        samples: labelled samples, matched to the card of the subject: the calibration set.
        held_out: further samples that results are measured on; nothing is ever chosen by them.
        data: samples that are not matched to a card yet, where the pass makes the card.
        profile: statistics of the subject, from one pass over labelled samples.
        device: where graphs run.
        seed: for everything that is drawn.
    """

    samples: Samples | None = None
    held_out: Samples | None = None
    data: Split | None = None
    profile: Profile | None = None
    device: Device = field(default_factory=Device)
    seed: int = 0


class Pass(Protocol[Subject, Outcome]):
    """Configuration, callable on a subject."""

    def __call__(self, subject: Subject, context: Context, /) -> Outcome:
        """Change ``subject``, or make a model from it.

        Args:
            subject: what the pass works on.
            context: samples, profile, device and seed.

        Returns:
            What was done, and what was declined.

        Raises:
            GraftError: the subject does not fit, or the context lacks what the pass needs.
        """
