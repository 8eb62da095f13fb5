"""Position maps of a convolutional network: where its convolutions are ever on, for some samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Integers, Mask
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import dtype_of, is_constant
from graft.rewriter.run.session import Device

BATCH = 32
RECTIFIERS = ("Clip", "Elu", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Selu", "ThresholdedRelu")
"""Activations that are left out where propagation is linear."""
Maps = dict[str, Mask]
"""Name of a tensor to where it is on: bool (channels, height, width), or (units,) behind dense layers."""


@dataclass(frozen=True)
class Watched:
    """Tensors whose positions are watched.

    Attributes:
        model: the parent.
        tensors: names, with shapes behind the samples.
    """

    model: Model
    tensors: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: Model, names: Sequence[str], method: str) -> Watched:
        """Watch some tensors.

        Args:
            model: the parent.
            names: of the tensors.
            method: named in errors.

        Raises:
            GraftError: ``method-size`` where a size behind the samples is not fixed.
        """
        tensors, shapes = model.graph.tensors(), {}
        if any(tensors[name].shape is None for name in names):
            model.refresh_shapes()
        for name in names:
            behind = tuple((tensors[name].shape or [None, None])[1:])
            if not all(isinstance(size, int) for size in behind):
                raise GraftError(
                    "method-size",
                    f"the method {method} keeps a map of positions, and {name} has no fixed size",
                    "export the model for images of one size, or choose another method",
                )
            shapes[name] = behind
        return cls(model, shapes)

    def on(self, samples: Samples, device: Device, linear: bool) -> Maps:
        """Return where the tensors are above 0 for any of some samples.

        Args:
            samples: of the parent.
            device: where it runs.
            linear: without activations between the layers.
        """
        watching = self.model.copy()
        if linear:
            _leave_out_activations(watching)
        tensors = watching.graph.tensors()
        build = Builder(watching.graph, watching.opset, "graft/maps")
        card = watching.require_card()
        outputs = []
        for number, name in enumerate(self.tensors):
            tensors[name].dtype = tensors[name].dtype or np.dtype(np.float32)
            outputs.append(build.reduce("ReduceMax", tensors[name], [0], f"{number}", keep=False))
            outputs[-1].dtype, outputs[-1].shape = tensors[name].dtype, list(self.tensors[name])
        kept = [each for each in watching.graph.outputs if each.name == card.output.name]
        watching.graph.outputs = [*kept, *outputs]  # the first tells a session whether rows are samples
        watching.tidy()
        session = device.open(watching)
        found = {name: np.zeros(shape, bool) for name, shape in self.tensors.items()}
        asked = [output.name for output in outputs]
        for feed, _ in session.batches(samples, BATCH):
            values = session.run(feed, asked)
            for name, output in zip(self.tensors, asked, strict=True):
                found[name] |= values[output] > 0
        return found


def first_of(labels: Integers, place: int, count: int) -> Integers:
    """Return the positions of the first samples of a class: int64 (at most ``count``,)."""
    return np.flatnonzero(labels == place)[:count]


def apply(model: Model, maps: Mapping[str, Mask]) -> int:
    """Multiply tensors with their maps, in place; return the number of positions that are off.

    Args:
        model: a copy of the parent.
        maps: of tensors of convolutions and of activations.
    """
    tensors, off = model.graph.tensors(), 0
    for name, on in maps.items():
        off += int((~on).sum())
        if on.all():
            continue
        tensor = tensors[name]
        masked = gs.Variable(f"{name}/masked", tensor.dtype, tensor.shape)
        for reader in list(tensor.outputs):
            reader.inputs = [masked if each is tensor else each for each in reader.inputs]
        factor = gs.Constant(f"{name}/map", on[None].astype(dtype_of(tensor)))
        model.graph.nodes.append(gs.Node("Mul", f"{name}/mask", {}, [tensor, factor], [masked]))
        _clear_dead_channels(tensor.inputs[0], on)
    model.tidy()
    return off


def _clear_dead_channels(node: gs.Node, on: Mask) -> None:
    """Set the weights of a convolution to 0 that make channels which are off everywhere."""
    dead = ~on.reshape(len(on), -1).any(axis=1)
    if node.op != "Conv" or not dead.any():
        return
    for index in (1, 2):
        if index < len(node.inputs) and is_constant(node.inputs[index]):
            values = node.inputs[index].values.copy()
            values[dead] = 0
            node.inputs[index] = gs.Constant(f"{node.name}/input_{index}", values)


def _leave_out_activations(model: Model) -> None:
    """Let activations pass what they read, in place."""
    for node in model.graph.nodes:
        if node.op in RECTIFIERS:
            node.op, node.attrs, node.inputs = "Identity", {}, node.inputs[:1]
