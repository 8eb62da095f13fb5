"""What drafts are made of, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.scores import written_labels
from graft.rewriter.measure.draft.labels import Labels, choose_labels
from graft.rewriter.measure.draft.outputs import Form, Scores
from graft.rewriter.measure.draft.written import Written
from graft.rewriter.run.sample_rows import other_rows
from graft.rewriter.run.session import Device, Session


@dataclass(frozen=True)
class Candidate:
    """One way to read the model, with what it reaches on samples.

    Attributes:
        inputs: cards of the inputs.
        output: name of the tensor that is taken for the scores.
        kind: of the output.
        top1: accuracy; ``None`` where it did not run.
        log_likelihood: mean over the samples of the logarithm of what the label gets.
        samples: number of them.
        error: why it did not run; ``""``: it did.
    """

    inputs: tuple[InputCard, ...]
    output: str
    kind: str
    top1: float | None = None
    log_likelihood: float | None = None
    samples: int = 0
    error: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the candidate as JSON takes it: the keys of a single input beside the figures."""
        inputs = [each.plain() for each in self.inputs]
        return {
            **({"input": inputs[0]} if len(inputs) == 1 else {"inputs": inputs}),
            "output": {"name": self.output, "kind": self.kind},
            "top1": self.top1,
            "log_likelihood": self.log_likelihood,
            "samples": self.samples,
            "error": self.error or None,
        }


@dataclass(frozen=True)
class CardDraft:
    """A card to be checked by a person: a wrong card looks nearly right.

    Attributes:
        card: the draft.
        top1: accuracy with it on some samples; ``None`` without samples, or where nothing ran.
        providers: what ran, where samples were tried.
        log_likelihood: mean over these samples; ``None`` as ``top1``.
        samples: number of samples.
        candidates: what was tried, the best first.
        notes: what a person should know: other outputs, where labels come from, what was not taken.
        problem: why the draft is no success: it is at chance, or nothing ran; ``""``: it is one.
    """

    card: Card
    top1: float | None = None
    providers: tuple[str, ...] = ()
    log_likelihood: float | None = None
    samples: int = 0
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Subject:
    """What drafts are made of.

    Attributes:
        model: a copy whose outputs include all tensors that may hold scores.
        outputs: these tensors.
        ways: cards of all inputs, one tuple for each way to read them.
        written: labels and preprocessing that are written down.
        device: runs the model.
        part: samples, or ``None``.
        notes: what a person should know of them.
    """

    model: Model
    outputs: tuple[Scores, ...]
    ways: tuple[tuple[InputCard, ...], ...]
    written: Written
    device: Device
    part: Split | None
    notes: tuple[str, ...] = ()

    @cached_property
    def session(self) -> Session:
        """The model, loaded.

        Raises:
            GraftError: ``model-not-runnable``.
        """
        return self.device.open(self.model)

    @property
    def labelled(self) -> Split | None:
        """The samples, if they have labels."""
        return self.part if self.part is not None and self.part.labelled else None

    def check_rows(self, output: str) -> None:
        """Check that an output of a model that takes one sample at a time has an axis of samples.

        Raises:
            GraftError: ``output-rows``.
        """
        shape = self.model.outputs()[output][1]
        if self.session.batch == 1 and len(shape) == 1 and isinstance(shape[0], int) and shape[0] > 1:
            raise other_rows(output, shape, 1)

    def labels(self, output: str, form: Form) -> Labels:
        """Choose the labels of the columns of an output."""
        own = written_labels(self.model.graph, output, self.model.mapped)
        return choose_labels(own, self.written, self.labelled, 2 if form.columns == 1 else form.columns)

    def card(self, inputs: Sequence[InputCard], output: OutputCard, labels: Sequence[str]) -> Card:
        """Return a card that Graft accepts.

        Raises:
            GraftError: it does not fit the model.
        """
        card = Card(inputs=tuple(inputs), output=output, labels=tuple(labels))
        card.check_against(self.model.inputs(), self.model.outputs())
        return card


def output_card(name: str, kind: str, steps: bool) -> OutputCard:
    """Return the card of an output.

    Args:
        name: of the tensor.
        kind: as :func:`graft.rewriter.measure.draft.kinds.decide` says.
        steps: one label a time step.
    """
    return OutputCard.model_validate({"name": name, "kind": kind, "steps": steps})


def single_column(name: str) -> GraftError:
    """Return the error for one column of numbers that are no probability."""
    return GraftError(
        "card-draft",
        f"output '{name}' is one column of numbers that are no probabilities: a regression, or the logit of "
        "two classes without its sigmoid",
        "end a classifier of two classes in Sigmoid; kind: binary is the probability of the second label",
    )


def other_outputs(subject: Subject, taken: str) -> list[str]:
    """Return a note on the outputs that were not taken."""
    others = [each.name for each in subject.outputs if each.name != taken]
    return [f"output '{taken}' is taken; other outputs: {', '.join(others)}"] if others else []
