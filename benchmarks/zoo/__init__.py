"""A zoo of classifiers with seeded random weights, exported small by five exporters.

This module says what there is, and needs nothing but numpy, for it is read in the environment of every
framework. ``python -m benchmarks.zoo`` exports everything (see README.md).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Family = Literal["cnn", "transformer", "mlp"]
Meaning = Literal["logits", "probabilities"]

CLASSES = 10
LABELS = tuple(f"class {number}" for number in range(CLASSES))
SCALE, MEAN, STD = 1 / 255, 0.5, 0.25
FOLDER = Path(__file__).parents[2] / ".zoo"


@dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: as the graph calls it.
        shape: without the batch.
        kind: what random values look like; a mask is 1 for the first tokens of a sample and 0 behind.
        layout: order of the axes of an image.
        high: tokens count from 0 up to this.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["image", "tensor", "tokens", "mask"] = "image"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    high: int = 0

    def draw(self, samples: int, random: np.random.Generator) -> Array:
        """Prepared random values.

        Images are coarse patches with some noise: samples of pure noise are all alike to a network that
        averages over space.
        """
        if self.kind == "tokens":
            return random.integers(0, self.high, (samples, *self.shape))
        if self.kind == "mask":
            lengths = random.integers(self.shape[0] // 2, self.shape[0] + 1, (samples, 1))
            return (np.arange(self.shape[0]) < lengths).astype(np.int64)
        noise = random.normal(size=(samples, *self.shape))
        if self.kind == "image":
            space = (2, 3) if self.layout == "NCHW" else (1, 2)
            coarse = [4 if axis in space else size for axis, size in enumerate(noise.shape)]
            patches = random.normal(size=coarse)
            for axis in space:
                patches = patches.repeat(-(-noise.shape[axis] // 4), axis)
            noise = 0.3 * noise + patches[tuple(slice(size) for size in noise.shape)]
        return noise.astype(np.float32)

    def raw(self, samples: int, random: np.random.Generator) -> Array:
        """Random values as a data set holds them: images of bytes, channels last."""
        values = self.draw(samples, random)
        if self.kind != "image":
            return values
        bytes_ = np.clip((values * STD + MEAN) / SCALE, 0, 255).astype(np.uint8)
        return bytes_.transpose(0, 2, 3, 1) if self.layout == "NCHW" else bytes_

    def card(self) -> str:
        """The entry of this input in a card, after its name."""
        if self.kind == "image":
            size = self.shape[1:] if self.layout == "NCHW" else self.shape[:2]
            color = "RGB" if 3 in (self.shape[0], self.shape[-1]) else "GRAY"
            return (
                f"kind: image, layout: {self.layout}, color: {color}, size: {list(size)}, "
                f"scale: {SCALE!r}, mean: [{MEAN}], std: [{STD}]"
            )
        return "kind: tokens" if self.kind in ("tokens", "mask") else "kind: tensor"


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: of the file, without suffix.
        exporter: who writes it.
        architecture: as its paper or framework calls it.
        family: what share of the parameters has to be cuttable depends on it.
        inputs: of the graph.
        output: name of the output that classifies.
        kind: what that output means, as in a card.
        opset: asked of the exporter.
    """

    name: str
    exporter: Literal["dynamo", "torchscript", "keras", "flax", "sklearn", "onnx"]
    architecture: str
    family: Family
    inputs: tuple[Input, ...]
    output: str = "logits"
    kind: Meaning = "logits"
    opset: int = 18

    def draw(self, samples: int, seed: int = 0) -> dict[str, Array]:
        """Prepared random inputs by name."""
        random = np.random.default_rng(seed)
        return {each.name: each.draw(samples, random) for each in self.inputs}

    def data(self, samples: int, seed: int = 0) -> dict[str, Array]:
        """Random samples and labels, as an ``.npz`` holds them."""
        random = np.random.default_rng(seed)
        arrays: dict[str, Array] = {}
        for split in ("train", "test"):
            arrays[f"y_{split}"] = random.permutation(np.arange(samples) % CLASSES)
            for each in self.inputs:
                name = f"x_{split}" if len(self.inputs) == 1 else f"x_{split}.{each.name}"
                arrays[name] = each.raw(samples, random)
        return arrays

    def card(self) -> str:
        """The text of its card."""
        inputs = ", ".join(f"{each.name}: {{{each.card()}}}" for each in self.inputs)
        return (
            f"graft: 1\nname: {self.architecture} with random weights ({self.exporter})\n"
            f"inputs: {{{inputs}}}\n"
            f"output: {{name: {self.output}, kind: {self.kind}}}\n"
            f"labels: {json.dumps(list(LABELS))}\n"
        )


# ------------------------------------------------------------------------ random weights


def random_of(name: str) -> np.random.Generator:
    """A generator of its own for each parameter, whatever the order they come in."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def parameter(name: str, shape: Sequence[int], fan_in: int | None) -> Array:
    """Random values that let mistakes show: no bias is zero, no scale is one.

    Args:
        name: the parameter's path in its framework.
        shape: of the values.
        fan_in: how many values one output sums up; ``None`` for biases, scales and embeddings.
    """
    random, last = random_of(name), name.replace("/", ".").rpartition(".")[2]
    if fan_in is not None:
        return random.normal(0, np.sqrt(1.5 / fan_in), shape)
    if last in ("bias", "beta", "b"):
        return random.normal(0, 0.2, shape)
    if len(shape) == 1:
        return random.uniform(0.6, 1.4, shape) * random.choice([-1, 1], shape, p=[0.1, 0.9])
    return random.normal(0, 0.5, shape)


def statistics(name: str, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Running statistics of a BatchNormalization that are near what was measured, but not the same.

    Args:
        name: the layer's path in its framework.
        mean: that was measured, one number a channel.
        variance: that was measured.
    """
    random = random_of(name)
    shift = random.normal(0, 0.2, mean.shape) * np.sqrt(variance + 1e-3)
    return mean + shift, (variance + 1e-2) * random.uniform(0.7, 1.4, variance.shape)


def image(name: str, size: int = 32, layout: Literal["NCHW", "NHWC"] = "NCHW") -> Input:
    """A square image in three colours.

    Args:
        name: of the input.
        size: height and width.
        layout: order of the axes.
    """
    shape = (3, size, size) if layout == "NCHW" else (size, size, 3)
    return Input(name, shape, layout=layout)
