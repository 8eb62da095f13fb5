"""Pan and Rajan, "Decomposing CNNs into Reusable and Replaceable Modules" (ICSE 2022).

A module keeps the positions of each convolution's output that are above 0 for any example of the class, or of
the others: a map of zeros and ones is multiplied to it. Units of hidden dense layers stay likewise, and the
outputs of all other classes become one, their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from graft.passes.published.dense_network import Dense, dense_layers
from graft.passes.published.fse20_head import Channel, negative_node
from graft.passes.published.icse22_backtrack import Backtrack
from graft.passes.published.icse22_maps import RECTIFIERS, Maps, Watched, apply, first_of
from graft.passes.published.method import MaskInputs, MaskMethod, MaskReport
from graft.rewriter.arrays import Integers, Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model

PAPER, PROSE = "paper", "prose"
NETWORK, LINEAR = PROPAGATIONS = ("network", "linear")
CONV, RELU = PLACES = ("conv", "relu")
Counts = NDArray[np.uint16]
DELTA = 0.5
"""Weights beyond which a node serves the other classes only."""


@dataclass(frozen=True)
class CiTiMc(MaskMethod):
    """CI+TI+MC: concern and tangling identification, modularizing the concern.

    Attributes:
        variant: of backtracking: the rule as it is printed (``paper``), or as the text means it (``prose``).
        propagation: examples pass through the network as it is, or without activations (``linear``), as in
            the code of the dense paper.
        concerned: at most so many examples of the class; as many of all others together.
        map: maps are of convolutions' outputs (``conv``), or of activations (``relu``).
    """

    variant: str = PAPER
    propagation: str = NETWORK
    concerned: int = 1000
    map: str = CONV

    name: ClassVar[str] = "icse22:ci-ti-mc"
    scores: ClassVar[str] = "vote"
    pair: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = (PAPER, PROSE)

    def mask(self, model: Model, inputs: MaskInputs) -> MaskReport:
        """Multiply maps of positions, remove units, and let one output be that of all other classes."""
        layers, places = dense_layers(model), self._places(model)
        if not layers or not places:
            raise GraftError(
                "method-convolution",
                f"the method {self.name} does not fit the model: it is for convolutions, then dense layers",
                "choose another method, such as ablation",
            )
        hidden = [layer.input.name for layer in layers[1:]]
        watched = Watched.of(inputs.parent.copy(), [*places, *hidden], self.name)
        on, counts = self._observe(watched, inputs)
        weights = [Dense(layer.weights(), layer.offset()) for layer in layers]
        for number, name in enumerate(hidden):
            remove_units(weights, number, ~on.pop(name))
        Channel(slip=False).apply(weights, inputs.place)
        self.backtrack(model, layers[0].input.name, weights, inputs.place, on)
        for layer, dense in zip(layers, weights, strict=True):
            layer.write(dense)
        off, node = apply(model, on), negative_node(inputs.place)
        return MaskReport(changed=off, positives=counts[0], negatives=counts[1], negative=node)

    def backtrack(
        self, model: Model, features: str, weights: Sequence[Dense], place: int, maps: Maps
    ) -> None:
        """Turn off further positions, in place: none.

        Args:
            model: the parent.
            features: the tensor that the first dense layer reads.
            weights: of the dense layers, in place.
            place: of the class among the outputs.
            maps: where convolutions are on, in place.
        """
        del model, features, weights, place, maps

    def _places(self, model: Model) -> list[str]:
        kinds = ("Conv",) if self.map == CONV else RECTIFIERS
        found = [node.outputs[0] for node in model.graph.nodes if node.op in kinds]
        return [tensor.name for tensor in found if len(tensor.shape or ()) > 2]

    def _observe(self, watched: Watched, inputs: MaskInputs) -> tuple[Maps, tuple[int, int]]:
        """Return where tensors are on for examples of the class or of the others, and how many there were."""
        labels, classes = inputs.samples.labels, len(inputs.card.labels)
        own = first_of(labels, inputs.place, self.concerned)
        each = max(1, self.concerned // (classes - 1))
        if not len(own):
            raise GraftError(
                "method-examples",
                f"the method {self.name} takes samples of '{inputs.name}', and there are none",
                "give samples of the class",
            )
        linear = self.propagation == LINEAR

        def on(rows: Integers) -> Maps:
            return watched.on(inputs.samples.take(rows), inputs.device, linear)

        def of_all() -> dict[str, Counts]:
            """Count the classes with an example for which a position is on."""
            counts = {name: np.zeros(shape, np.uint16) for name, shape in watched.tensors.items()}
            for place in range(classes):
                for name, mask in on(first_of(labels, place, each)).items():
                    counts[name] += mask
            return counts

        every, mine = inputs.once((self, "classes"), of_all), on(first_of(labels, inputs.place, each))
        found = {name: mask | (every[name] > mine[name]) for name, mask in on(own).items()}
        others = sum(len(first_of(labels, place, each)) for place in range(classes) if place != inputs.place)
        return found, (len(own), others)


@dataclass(frozen=True)
class Bln(CiTiMc):
    """+MC-BLN: nodes that serve the other classes only are followed back to the last convolutions."""

    name: ClassVar[str] = "icse22:bln"
    through: ClassVar[bool] = False

    def backtrack(
        self, model: Model, features: str, weights: Sequence[Dense], place: int, maps: Maps
    ) -> None:
        """Turn off positions that only such nodes need, in place."""
        kept: Mask = ~self._irrelevant(weights[-1], place)
        for number in reversed(range(len(weights) - 1)):
            remove_units(weights, number, ~kept)
            kept = np.asarray(weights[number].weights.any(axis=1), bool)
        shapes = {
            name: tuple(tensor.shape[1:])
            for name, tensor in model.graph.tensors().items()
            if tensor.shape and all(isinstance(size, int) for size in tensor.shape[1:])
        }
        Backtrack(model, shapes, maps, self.through).run(features, kept)

    def _irrelevant(self, output: Dense, place: int) -> Mask:
        """Return the inputs of the last layer that serve the other classes only: bool (inputs,)."""
        own, others = output.weights[:, place], output.weights[:, negative_node(place)]
        if self.variant == PAPER:
            return np.asarray((others <= -DELTA) & (own >= DELTA))
        return np.asarray((others >= DELTA) & (own <= -DELTA))


@dataclass(frozen=True)
class Bi(Bln):
    """+MC-BI: from there back through all convolutions to the input."""

    name: ClassVar[str] = "icse22:bi"
    through: ClassVar[bool] = True


def remove_units(weights: Sequence[Dense], number: int, gone: Mask) -> None:
    """Remove units of a hidden dense layer, in place.

    Args:
        weights: of the dense layers.
        number: of the layer.
        gone: bool (units,).
    """
    weights[number].weights[:, gone] = 0
    weights[number].bias[gone] = 0
    weights[number + 1].weights[gone] = 0
