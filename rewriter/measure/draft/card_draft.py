"""Draft a card: what the graph shows of input and output, and what suits samples best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_graphsurgeon as gs

from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.part import some
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.scores import written_labels
from graft.rewriter.measure.draft.inputs import input_cards
from graft.rewriter.measure.draft.outputs import Scores, find_scores
from graft.rewriter.measure.draft.seen import Seen, look
from graft.rewriter.measure.draft.subject import CardDraft, Subject, output_card
from graft.rewriter.measure.draft.tried import draft_from_samples
from graft.rewriter.measure.draft.untried import draft_from_graph
from graft.rewriter.measure.draft.written import Written, read_written
from graft.rewriter.measure.speed import Timed
from graft.rewriter.run.session import Device


def draft_card(
    model: Model,
    part: Split | None,
    device: Device,
    path: Path | None = None,
    timed: Timed | None = None,
) -> CardDraft:
    """Draft the card of ``model``.

    With samples, the usual ways to read the input are tried on up to 1000 of them, and that of the
    highest log-likelihood is taken.

    Args:
        model: a classifier.
        part: samples; with labels they decide, without they show what the input is; ``None``: the most
            usual way is taken.
        device: where the model runs.
        path: its file, beside which configurations of Hugging Face or timm may lie.
        timed: is called once a few samples ran, with the number of all runs and the seconds of one.

    Raises:
        GraftError: ``card-draft`` where the model is no classifier that Graft takes, and
            whatever is wrong with the samples.
    """
    subject = _subject(model, part, device, path)
    draft = draft_from_samples(subject, timed) if subject.labelled else draft_from_graph(subject)
    return replace(
        draft, notes=(*_hidden(subject, draft), *subject.notes, *subject.written.notes, *draft.notes)
    )


def _hidden(subject: Subject, draft: CardDraft) -> tuple[str, ...]:
    """Return a note where the card names scores that are no output of the file."""
    hidden = next(
        (each for each in subject.outputs if each.name == draft.card.output.name and each.before), None
    )
    if hidden is None:
        return ()
    what = "sorted scores" if hidden.before == "TopK" else "class numbers"
    return (
        f"output '{hidden.output}' holds {what} ({hidden.before}): the card names the scores before it, "
        f"'{hidden.name}', and every command reads them there",
    )


def _subject(model: Model, part: Split | None, device: Device, path: Path | None) -> Subject:
    work = model.copy()
    work.card = None
    written = read_written(model.metadata, path)
    outputs = find_scores(work, written.task)
    seen = look(part)
    ways = _ways(work, seen, written)
    if len(ways[0]) > 1:  # the session fills inputs that the card says are constant
        work.card = Card(
            inputs=ways[0], output=output_card(outputs[0].name, "logits", False), labels=("0", "1")
        )
    part, notes = _by_class_number(work, outputs, written, part)
    return Subject(work, tuple(outputs), ways, written, device, part, notes)


def _by_class_number(
    work: Model, outputs: Sequence[Scores], written: Written, part: Split | None
) -> tuple[Split | None, tuple[str, ...]]:
    """Read numbers of the data as the classes that the model itself calls so, if they count no columns."""
    if part is None or part.class_names is not None:
        return part, ()
    own = (written_labels(work.graph, each.name, work.mapped) for each in outputs)
    for names in (*own, *(names for _, names in written.labels)):
        named = part.named_by(tuple(map(str, names or ())))
        if named is not part:
            return named, (
                f"the numbers in the data are the model's class labels {some(named.class_names or ())}",
            )
    return part, ()


def _ways(model: Model, seen: dict[str, Seen], written: Written) -> tuple[tuple[InputCard, ...], ...]:
    tensors = model.graph.inputs
    if not tensors:
        raise GraftError("card-draft", "the model has no input", "export it again")
    alone = len(tensors) == 1
    if seen and not alone and "" in seen:
        seen = {tensors[0].name: seen[""]}  # the others are states, masks and the like
    return tuple(itertools.product(*(_cards(tensor, seen, written, alone) for tensor in tensors)))


def _cards(tensor: gs.Variable, seen: dict[str, Seen], written: Written, alone: bool) -> list[InputCard]:
    """Return the cards of one of several inputs; those that the data lack are the same for all samples."""
    own = seen.get(tensor.name, seen.get("") if alone else None)
    if seen and own is None and not alone:
        mask = "mask" in tensor.name.casefold()
        return [InputCard(name=tensor.name, kind="tensor", constant=1.0 if mask else 0.0)]
    return input_cards(tensor, own, written.preprocessing, alone)
