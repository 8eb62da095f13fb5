"""Export networks written in Flax with seeded random weights, by jax2onnx.

Run in an environment with jax, flax and jax2onnx::

    python -m benchmarks.zoo.flax_models [-o .zoo] [NAME ...]
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import onnx
from flax import nnx
from jax import Array
from jax import numpy as jnp
from jax2onnx import to_onnx

from benchmarks.zoo import CLASSES, Entry, parameter, statistics
from benchmarks.zoo.entries import ENTRIES
from benchmarks.zoo.export import export_all

SAMPLES = 64


class ResidualBlock(nnx.Module):
    """Two convolutions and a shortcut, which is projected where width or size changes."""

    def __init__(self, narrow: int, wide: int, stride: int, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(narrow, wide, (3, 3), strides=stride, rngs=rngs)
        self.first_norm = nnx.BatchNorm(wide, rngs=rngs)
        self.second = nnx.Conv(wide, wide, (3, 3), rngs=rngs)
        self.second_norm = nnx.BatchNorm(wide, rngs=rngs)
        self.shortcut = nnx.Conv(narrow, wide, (1, 1), strides=stride, rngs=rngs) if stride > 1 else None

    def __call__(self, x: Array) -> Array:
        """The block's output."""
        y = nnx.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class ResNet(nnx.Module):
    """A residual network of four blocks."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        widths = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2))
        self.blocks = nnx.List([ResidualBlock(*width, rngs=rngs) for width in widths])
        self.head = nnx.Linear(40, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


class MixerBlock(nnx.Module):
    """Mixes tokens, then channels."""

    def __init__(self, tokens: int, width: int, rngs: nnx.Rngs) -> None:
        self.token_norm = nnx.LayerNorm(width, rngs=rngs)
        self.token_in = nnx.Linear(tokens, 2 * tokens, rngs=rngs)
        self.token_out = nnx.Linear(2 * tokens, tokens, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.wide = nnx.Linear(width, 3 * width, rngs=rngs)
        self.narrow = nnx.Linear(3 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """The block's output."""
        y = jnp.swapaxes(self.token_norm(x), 1, 2)
        x = x + jnp.swapaxes(self.token_out(nnx.gelu(self.token_in(y))), 1, 2)
        return x + self.narrow(nnx.gelu(self.wide(self.norm(x))))


class Mixer(nnx.Module):
    """MLP-Mixer of three blocks over patches of 8x8."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, 32, (8, 8), strides=8, padding="VALID", rngs=rngs)
        self.blocks = nnx.List([MixerBlock(16, 32, rngs) for _ in range(3)])
        self.norm = nnx.LayerNorm(32, rngs=rngs)
        self.head = nnx.Linear(32, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        x = self.patches(x)
        x = x.reshape(x.shape[0], 16, 32)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(axis=1))


class TransformerBlock(nnx.Module):
    """Attention and a multilayer perceptron, each behind a LayerNorm."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.wide = nnx.Linear(width, 2 * width, rngs=rngs)
        self.narrow = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """The block's output."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.narrow(nnx.gelu(self.wide(self.norm(x))))


class Transformer(nnx.Module):
    """A vision transformer of three blocks that averages over patches of 8x8."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, 48, (8, 8), strides=8, padding="VALID", rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((16, 48)))
        self.blocks = nnx.List([TransformerBlock(48, rngs) for _ in range(3)])
        self.norm = nnx.LayerNorm(48, rngs=rngs)
        self.head = nnx.Linear(48, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        x = self.patches(x)
        x = x.reshape(x.shape[0], 16, 48) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(axis=1))


MODELS = {"resnet_flax": ResNet, "mixer_flax": Mixer, "vit_flax": Transformer}


def build(entry: Entry) -> nnx.Module:
    """The model with its random weights."""
    model = MODELS[entry.name](nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    for path, leaf in nnx.to_flat_state(state):
        name, shape = ".".join(map(str, path)), leaf.shape
        leaf.value = jnp.asarray(parameter(name, shape, _fan_in(name, shape)), jnp.float32)
    nnx.update(model, state)
    calibrate(model, entry.draw(SAMPLES))
    model.eval()
    return model


def _fan_in(name: str, shape: tuple[int, ...]) -> int | None:
    if not name.endswith("kernel"):
        return None
    heads = name.endswith(("query.kernel", "key.kernel", "value.kernel"))
    return shape[0] if heads else int(np.prod(shape[:-1]))


def calibrate(model: nnx.Module, inputs: dict[str, np.ndarray]) -> None:
    """Give every BatchNorm running statistics that fit what reaches it, nearly."""
    layers = {".".join(map(str, p)): m for p, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)}
    for layer in layers.values():
        layer.momentum = 0.0
    model.train()
    model(*(jnp.asarray(value) for value in inputs.values()))
    for name, layer in layers.items():
        mean, variance = statistics(name, np.asarray(layer.mean[...]), np.asarray(layer.var[...]))
        layer.mean.value = jnp.asarray(mean, jnp.float32)
        layer.var.value = jnp.asarray(variance, jnp.float32)


def export(entry: Entry, path: Path) -> None:
    """Write one model with a free batch."""
    names = [each.name for each in entry.inputs]
    proto = to_onnx(
        build(entry),
        [("batch", *each.shape) for each in entry.inputs],
        model_name=entry.name,
        opset=entry.opset,
        input_names=names,
        output_names=[entry.output],
    )
    onnx.save(proto, path)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    export_all([entry for entry in ENTRIES.values() if entry.exporter == "flax"], export)
