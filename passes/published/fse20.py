"""The six approaches of Pan and Rajan, "On Decomposing a Deep Neural Network into Modules" (ESEC/FSE 2020).

All make a module of the parent's own shape for one class of a dense network. They choose edges by examples of
the class, which remove what they do not use (concern identification, algorithm 1), and by examples of the
other classes, which restore what these use (tangling identification, algorithm 2); two of them change the
output as well (algorithms 4 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.special import softmax

from graft.passes.published.dense_network import Dense, DenseNetwork
from graft.passes.published.fse20_edges import FEW_EDGES, Procedure
from graft.passes.published.fse20_head import Channel, RemoveIrrelevant, negative_node
from graft.passes.published.method import CODE, PAPER, MaskInputs, MaskMethod, MaskReport
from graft.passes.published.observed import observed
from graft.rewriter.arrays import Array, Integers, Single
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score

SURE = 0.9
"""Positive examples have a higher probability of their class under the parent."""
FEW_SHARE = 0.1
"""The paper: the share of the output's edges at which a module starts afresh; the code has a number."""
UNLIKELY = 1e-4
LIKELY = 0.5
BATCH = 256
DEEP = 4
"""Hidden layers from which on the authors' scripts take a weight of 0 for no weight."""


@dataclass(frozen=True)
class Fse20(MaskMethod):
    """Base of the six approaches.

    Attributes:
        variant: ``code`` or ``paper``.
        concerned: at most so many examples of the class are used.
        unconcerned: so many of every other class; ``None``: as many as the approach asks for.
    """

    variant: str = CODE
    concerned: int = 1000
    unconcerned: int | None = None

    scores: ClassVar[str] = "fse20:vote"
    balanced: ClassVar[bool] = True
    """99 examples of all other classes together for 100 of the class; else 1."""
    restores_sure_outputs: ClassVar[bool] = False
    """In the paper, too, an example restores outputs of more than one half only."""

    @property
    def restore_output_above(self) -> float:
        """The probability beyond which an example of another class restores an output."""
        return LIKELY if self.variant == CODE or self.restores_sure_outputs else UNLIKELY

    def procedure(self, edges: int) -> Procedure:
        """Return how edges are chosen, in the variant.

        Args:
            edges: of the output layer.
        """
        few = FEW_EDGES if self.variant == CODE else int(FEW_SHARE * edges) + 1
        return Procedure(restore_output_above=self.restore_output_above, few_edges=few)

    def change_head(self, layers: Sequence[Dense], place: int) -> int | None:
        """Change the output of a module in place: nothing.

        Args:
            layers: of the module.
            place: of its class among the outputs.

        Returns:
            The output for all other classes, where there is one.
        """
        del layers, place
        return None

    def mask(self, model: Model, inputs: MaskInputs) -> MaskReport:
        """Choose edges by examples, in the order of the samples."""
        network = DenseNetwork(model, self.name)
        parent = network.layers
        positives, negatives = self._examples(inputs)
        seen = [_values(inputs, network.input, rows) for rows in (positives, negatives)]
        layers = self.procedure(parent[-1].weights.size).module(parent, *seen)
        node = self.change_head(layers, inputs.place)
        network.write(layers)
        lost = sum(
            np.count_nonzero((old.weights != 0) & (new.weights == 0))
            for old, new in zip(parent, layers, strict=True)
        )
        return MaskReport(
            changed=int(lost), positives=len(positives), negatives=len(negatives), negative=node
        )

    def _examples(self, inputs: MaskInputs) -> tuple[Integers, Integers]:
        """Return the positions of examples of the class and of the others among the samples."""
        labels, place, classes = inputs.samples.labels, inputs.place, len(inputs.card.labels)
        if labels.ndim > 1:
            raise GraftError(
                "method-steps", f"the method {self.name} takes one label a sample", "choose another method"
            )
        shares = inputs.once(("published", "shares"), lambda: _shares(inputs))
        positives = np.flatnonzero((labels == place) & (shares[:, place] > SURE))[: self.concerned]
        if not len(positives):
            raise GraftError(
                "method-examples",
                f"the method {self.name} takes samples of '{inputs.name}' to which the parent gives a "
                f"probability above {SURE}, and there are none",
                "give more samples, or choose another method",
            )
        each = self.unconcerned
        if each is None:
            together = self.concerned * (99 if self.balanced else 1) // 100
            each = max(1, together // (classes - 1))
        others = [np.flatnonzero(labels == other)[:each] for other in range(classes) if other != place]
        return positives, np.concatenate(others)


@dataclass(frozen=True)
class TiI(Fse20):
    """TI-I, imbalance: 1,000 examples of the class, one of every other class (of ten)."""

    name: ClassVar[str] = "fse20:ti-i"
    balanced: ClassVar[bool] = False


@dataclass(frozen=True)
class TiPn(Fse20):
    """TI-PN, punish negatives: an example of the class also removes outputs that it makes unlikely.

    The authors' scripts differ in whether examples of other classes restore outputs; here they do.
    """

    concerned: int = 200

    name: ClassVar[str] = "fse20:ti-pn"

    def procedure(self, edges: int) -> Procedure:
        """Punish, and in the code leave rows of the next layer alone."""
        found = super().procedure(edges)
        return replace(found, punish_at_or_below=UNLIKELY, clear_next_rows=self.variant == PAPER)


@dataclass(frozen=True)
class TiHp(Fse20):
    """TI-HP, higher priority: examples of the class come last and have the last word."""

    concerned: int = 200

    name: ClassVar[str] = "fse20:ti-hp"

    def procedure(self, edges: int) -> Procedure:
        """Turn the order."""
        return replace(super().procedure(edges), negatives_first=True)


@dataclass(frozen=True)
class TiSne(Fse20):
    """TI-SNE, strong negative edges: as many examples of all other classes together as of the class."""

    name: ClassVar[str] = "fse20:ti-sne"
    restores_sure_outputs: ClassVar[bool] = True


@dataclass(frozen=True)
class CmC(TiSne):
    """CM-C, channelling: TI-SNE, then one output for all other classes."""

    name: ClassVar[str] = "fse20:cm-c"

    def change_head(self, layers: Sequence[Dense], place: int) -> int | None:
        """Average the other outputs into one."""
        Channel(slip=self.variant == CODE).apply(layers, place)
        return negative_node(place)


@dataclass(frozen=True)
class CmRie(CmC):
    """CM-RIE, remove irrelevant edges: before channelling, units that only serve others become one."""

    name: ClassVar[str] = "fse20:cm-rie"

    def change_head(self, layers: Sequence[Dense], place: int) -> int | None:
        """Merge irrelevant units, then average the other outputs into one."""
        if self.variant == PAPER:
            merge = RemoveIrrelevant(below=0.0, keep_mean=True)
        else:
            merge = RemoveIrrelevant(with_edge=len(layers) > DEEP)
        merge.apply(layers, place)
        return super().change_head(layers, place)


def _shares(inputs: MaskInputs) -> Array:
    """Return the parent's probabilities, float32 (samples, classes)."""
    scores = score(inputs.parent, inputs.samples, inputs.device, batch=BATCH).scores
    found: Array = scores if inputs.card.output.kind == "probabilities" else softmax(scores, axis=1)
    return found


def _values(inputs: MaskInputs, tensor: str, rows: Integers) -> Single:
    """Return what the first layer reads for some samples, float32 (rows, values)."""
    chosen = inputs.samples.take(rows)
    parts = [
        np.asarray(values[tensor], np.float32).reshape(len(values[tensor]), -1)[: len(labels)]
        for values, labels in observed(inputs.parent, [tensor], chosen, inputs.device)
    ]
    return np.concatenate(parts)
