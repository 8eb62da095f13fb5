"""An error inside Graft that a model is the cause of names the model, not Graft."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graft.rewriter.run.unrunnable import unrunnable
from graft.tools.cli import run
from tests import small


def with_groups(count: int, path: Path) -> Path:
    """A network whose first Conv has ``count`` groups, which its weight fits where that is 1."""
    model = small.conv_net().proto(y=[4])
    node = next(each for each in model.graph.node if each.op_type == "Conv")
    node.attribute.append(onnx.helper.make_attribute("group", count))
    onnx.save(model, path)
    return path


def test_onnxruntime_names_the_node(tmp_path: Path) -> None:
    assert unrunnable(with_groups(1, tmp_path / "right.onnx")) == ""
    assert "conv1" in unrunnable(with_groups(64, tmp_path / "wrong.onnx"))
    assert "no model" in unrunnable(tmp_path / "missing.onnx")


def fails(*given: object, **named: object) -> None:
    raise ValueError("a fault of Graft")


def test_the_node_that_a_rule_fails_on_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(with_groups(64, tmp_path / "wrong.onnx"))]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("graft: error: ")] == lines[-1:]
    assert lines[-1].startswith(f"graft: error: {tmp_path / 'wrong.onnx'}: node")
    assert "node 'conv1' (Conv): its attributes, inputs and shapes do not fit together" in lines[-1]
    assert "unexpected" not in lines[-1]


def test_the_model_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.tools.commands.inspect.Model.load", fails)
    assert run(["inspect", str(with_groups(64, tmp_path / "wrong.onnx"))]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("graft: error: ")] == lines[-1:]
    assert "wrong.onnx" in lines[-1]
    assert "unexpected" not in lines[-1]


def test_a_model_that_runs_is_not_blamed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.tools.commands.inspect.Model.load", fails)
    assert run(["inspect", str(with_groups(1, tmp_path / "right.onnx"))]) == 2
    assert "unexpected ValueError: a fault of Graft" in capfd.readouterr().err
