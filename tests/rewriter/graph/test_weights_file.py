"""A large model and its file of weights: a run that is killed leaves the old pair or the new one."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.graph import weights
from graft.rewriter.graph.model import Model
from tests import small
from tests.rewriter.files.strike import in_child
from tests.small import Net

X = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)


@pytest.fixture(autouse=True)
def _low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PROTO_BYTES", 100)


def model(seed: int) -> Model:
    net = Net(32, seed=seed)
    net.gemm("y", net.node("Relu", "relu", net.gemm("dense", "x", 32, 32)), 4, 32)
    return small.model(net)


def scores(path: Path) -> list[list[float]]:
    """What onnxruntime alone makes of the file."""
    found = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": X})[0]
    values: list[list[float]] = np.asarray(found).tolist()
    return values


def data(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "m.onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_at_every_moment(tmp_path: Path) -> None:
    """No command has to put anything right: the pair is whole at every moment."""
    old, new = model(0), model(1)
    for each, name in ((old, "old"), (new, "new")):
        (tmp_path / name).mkdir()
        each.save(tmp_path / name / "m.onnx")
    expected = [scores(tmp_path / name / "m.onnx") for name in ("old", "new")]
    states = set()
    for number in range(60):
        path = tmp_path / str(number) / "m.onnx"
        path.parent.mkdir()
        old.save(path)
        killed, code = in_child(path.parent, number, lambda path=path: new.save(path, force=True))
        states.add(expected.index(scores(path)))
        new.save(path, force=True)
        assert (scores(path), data(path.parent)) == (expected[1], data(tmp_path / "new"))
        if not killed:
            break
    assert (code, states) == (0, {0, 1})
    assert number > 5


def test_interrupted_right_after_the_model_was_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "m.onnx", Path.replace
    model(0).save(path)

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target) == path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(1).save(path, force=True)
    assert len(scores(path)) == 3
    model(1).save(path, force=True)
    assert len(data(tmp_path)) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_full_disk_leaves_the_old_pair(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace, calls = tmp_path / "m.onnx", Path.replace, []
    model(0).save(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(GraftError, match="No space left"):
        model(1).save(path, force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_of_the_old_model_go_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    proto = model(0).proto()
    monkeypatch.setattr(weights, "PROTO_BYTES", 1 << 30)
    onnx.save(model(0).proto(), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    del proto
    for name in ("m.onnx.mine.data", "other.onnx.data", f"m.onnx.{'0' * 12}.data", "n.onnx.data"):
        (tmp_path / name).write_text("mine")
    model(1).save(path, force=True)
    assert data(tmp_path) == ["m.onnx.mine.data", "n.onnx.data", "other.onnx.data"]
    (tmp_path / "m.onnx.data").write_text("no longer its own")
    model(1).save(path, force=True)
    assert "m.onnx.data" in data(tmp_path)
