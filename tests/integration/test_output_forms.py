"""Outputs with axes of size 1 beside the classes are those of any classifier, in every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import columns, score
from graft.tools.cli import run
from tests import small

LABELS = [str(name) for name in small.LABELS]
FEATURES = 12
FORMS = ("N,K,1,1", "N,1,1,K", "N,1,K", "N,K,1")


def network(form: str, kind: str) -> onnx.ModelProto:
    """Two layers whose four classes are about equally frequent on normal inputs, put out in a form."""
    net = small.Net(6)
    centred = net.node("Tanh", "tanh", net.node("MatMul", "dense", "x", net.weight("w", 6, FEATURES)))
    last, shape = "logits" if kind == "probabilities" else "y", [4]
    head = net.weight("head", FEATURES, 4)
    if form == "N,K,1,1":
        image = net.node("Reshape", "image", centred, net.ints("image.shape", -1, FEATURES, 1, 1))
        weight = net.constant("conv", np.zeros((4, FEATURES, 1, 1)))
        values = onnx.numpy_helper.to_array(net.constants["head"]).T.reshape(4, FEATURES, 1, 1)
        net.constant(weight, values)
        net.node("Conv", last, image, weight)
        shape, axis = [4, 1, 1], 1
    elif form == "N,K,1":
        net.node("Unsqueeze", last, net.node("MatMul", "flat", centred, head), net.ints("axes", 2))
        shape, axis = [4, 1], 1
    else:
        ones = [1] if form == "N,1,K" else [1, 2]
        net.node("MatMul", last, net.node("Unsqueeze", "wide", centred, net.ints("axes", *ones)), head)
        shape, axis = [*[1 for _ in ones], 4], len(ones) + 1
    if kind == "probabilities":
        net.node("Softmax", "y", last, axis=axis)
    return net.proto(y=shape)


class Files:
    """A model, its card, and samples that it has right."""

    def __init__(self, folder: Path, form: str, kind: str) -> None:
        self.folder, self.model, self.data = folder, folder / "m.onnx", folder / "d.npz"
        onnx.save(network(form, kind), self.model)
        (folder / "m.yaml").write_text(
            f"input: {{name: x, kind: tensor}}\noutput: {{name: y, kind: {kind}}}\nlabels: [a, b, c, d]\n"
        )
        self.x = small.inputs((6,), 160) * 2
        self.scores = small.run(onnx.load(self.model), self.x)["y"].reshape(160, 4)
        y = self.scores.argmax(axis=1)
        assert np.bincount(y, minlength=4).min() >= 20
        np.savez(self.data, x_train=self.x, y_train=y, x_test=self.x, y_test=y, class_names=LABELS)

    def __call__(self, capsys: Any, *words: object) -> dict[str, Any]:
        """Run a command on the data."""
        assert run([*map(str, words), "--data", str(self.data), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("form", FORMS)
def test_every_command_takes_it(form: str, kind: str, tmp_path: Path, capsys: Any) -> None:
    here = Files(tmp_path, form, kind)
    assert here(capsys, "evaluate", here.model)["top1"] == 1
    parts = tmp_path / "parts"
    assert here(capsys, "decompose", here.model, "--keep", "1", "-o", parts)["composed_top1"] == 1
    whole = tmp_path / "whole"
    made = here(capsys, "decompose", here.model, "--keep", "0.9", "--together", "-o", whole)
    assert made["composed_top1"] > 0.8
    for strategy in ("branches", "trunk"):
        composite = tmp_path / f"{strategy}.onnx"
        assert here(capsys, "compose", parts, "--strategy", strategy, "-o", composite)["top1"] == 1
    removed = tmp_path / "removed.onnx"
    assert here(capsys, "remove", here.model, "--class", "c", "-o", removed)["after"]["top1"] == 1
    found = small.run(Model.load(removed).proto(), here.x)["y"]
    wanted = np.delete(here.scores, 2, axis=1)
    if kind == "probabilities":
        wanted = wanted / wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    words = ("replace", here.model, "--class", "c", "--with", parts / "c.onnx", "-o", tmp_path / "r.onnx")
    assert here(capsys, *words)["after"]["top1"] > 0.95


def test_scores_are_rows_of_classes() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    labels = np.zeros(3, np.int64)
    for shape in ((3, 4), (3, 1, 4), (3, 4, 1), (3, 4, 1, 1), (3, 1, 1, 4)):
        np.testing.assert_array_equal(columns(rows.reshape(shape), "logits", 4, labels), rows)


def test_steps_are_not_taken_for_samples() -> None:
    """A model with a row for each step is refused where samples have one label."""
    net = small.Net(5, 3)
    net.node("MatMul", "y", "x", net.weight("w", 3, 4))
    model = Model.from_proto(net.proto(y=[5, 4]), small.card())
    with pytest.raises(GraftError, match="steps: true") as caught:
        score(model, small.samples(small.inputs((5, 3), 20)), small.CPU)
    assert caught.value.code == "output-rows"
