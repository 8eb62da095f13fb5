"""``graft verify`` on whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graft.rewriter.runtimes import runtimes
from tests.integration.kit import Graft, Place

MISSING = [name for name, each in runtimes().items() if not each.installed]
FAST = ("--runtime", "onnxruntime", "--samples", "6", "--batch", "4")


def test_all_runtimes_are_named(graft: Graft, small: Place) -> None:
    told = graft("verify", small.model, "--samples", "6", "--batch", "4", "--json")
    assert told.code == 0, told
    found = told.json
    assert found["schema"] == "graft/verify/1" and found["passed"] and found["samples"] == 6
    assert found["runtimes"].keys() == runtimes().keys()
    for name, each in found["runtimes"].items():
        if name in MISSING:
            assert each["error"].startswith("not installed: pip install") and not each["installed"]
        else:
            assert each["max_difference"] < 1e-5 and each["decisions_changed"] == 0
            assert each["error"] is None
    assert found["runtimes"]["onnxruntime"]["latency_ratio"] == 1
    shown = graft("verify", small.model, "--samples", "6", "--batch", "4").out
    assert all(name in shown for name in runtimes())


@pytest.mark.skipif(not MISSING, reason="all runtimes are installed")
def test_a_runtime_that_is_asked_for_and_missing(graft: Graft, small: Place) -> None:
    told = graft("verify", small.model, "--runtime", MISSING[0])
    assert told.code == 2 and len(told.err.splitlines()) == 1
    assert f"{MISSING[0]} is not installed; pip install 'onnx-graft[{MISSING[0]}]'" in told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--runtime", "tensorflow"), "there is no runtime 'tensorflow'; choose from onnxruntime, reference"),
        (("--tolerance", "much"), "expected a number such as 1e-3, 0 or more, found much"),
        (("--tolerance", "-1"), "expected a number such as 1e-3, 0 or more, found -1"),
        (("--tolerance", "nan"), "expected a number such as 1e-3, 0 or more, found nan"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--against", "nowhere.onnx"), "nowhere.onnx"),
    ],
)
def test_bad_requests(words: tuple[str, ...], said: str, graft: Graft, small: Place) -> None:
    told = graft("verify", small.model, *words)
    assert told.code == 2 and said in told.err and len(told.err.splitlines()) == 1


def changed(path: Path, by: float, to: Path) -> Path:
    """The model with one bias moved."""
    proto = onnx.load(path)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "b2")
    values = numpy_helper.to_array(bias).copy()
    values[1] += np.float32(by)
    bias.CopyFrom(numpy_helper.from_array(values, "b2"))
    onnx.save(proto, to)
    to.with_suffix(".yaml").write_text(path.with_suffix(".yaml").read_text())
    return to


def test_against_another_model(graft: Graft, small: Place) -> None:
    same = changed(small.model, 0.0, small / "same.onnx")
    assert graft("verify", same, *FAST, "--against", small.model).code == 0
    other = changed(small.model, 3.0, small / "other.onnx")
    told = graft("verify", other, *FAST, "--against", small.model, "--data", small.data, "--json")
    assert told.code == 1 and "what pruning may change is set by --max-change" in told.err
    found = told.json["against"]
    assert 0 < found["max_difference"] <= 3.0 and found["compared"] == "logits"
    assert found["classes"] == ["ant", "bee", "cow", "dog"] and found["samples"] == 6
    assert not told.json["passed"]
    assert graft("verify", other, *FAST, "--against", small.model, "--max-change", "3").code == 0


def test_a_pruned_module_against_its_parent(graft: Graft, bundled: Place) -> None:
    line = ("decompose", bundled.model, "--data", bundled.data, "--classes", "3,8", "--keep", "0.7")
    assert graft(*line, "-o", bundled / "parts").code == 0
    words = (*FAST, "--against", bundled.model, "--data", bundled.data, "--json")
    told = graft("verify", bundled / "parts" / "3.onnx", *words)
    found = told.json["against"]
    assert found["classes"] == ["3", "(other)"] and found["decisions_changed"] == 0
    assert 1e-3 < found["max_difference"] < 0.5 and told.code == 1
    assert told.json["source"] == "test"


def test_samples_without_labels(graft: Graft, small: Place) -> None:
    with np.load(small.data) as data:
        np.savez(small / "bare.npz", x=data["x_test"])
    told = graft("verify", small.model, *FAST, "--data", small / "bare.npz", "--json")
    assert told.code == 0, told


def test_a_model_without_a_card(graft: Graft, small: Place) -> None:
    small.card.unlink()
    assert graft("verify", small.model, *FAST).code == 0
    told = graft("verify", small.model, *FAST, "--data", small.data)
    assert told.code == 2 and "card" in told.err


def test_a_runtime_that_is_slow_is_ended(graft: Graft, small: Place) -> None:
    told = graft("verify", small.model, "--runtime", "reference", "--time-limit", "0.01", "--json")
    assert told.code == 2 and "it did not end within 0.01 s" in told.json["message"]
