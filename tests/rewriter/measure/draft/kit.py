"""Networks whose right card is known: posteriors of noisy templates, so the true scale is the likeliest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.draft.card_draft import draft_card
from graft.rewriter.measure.draft.subject import CardDraft
from tests.small import CPU

Array = NDArray[Any]
CLASSES, SIDE, NOISE = 4, 8, 0.9


class Task:
    """Images (N, H, W, C) of uint8 with labels, and the weights that tell their classes best.

    Args:
        channels: 1 or 3.
        classes: number of classes.
    """

    def __init__(self, channels: int = 1, classes: int = CLASSES, samples: int = 300, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        templates = rng.uniform(0.2, 0.8, (classes, SIDE, SIDE, channels))
        self.labels = np.arange(samples) % classes
        pixels = templates[self.labels] + rng.normal(0, NOISE, (samples, SIDE, SIDE, channels))
        # Shrunk towards gray, so that next to nothing has to be cut off at 0 and 255.
        self.images = np.clip(np.rint((0.5 + (pixels - 0.5) / 8) * 255), 0, 255).astype(np.uint8)
        small, noise = 0.5 + (templates - 0.5) / 8, NOISE / 8
        self.weights = small.reshape(classes, -1) / noise**2
        self.bias = -(small.reshape(classes, -1) ** 2).sum(1) / (2 * noise**2)
        # The same for all classes changes no posterior, and keeps single scores near 0.
        self.weights -= self.weights.mean(axis=0)
        self.bias -= self.bias.mean()
        self.channels = channels

    @property
    def posterior(self) -> Array:
        """Logits (N, classes) of the images."""
        return (self.images.reshape(len(self.images), -1) / 255) @ self.weights.T + self.bias

    def head(self, mean: Sequence[float] = (0,), std: Sequence[float] = (1,)) -> tuple[Array, Array]:
        """Weights (F, classes) and biases for pixels / 255, minus mean, divided by std."""
        means = np.broadcast_to(np.array(mean, float), (SIDE, SIDE, self.channels)).reshape(-1)
        stds = np.broadcast_to(np.array(std, float), (SIDE, SIDE, self.channels)).reshape(-1)
        return (self.weights * stds).T.astype(np.float32), (self.bias + self.weights @ means).astype(
            np.float32
        )

    def split(self, samples: Array | None = None, names: Sequence[str] | None = None) -> Split:
        """The samples, or other forms of them."""
        chosen = (self.images[..., 0] if self.channels == 1 else self.images) if samples is None else samples
        return Dataset.from_arrays(chosen, self.labels, class_names=names).split("train")


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Any],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any]]],
    **metadata: str,
) -> onnx.ModelProto:
    """A checked model; inputs and outputs as (type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    return proto


Node = Callable[..., onnx.NodeProto]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; names separated by blanks."""
    return helper.make_node(op, inputs.split(), outputs.split(), f"{op}_{outputs.split()[0]}", **attributes)


FLAT = (node("Flatten", "x", "flat"),)
"""Of (N, 1, H, W), (N, H, W) and (N, H, W, C)."""
CHANNELS_FIRST = (node("Transpose", "x", "last", perm=[0, 2, 3, 1]), node("Flatten", "last", "flat"))


def classifier(
    task: Task,
    shape: Sequence[Any],
    before: Sequence[onnx.NodeProto] = FLAT,
    after: Sequence[onnx.NodeProto] = (),
    output: tuple[int, Sequence[Any]] = (TensorProto.FLOAT, ["N", CLASSES]),
    dtype: int = TensorProto.FLOAT,
    **normalization: Sequence[float],
) -> onnx.ModelProto:
    """The best classifier of a task: input ``x``, output ``y``, made by ``after`` of the logits ``z``."""
    weights, bias = task.head(**normalization)
    last = "z" if after else "y"
    nodes = [*before, node("Gemm", "flat w b", last), *after]
    return model(nodes, {"w": weights, "b": bias}, {"x": (dtype, shape)}, {"y": output})


def draft(proto: onnx.ModelProto, part: Split | None = None) -> CardDraft:
    """The draft of a card."""
    return draft_card(Model.from_proto(proto), part, CPU)
