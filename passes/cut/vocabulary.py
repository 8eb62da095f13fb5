"""Remove the words from a token model that its calibration text never uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined, Report
from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import is_constant

ALL, USED = VOCABULARIES = ("all", "used")
BATCH = 256
FOLLOWED = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators between the input and the embedding that leave the numbers as they are."""


@dataclass(frozen=True)
class Words:
    """Words of one input.

    Attributes:
        name: of the input.
        kept: number of rows of its embedding that are left, the one for unknown words among them.
        before: number of rows of the parent's.
    """

    name: str
    kept: int
    before: int


@dataclass(frozen=True, kw_only=True)
class VocabularyReport(Report):
    """Words that were removed; ``changed`` counts them, over all inputs.

    Attributes:
        words: of each input that reads an embedding.
    """

    words: tuple[Words, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """Remove the rows of embeddings that no sample reads, in place.

    The model takes the same numbers as before: a map of them to the rows that are left goes in front of the
    embedding. For text of known words the scores stay the same, bit for bit. A word that was removed reads
    the row of the card's ``unknown`` word; where the card names none, one more row that is the mean of
    those removed.
    """

    def __call__(self, subject: Model, context: Context) -> VocabularyReport:
        """Remove words from ``subject``.

        Args:
            subject: a model with a card, changed in place.
            context: samples, which are read.

        Returns:
            The words, and embeddings that were left as they were.

        Raises:
            GraftError: the samples cannot be read, or the card's unknown word is none.
        """
        samples, card = context.samples, subject.require_card()
        inputs = [each for each in card.fed if each.kind == "tokens"]
        if samples is None or not inputs:
            reason = "no samples" if inputs else "no input of tokens"
            return VocabularyReport(declined=(Declined("vocabulary", reason),))
        used = _used(samples, [each.name for each in inputs])
        words: list[Words] = []
        declined: list[Declined] = []
        for each in inputs:
            found = embeddings(subject, each.name)
            if not found:
                declined.append(Declined(each.name, "no embedding reads these tokens"))
            for node in found:
                others = [reader for reader in node.inputs[0].outputs if reader is not node]
                if others:
                    reason = f"its words are read by {others[0].name}, too"
                    declined.append(Declined(node.name, reason))
                else:
                    words.append(remove_rows(subject, node, each, used[each.name]))
        subject.tidy()
        gone = sum(word.before - word.kept for word in words)
        return VocabularyReport(changed=gone, declined=tuple(declined), words=tuple(words))


def _used(samples: Samples, names: Sequence[str]) -> dict[str, Integers]:
    """Return the numbers that samples hold, each once, for each input."""
    found = {name: np.zeros(0, np.int64) for name in names}
    for inputs, _ in samples.batches(BATCH):
        for name in names:
            found[name] = np.union1d(found[name], inputs[name].reshape(-1).astype(np.int64))
    return found


def embeddings(model: Model, name: str) -> list[gs.Node]:
    """Return the nodes that look up rows of a constant by the numbers of an input."""
    ends = [tensor for tensor in model.graph.inputs if tensor.name == name]
    found: list[gs.Node] = []
    while ends:
        tensor = ends.pop()
        for node in tensor.outputs:
            if node.op in FOLLOWED and node.inputs[0] is tensor:
                ends.append(node.outputs[0])
            elif node.op == "Gather" and node.inputs[1] is tensor and int(node.attrs.get("axis", 0)) == 0:
                table = node.inputs[0]
                if is_constant(table) and len(table.shape) > 1 and all(each is not node for each in found):
                    found.append(node)
    return found


def remove_rows(model: Model, node: gs.Node, card: InputCard, used: Integers) -> Words:
    """Keep the rows that are used and that of unknown words; map the numbers of the input to them."""
    table: Array = node.inputs[0].values
    before = len(table)
    stays = np.zeros(before, bool)
    stays[used[(used >= -before) & (used < before)] % before] = True  # negative ones count from the end
    if card.unknown is not None:
        if card.unknown >= before:
            raise GraftError(
                "card-unknown-word",
                f"the card of input '{card.name}' names {card.unknown} as its unknown word, and the "
                f"embedding {node.name} has {before} words",
                "correct unknown in the card, or leave it out",
            )
        stays[card.unknown] = True
    rows = np.flatnonzero(stays)
    kept, unknown = table[rows], 0
    if card.unknown is not None:
        unknown = int(np.searchsorted(rows, card.unknown))
    elif not stays.all():
        unknown = len(rows)
        mean = table[~stays].mean(axis=0, keepdims=True, dtype=np.float64)
        kept = np.concatenate([kept, mean.astype(table.dtype)])
    places = np.full(before, unknown, np.int32)
    places[rows] = np.arange(len(rows), dtype=np.int32)
    if kept.nbytes + places.nbytes >= table.nbytes:
        return Words(card.name, before, before)
    build = Builder(model.graph, model.opset, f"graft/{node.name}")
    mapped = build.node("Gather", "place", [build.constant("places", places), node.inputs[1]], axis=0)
    mapped.dtype, mapped.shape = np.dtype(np.int32), node.inputs[1].shape
    node.inputs = [gs.Constant(f"{node.name}/words", kept), mapped]
    return Words(card.name, len(kept), before)
