"""What the tests of whole commands share: results, small networks, data and cards."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.tools.cli import run

FEW = ("--samples-per-class", "20")
FEATURES, HIDDEN = 6, 12
LABELS = ("ant", "bee", "cow", "dog")
TIMES = ("estimate_seconds", "seconds")
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Result:
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Graft = Callable[..., Result]


def untimed(told: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints; of times, which differ from run to run, that they are some."""
    return {key: 0 <= value if key in TIMES else value for key, value in told.items()}


@dataclass(frozen=True)
class Place:
    """A folder with a model, its card and data."""

    folder: Path
    model: Path
    data: Path

    @property
    def card(self) -> Path:
        """The card beside the model."""
        return self.model.with_suffix(".yaml")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def dense(
    *,
    seed: int = 0,
    softmax: bool = False,
    opset: int = 17,
    ir_version: int = 8,
    classes: int = len(LABELS),
) -> onnx.ModelProto:
    """Two dense layers on 6 features, with logits or probabilities."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(size=(FEATURES, HIDDEN)),
        "b1": rng.normal(size=HIDDEN),
        "w2": rng.normal(size=(HIDDEN, classes)),
        "b2": rng.normal(size=classes),
    }
    last = "logits" if softmax else "scores"
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("Gemm", ["active", "w2", "b2"], [last], "second"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], ["scores"], "softmax", axis=-1))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["samples", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["samples", classes])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def pictures(seed: int = 0) -> onnx.ModelProto:
    """A convolution and a dense layer on gray images of 4x4."""
    rng = np.random.default_rng(seed)
    weights = {"w1": rng.normal(size=(5, 1, 4, 4)), "w2": rng.normal(size=(5, len(LABELS)))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["features"], "first"),
        helper.make_node("Relu", ["features"], ["active"], "relu"),
        helper.make_node("Flatten", ["active"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "w2"], ["scores"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["samples", 1, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["samples", len(LABELS)])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def card(kind: str = "logits", labels: str = f"[{', '.join(LABELS)}]", name: str = "x") -> str:
    """The card of :func:`dense`."""
    return (
        f"input: {{name: {name}, kind: tensor}}\noutput: {{name: scores, kind: {kind}}}\nlabels: {labels}\n"
    )


def samples(model: onnx.ModelProto, count: int = 240) -> dict[str, Array]:
    """Random features, as many of each class as ``model`` says, for both splits."""
    rng = np.random.default_rng(1)
    arrays: dict[str, Array] = {}
    for split in ("train", "test"):
        x = rng.normal(size=(40 * count, FEATURES)).astype(np.float32)
        y = run_model(model, x)["scores"].argmax(axis=1)
        places = [np.flatnonzero(y == label)[: count // len(LABELS)] for label in range(len(LABELS))]
        chosen = np.sort(np.concatenate(places))
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x[chosen], y[chosen]
    return arrays


def place(folder: Path, model: onnx.ModelProto | None = None, kind: str = "logits") -> Place:
    """``dense.onnx`` with card and data in ``folder``."""
    model = model or dense(softmax=kind == "probabilities")
    folder.mkdir(parents=True, exist_ok=True)
    found = Place(folder, folder / "dense.onnx", folder / "dense.npz")
    onnx.save(model, found.model)
    found.card.write_text(card(kind))
    np.savez(found.data, **samples(model))  # type: ignore[arg-type]
    return found


def copied(source: Place, folder: Path) -> Place:
    """A copy of all files."""
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    return Place(folder, folder / source.model.name, folder / source.data.name)


def run_model(model: Path | onnx.ModelProto, x: Array) -> dict[str, Array]:
    """The outputs of a model with one input, in onnxruntime alone."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, values, strict=True))


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every file under ``folder`` with its content; folders with ``None``."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def printed(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The JSON that a command prints; it has to succeed."""
    capfd.readouterr()
    code = run([*map(str, arguments), "--json"])
    output, errors = capfd.readouterr()
    assert code == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@dataclass(frozen=True)
class Full:
    """A file on a disk without room: half of what comes first is written."""

    file: IO[Any]

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: Any) -> None:
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", self.file.name)

    def writelines(self, contents: Iterable[Any]) -> None:
        for content in contents:
            self.write(content)


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> list[Path]:
    """After so many files the disk is full; the files that are opened to be written are listed."""
    opened, written = Path.open, []

    def limited(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = opened(path, mode, *more, **options)
        if "w" not in mode:
            return file
        written.append(path)
        return Full(file) if len(written) > after else file

    monkeypatch.setattr(Path, "open", limited)
    return written
