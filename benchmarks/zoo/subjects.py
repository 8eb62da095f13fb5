"""Everything that the benchmark measures: the zoo, the light models, published and bundled models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from benchmarks.zoo import FOLDER, Entry, Input, image, light
from benchmarks.zoo.entries import ENTRIES

ROOT = Path(__file__).parents[2]

PUBLISHED = (
    Entry("resnet20_cifar10", "dynamo", "ResNet-20 (trained)", "cnn", (image("input"),)),
    Entry(
        "efficientnet_lite0_imagenet", "dynamo", "EfficientNet-Lite0 (trained)", "cnn", (image("input", 224),)
    ),
)
BUNDLED = (
    Entry("mnist_torch", "dynamo", "residual CNN (trained)", "cnn", (Input("input", (1, 28, 28)),)),
    Entry(
        "fashion_keras",
        "keras",
        "separable CNN (trained)",
        "cnn",
        (Input("images", (28, 28, 1), layout="NHWC"),),
        "probabilities",
        "probabilities",
    ),
    Entry(
        "digits_sklearn",
        "sklearn",
        "MLP (trained)",
        "mlp",
        (Input("pixels", (64,), "tensor"),),
        "output_probability",
        "probabilities",
    ),
)


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        entry: what it is.
        path: its file; ``None`` for a model that is made when it is used.
    """

    entry: Entry
    path: Path | None

    def proto(self) -> onnx.ModelProto:
        """The model."""
        return light.load(self.entry) if self.path is None else onnx.load(self.path)


def subjects(folder: Path = FOLDER, wanted: Sequence[str] = ()) -> list[Subject]:
    """The models that are there, or those that are wanted, in a fixed order.

    Raises:
        SystemExit: a model that is wanted is not there.
    """
    files = [(entry, folder / f"{entry.name}.onnx") for entry in ENTRIES.values()]
    bench = os.environ.get("GRAFT_BENCH")
    if bench:
        files += [(entry, Path(bench) / "vision" / f"{entry.name}.onnx") for entry in PUBLISHED]
    files += [(entry, ROOT / "models" / f"{entry.name}.onnx") for entry in BUNDLED]
    found = {entry.name: Subject(entry, path) for entry, path in files if path.is_file()}
    found |= {entry.name: Subject(entry, None) for entry in light.entries()}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SystemExit(f"not there: {', '.join(missing)}; run python -m benchmarks.zoo")
    return [found[name] for name in wanted] if wanted else list(found.values())
