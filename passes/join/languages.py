"""Join encoder-decoders for different languages: the first word of an answer decides which one writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined, Report
from graft.passes.join.compatibility import check_kinds
from graft.passes.join.merge import Meet, Merge, input_of
from graft.rewriter.card.card import Card
from graft.rewriter.card.decoder_card import DecoderCard
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import Origin, parents_of, stamp, terms, versions

FAR = -1e4
"""Added to the scores of words that a network does not write: no share is left of them, and half precision
holds it."""


@dataclass(frozen=True, kw_only=True)
class LanguagesReport(Report):
    """An encoder-decoder for the languages of several; ``changed`` counts these.

    Attributes:
        model: with its card.
        shared: nodes that run once in place of several equal ones, and weights that are stored so.
    """

    model: Model
    shared: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class JoinLanguages:
    """Join encoder-decoders side by side, each for the languages that it speaks.

    All networks run on all samples; of each sample the scores of the network are taken whose language its
    first written word begins. The columns are the words of all of them, by their numbers.

    Attributes:
        opset: operator set to write; ``None``: the highest among the networks.
        ir_version: as ``opset``.
    """

    opset: int | None = None
    ir_version: int | None = None

    def __call__(self, models: Sequence[Model], context: Context) -> LanguagesReport:
        """Join ``models``.

        Args:
            models: with cards that have a decoder; left as they are.
            context: nothing of it is used.

        Raises:
            GraftError: a language is there twice, a model has no decoder, or inputs, outputs and words do
                not fit together.
        """
        cards = [model.require_card() for model in models]
        decoders = [_decoder(card) for card in cards]
        _check(cards, decoders)
        copies = [model.copy() for model in models]
        for copy in copies:
            output = copy.require_card().output.name
            copy.graph.outputs = [tensor for tensor in copy.graph.outputs if tensor.name == output]
            copy.tidy()
        input_of(copies, "parent", raw_if_images=False)
        met = Meet(None, opset=self.opset, ir_version=self.ir_version)(copies, context)
        words = _words(cards, decoders)
        merged = Merge(copies, activations=False)
        dtypes = [np.dtype(branch.dtype) for branch in merged.branches]
        dtype = np.result_type(*dtypes)
        scores = [
            _spread(merged.build, branch.scores, decoder, list(words), dtype, f"words_{number}", own)
            for number, (branch, decoder, own) in enumerate(
                zip(merged.branches, decoders, dtypes, strict=True)
            )
        ]
        place = [each.name for each in cards[0].inputs].index(decoders[0].input)
        chosen = _chosen(merged.build, merged.inputs[place], decoders, scores)
        kinds = {card.output.kind for card in cards}
        kind = "probabilities" if kinds == {"probabilities"} else "logits"
        joined = _joined(decoders, list(words))
        report = merged.finish(chosen, tuple(words.values()), kind, dtype, decoder=joined)
        shared = (report.shared.nodes, report.shared.weights) if report.shared else (0, 0)
        _stamp(report.model, models, tuple(words.values()))
        languages = sum(len(decoder.starts) for decoder in decoders)
        declined: tuple[Declined, ...] = (*met.declined, *report.declined)
        return LanguagesReport(changed=languages, declined=declined, model=report.model, shared=shared)


def _decoder(card: Card) -> DecoderCard:
    """Return the decoder of a card, which has to have one."""
    if card.decoder is None:
        raise GraftError(
            "outputs-differ",
            f"{card.name or 'one model'} has no decoder, and others write words",
            "join encoder-decoders with each other, and classifiers with each other",
        )
    return card.decoder


def _check(cards: Sequence[Card], decoders: Sequence[DecoderCard]) -> None:
    """Raise unless each language is there once, and words and special words mean the same everywhere."""
    owners: dict[str, int] = {}
    for number, (card, decoder) in enumerate(zip(cards, decoders, strict=True)):
        check_kinds(cards[0], card, same_parent=card.inputs == cards[0].inputs)
        same = (decoder.end, decoder.padding) == (decoders[0].end, decoders[0].padding)
        if not same or [each.name for each in card.inputs].index(decoder.input) != [
            each.name for each in cards[0].inputs
        ].index(decoders[0].input):
            raise GraftError(
                "vocabularies-differ",
                "the decoders end answers or fill them up by different words",
                "join models whose cards agree in decoder.input, end and padding",
            )
        for name, start in decoder.starts.items():
            if name in owners or any(
                start in decoders[other].starts.values() for other in set(owners.values()) - {number}
            ):
                raise GraftError(
                    "class-twice",
                    f"two models speak {name}, or begin with its first word, number {start}",
                    "leave one of them out",
                )
            owners[name] = number


def _words(cards: Sequence[Card], decoders: Sequence[DecoderCard]) -> dict[int, str]:
    """Return the words of all models by their numbers, in order.

    Raises:
        GraftError: one number means different words.
    """
    found: dict[int, str] = {}
    for card, decoder in zip(cards, decoders, strict=True):
        for place, label in enumerate(card.labels):
            number = decoder.number_of(place)
            if found.setdefault(number, label) != label:
                raise GraftError(
                    "vocabularies-differ",
                    f"word {number} is '{found[number]}' in one model and '{label}' in another",
                    "join models of one vocabulary",
                )
    return dict(sorted(found.items()))


def _joined(decoders: Sequence[DecoderCard], numbers: Sequence[int]) -> DecoderCard:
    """Return the decoder of all languages, with words of these numbers."""
    starts = {name: start for decoder in decoders for name, start in decoder.starts.items()}
    plain = list(numbers) == list(range(len(numbers)))
    longest = max(decoder.longest for decoder in decoders)
    words = None if plain else tuple(numbers)
    return decoders[0].model_copy(update={"starts": starts, "words": words, "longest": longest})


def _spread(
    build: Builder,
    scores: gs.Tensor,
    decoder: DecoderCard,
    numbers: Sequence[int],
    dtype: np.dtype[np.generic],
    name: str,
    own: np.dtype[np.generic],
) -> gs.Tensor:
    """Return the scores of a network in the columns of all words.

    Args:
        build: adds nodes.
        scores: (samples, steps, own words).
        decoder: of the network.
        numbers: of all words.
        dtype: of the result.
        name: of the nodes.
        own: type of the scores.
    """
    scores = build.cast(scores, dtype, f"{name}/typed", own)
    count = len(numbers) if decoder.words is None else len(decoder.words)
    places = [decoder.label_of(number, count) for number in numbers]
    if places == list(range(count)):
        return scores
    columns = build.pick(scores, [0 if place is None else place for place in places], f"{name}/columns")
    absent = np.array([FAR if place is None else 0.0 for place in places], dtype)
    if not absent.any():
        return columns
    return build.node("Add", name, [columns, build.constant(f"{name}/absent", absent)])


def _chosen(
    build: Builder, written: gs.Tensor, decoders: Sequence[DecoderCard], scores: Sequence[gs.Tensor]
) -> gs.Variable:
    """Return for each sample the scores of the network for its language; the last one's for others."""
    first = build.node("Gather", "first_word", [written, build.constant("first", np.array([0]))], axis=1)
    first = build.expand(first, 2, "first_word/wide")
    chosen = scores[-1]
    for decoder, own in zip(decoders[:-1], scores[:-1], strict=True):
        for start in decoder.starts.values():
            value = build.constant(f"start_{start}", np.array([[[start]]], written.dtype))
            mine = build.node("Equal", f"is_{start}", [first, value])
            chosen = build.node("Where", f"chosen_{start}", [mine, own, chosen])
    return chosen


def _stamp(model: Model, models: Sequence[Model], labels: tuple[str, ...]) -> None:
    """Write card and origin of the result."""
    parents = tuple({record.graph_sha256: record for each in models for record in parents_of(each)}.values())
    card = model.require_card()
    model.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
    numbers = max((record.labels for record in parents), key=len)
    options = {"strategy": "branches", "scores": "first word"}
    origin = Origin(parents=parents, classes=labels, options=options, numbers=numbers, versions=versions())
    stamp(model, "composite", origin)
