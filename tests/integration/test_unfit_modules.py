"""Modules that do not go together: one clear line each, exit code 2, and nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.tools.cli import run
from tests.integration import kit
from tests.integration.kit import Graft


def tokens(seed: int) -> onnx.ModelProto:
    """An embedding, its mean over five tokens, and two dense layers."""
    rng = np.random.default_rng(seed)
    weights = {"table": rng.normal(size=(9, 6)), "w1": rng.normal(size=(6, 8)), "w2": rng.normal(size=(8, 4))}
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["embedded"], "embed"),
        helper.make_node("ReduceMean", ["embedded"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "w1"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("Gemm", ["active", "w2"], ["scores"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["samples", 5])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["samples", 4])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def parent(folder: Path, name: str, model: onnx.ModelProto, entry: str, labels: str) -> None:
    """A model with card, and its modules in ``NAME_parts``."""
    onnx.save(model, folder / f"{name}.onnx")
    card = kit.card(labels=f"[{', '.join(labels)}]").replace("kind: tensor", entry)
    (folder / f"{name}.yaml").write_text(card)
    rng, y = np.random.default_rng(0), np.arange(80) % 4
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = rng.integers(0, 9, (80, *shape)) if "tokens" in entry else rng.normal(size=(80, *shape))
    x = rng.integers(0, 256, (80, 4, 4), np.uint8) if "image" in entry else x
    np.savez(folder / f"{name}.npz", x_train=x, y_train=y)
    files = [str(folder / f"{name}{end}") for end in (".onnx", ".npz", "_parts")]
    assert run(["decompose", files[0], "--data", files[1], "--keep", "1", "-o", files[2], "-q"]) == 0


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parents of features, images and tokens, with their modules."""
    folder = tmp_path_factory.mktemp("zoo")
    image = "kind: image, layout: NCHW, color: GRAY, size: [4, 4]"
    parent(folder, "features", kit.dense(seed=1), "kind: tensor", "abcd")
    parent(folder, "others", kit.dense(seed=2), "kind: tensor", "bxyz")
    parent(folder, "images", kit.pictures(), image, "efgh")
    parent(folder, "words", tokens(1), "kind: tokens, vocabulary: words", "ijkl")
    parent(folder, "pieces", tokens(2), "kind: tokens, vocabulary: pieces", "mnop")
    shutil.copytree(folder / "features_parts", folder / "lost_parts")
    shutil.rmtree(folder / "lost_parts/parent")
    shutil.copytree(folder / "features_parts", folder / "newer_parts")
    newer = onnx.load(folder / "newer_parts/a.onnx")
    found = {entry.key: entry.value for entry in newer.metadata_props}
    helper.set_model_props(newer, {**found, "graft.format": "2"})
    onnx.save(newer, folder / "newer_parts/a.onnx")
    return folder


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("features_parts/b.onnx others_parts/b.onnx", "class-twice", ("'b'", "leave one of them out")),
        ("words_parts/i.onnx pieces_parts/m.onnx", "vocabularies-differ", ("words", "pieces", "vocabulary:")),
        ("images_parts/e.onnx words_parts/i.onnx", "inputs-differ", ("image", "tokens")),
        ("newer_parts/a.onnx others_parts/x.onnx", "module-format", ("2", "update Graft")),
        ("lost_parts --strategy trunk", "parent-missing", ("--parent", "--strategy branches")),
        ("lost_parts/a.onnx others_parts/x.onnx --strategy trunk", "parent-missing", ("--profile",)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_modules_that_do_not_go_together(
    turned: bool,
    line: str,
    code: str,
    says: tuple[str, ...],
    graft: Graft,
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(zoo)
    before = kit.listing(zoo)
    words = [word for word in line.split() if word.endswith("onnx")]
    rest = [word for word in line.split() if word not in words]
    told = graft("compose", *(words[::-1] if turned else words), *rest, "-o", tmp_path / "c.onnx", "--json")
    assert (told.code, told.json["code"]) == (2, code)
    assert told.err.count("\n") == 1
    assert all(word in told.err for word in says), told.err
    assert kit.listing(zoo) == before
    assert not (tmp_path / "c.onnx").exists()
