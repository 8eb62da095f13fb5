"""What is mutated: small classifiers of many kinds with cards and data, and what Graft makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests import cases
from tests.integration import kit

LABELS = ("ant", "bee", "cow", "dog", "elk")
TRAIN, TEST = 40, 20
GRAPHS = (
    *(
        "dense_convolutions",
        "residual_stream",
        "grouped_convolutions",
        "depthwise_once",
        "squeeze_and_excite",
    ),
    *("batch_normalization", "concatenations", "unequal_splits", "reshapes", "shuffled", "padded_shortcut"),
    *("embedding", "recurrent", "attention_of_three_projections", "attention_operator", "looped", "scanned"),
    *("chosen", "two_inputs", "softmax_end", "gemms", "matmuls", "transposed_convolutions", "free_space"),
    *("layer_normalization", "tiles", "resizes", "logic"),
)
"""Cases of the law, each of them a network for five classes."""
ROOT = Path(__file__).parents[2]
FILES = {
    "digits": ROOT / "models" / "digits_sklearn.onnx",
    "resnet": ROOT / "tests" / "zoo" / "resnet_torchscript.onnx",
    "vit": ROOT / "tests" / "zoo" / "vit_dynamo.onnx",
    "mobilenet": ROOT / "tests" / "zoo" / "mobilenetv3_keras.onnx",
}
"""Classifiers of images as exporters write them, with their cards beside."""
WITH_MODULES = ("gemms", "dense_convolutions", "softmax_end", "pictures")
"""Bases that also have a profile, a plan and modules."""
RUN = ("--threads", "1", "--providers", "cpu")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Base:
    """A classifier that is mutated, with its card and samples.

    Attributes:
        name: of the base.
        model: the network.
        card: text of its card.
        data: arrays of its ``.npz`` file.
        refused: it is no classifier, so that commands have to refuse it.
    """

    name: str
    model: onnx.ModelProto
    card: str
    data: dict[str, Array]
    refused: bool = False


def names() -> tuple[str, ...]:
    """All bases."""
    return (*GRAPHS, *FILES, "pictures", "detector")


def base(name: str) -> Base:
    """Build one base; always the same."""
    if name == "pictures":
        return _pictures()
    if name == "detector":
        return _detector()
    if name in FILES:
        return _of_file(name)
    return _of_case(name)


def _of_case(name: str) -> Base:
    model = cases.build(name)
    model.ir_version = min(model.ir_version, 10)
    output = model.graph.output[0].name
    kind = "probabilities" if name.startswith("softmax_end") else "logits"
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    given = ", ".join(f"{entry.name}: {{kind: tensor}}" for entry in inputs)
    labels = ", ".join(LABELS)
    card = f"inputs: {{{given}}}\noutput: {{name: {output}, kind: {kind}}}\nlabels: [{labels}]\n"
    shapes = {e.name: [d.dim_value or 6 for d in e.type.tensor_type.shape.dim][1:] for e in inputs}
    if len(shapes) == 1:
        shapes = {"": next(iter(shapes.values()))}
    return Base(name, model, card, _samples(shapes))


def _of_file(name: str) -> Base:
    """A file with its card, and random images."""
    card = FILES[name].with_suffix(".yaml").read_text("utf-8")
    shape = (8, 8) if name == "digits" else (32, 32, 3)
    rng = np.random.default_rng(0)
    data: dict[str, Array] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        data[f"x_{split}"] = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        data[f"y_{split}"] = np.arange(count) % len(labels(name))
    return Base(name, onnx.load(FILES[name]), card, data)


def _samples(shapes: dict[str, list[int]]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    data: dict[str, Array] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name, shape in shapes.items():
            values = rng.normal(size=(count, *shape)).astype(np.float32)
            data[f"x_{split}.{name}" if name else f"x_{split}"] = values
        data[f"y_{split}"] = np.arange(count) % len(LABELS)
    return data


def _pictures() -> Base:
    """A network on gray images of 4x4; :func:`write_images` makes a folder of such."""
    rng = np.random.default_rng(0)
    card = (
        "input: {name: x, kind: image, color: GRAY, size: [4, 4], scale: 0.00392156862745098}\n"
        f"output: {{name: scores, kind: logits}}\nlabels: [{', '.join(kit.LABELS)}]\n"
    )
    data: dict[str, Array] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        data[f"x_{split}"] = rng.integers(0, 256, (count, 4, 4)).astype(np.uint8)
        data[f"y_{split}"] = np.arange(count) % len(kit.LABELS)
    return Base("pictures", kit.pictures(), card, data)


def _detector() -> Base:
    """Boxes and scores of ten places: no classifier."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(6, 40)), "w2": rng.normal(size=(6, 50))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["flat_boxes"], "boxes"),
        helper.make_node("MatMul", ["x", "w2"], ["flat_scores"], "scores"),
        helper.make_node("Reshape", ["flat_boxes", "s1"], ["box"], "reshape_boxes"),
        helper.make_node("Reshape", ["flat_scores", "s2"], ["score"], "reshape_scores"),
    ]
    constants = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    for name, last in (("s1", 4), ("s2", 5)):
        constants.append(numpy_helper.from_array(np.array([-1, 10, last]), name))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 6]), ("box", ["N", 10, 4]), ("score", ["N", 10, 5]))
    ]
    graph = helper.make_graph(nodes, "detector", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = (
        f"input: {{name: x, kind: tensor}}\noutput: {{name: score, kind: logits}}\n"
        f"labels: [{', '.join(LABELS)}]\n"
    )
    return Base("detector", model, card, _samples({"": [6]}), refused=True)


def write(found: Base, folder: Path) -> None:
    """Write model, card and data of a base: ``model.onnx``, ``model.yaml``, ``data.npz``, ``sample.npy``."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(found.model.SerializeToString())
    (folder / "model.yaml").write_text(found.card)
    np.savez(folder / "data.npz", **found.data)  # type: ignore[arg-type]
    first = next(iter(found.data))
    np.save(folder / "sample.npy", found.data[first][0])
    if found.name == "pictures":
        write_images(found, folder / "images")
        write_parquet(folder / "images", folder / "data.parquet")


def write_images(found: Base, folder: Path) -> None:
    """Write the samples as ``train/CLASS/N.png``, ``test/CLASS/N.png``."""
    for split in ("train", "test"):
        for number, label in enumerate(found.data[f"y_{split}"]):
            place = folder / split / kit.LABELS[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(found.data[f"x_{split}"][number]).save(place / f"{number}.png")


def write_parquet(images: Path, path: Path) -> None:
    """Write the images of a folder as one Parquet file, without splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(images.rglob("*.png"))
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [kit.LABELS.index(file.parent.name) for file in files],
    }
    pq.write_table(pa.table(columns), path)


Command = Callable[[list[str]], int]


def derive(folder: Path, run: Command) -> None:
    """Let Graft write profile, plan and modules beside a base, in the working directory ``folder``.

    Args:
        folder: of the base.
        run: runs a command line there; the exit code.
    """
    common = ["model.onnx", "--data", "data.npz", *RUN]
    three = "ant,bee,cow"
    lines = [
        ["profile", *common, "-o", "profile.safetensors"],
        ["plan", "model.onnx", "--profile", "profile.safetensors", "--classes", three, "--keep", "0.6"],
        ["decompose", *common, "--classes", three, "--keep", "0.6", "--compensate", "none", "-o", "modules"],
    ]
    lines[1] += ["--method", "contrast", "-o", "plan.json"]
    for line in lines:
        code = run(line)
        if code != 0:
            raise RuntimeError(f"{folder.name}: exit code {code} of graft {' '.join(line)}")


def labels(name: str) -> tuple[str, ...]:
    """Labels of a base."""
    if name in FILES:
        card = yaml.safe_load(FILES[name].with_suffix(".yaml").read_text("utf-8"))
        return tuple(card["labels"])
    return kit.LABELS if name == "pictures" else LABELS
