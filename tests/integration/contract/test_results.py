"""What the design promises of the JSON of commands, sentence by sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.integration import kit
from tests.integration.contract.kit import (
    OTHER,
    WRITTEN,
    arrays,
    counted,
    found,
    resaved,
    words,
)
from tests.integration.kit import Graft, Place


def test_accuracies_of_decompose(graft: Graft, here: Place) -> None:
    """``parent.top1`` and ``composed_top1``: joined as branches, restricted to the chosen classes."""
    content = arrays(here)
    y = content["y_test"].copy()
    y[::7] = (y[::7] + 1) % 4  # so that the parent is wrong here and there
    resaved(here, y_test=y)
    result = found(graft(*words("decompose"), "--classes", "cow,bee", "--json"), "decompose")
    scores = kit.run_model(here.model, content["x_test"][np.isin(y, [2, 1])])["scores"][:, [2, 1]]
    expected = np.mean(np.array([2, 1])[scores.argmax(axis=1)] == y[np.isin(y, [2, 1])])
    assert 0.5 < expected < 1
    assert result["parent"]["top1"] == pytest.approx(expected)
    assert graft("compose", "out", "--strategy", "branches", "-o", "both.onnx").code == 0
    measured = found(graft("evaluate", "both.onnx", "--data", "dense.npz", "--json"), "evaluate")
    assert result["composed_top1"] == pytest.approx(measured["top1"])
    assert result["test_samples"] == measured["samples"] == np.isin(y, [2, 1]).sum()


@pytest.mark.parametrize("split", ["test", "val", None])
def test_accuracies_where_the_data_has_a_test_split(split: str | None, graft: Graft, here: Place) -> None:
    """Where the data has a test split; ``val`` where there is no ``test``."""
    content = arrays(here)
    renamed = {f"{axis}_{split}": content[f"{axis}_test"] for axis in "xy"} if split else {}
    resaved(here, **{"x_test": None, "y_test": None, **renamed})
    result = found(graft(*words("decompose"), "--json"), "decompose")
    assert ("top1" in result["parent"]) == ("composed_top1" in result) == (split is not None)


@pytest.mark.parametrize("command", ["profile", "decompose"])
def test_the_parents_own_accuracy_comes_first(command: str, graft: Graft, here: Place) -> None:
    """``profile`` and ``decompose`` print the parent's own accuracy first."""
    y = arrays(here)["y_train"].copy()
    y[:24] = (y[:24] + 1) % 4
    resaved(here, y_train=y)
    first = graft(*words(command)).out.splitlines()[0]
    assert "parent" in first
    assert "top-1 90.00 %" in first


def test_latency_is_measured_as_asked(graft: Graft, here: Place) -> None:
    """``latency_ms`` (median, p90, batch, threads, runs; ``--batch 32 --threads 2``)."""
    for asked, batch, threads in (([], 32, 2), (["--batch", "7", "--threads", "1"], 7, 1)):
        latency = found(graft(*words("evaluate"), *asked, "--json"), "evaluate")["latency_ms"]
        assert (latency["batch"], latency["threads"], latency["runs"]) == (batch, threads, 20)
        assert 0 < latency["median"] <= latency["p90"]


def test_a_baseline_sees_the_same_samples_and_classes(graft: Graft, here: Place) -> None:
    """The same under ``baseline``, on the same samples and classes, and ``agreement``, ``delta``."""
    line = ("evaluate", "trunk.onnx", "--data", "dense.npz", "--baseline", "dense.onnx", "--json")
    told = found(graft(*line), "evaluate")
    content = arrays(here)
    rows = np.isin(content["y_test"], [2, 0])
    x, y = content["x_test"][rows], np.where(content["y_test"][rows] == 2, 0, 1)
    ours = kit.run_model(here / "trunk.onnx", x)["scores"].argmax(axis=1)
    theirs = kit.run_model(here.model, x)["scores"][:, [2, 0]].argmax(axis=1)
    assert told["samples"] == told["baseline"]["samples"] == len(y)
    assert told["top1"] == pytest.approx(np.mean(ours == y))
    assert told["baseline"]["top1"] == pytest.approx(np.mean(theirs == y))
    assert told["agreement"] == pytest.approx(np.mean(ours == theirs))
    assert told["delta"] == pytest.approx(told["top1"] - told["baseline"]["top1"])
    assert told["agreement"] < 1
    same = {"samples", "top1", "top5", "per_class", "macs", "parameters", "bytes", "latency_ms", "providers"}
    assert told["baseline"].keys() >= same | {"labels"}
    assert told["baseline"]["macs"] == 120


def test_a_module_of_one_class_takes_all_others_as_other(graft: Graft, here: Place) -> None:
    """``evaluate`` of a one-class module reports precision, recall, F1, AUROC."""
    told = found(graft("evaluate", "modules/cow.onnx", "--data", "dense.npz", "--json"), "evaluate")
    content = arrays(here)
    scores = kit.run_model(here / "modules/cow.onnx", content["x_test"])["scores"]
    cow, said = content["y_test"] == 2, scores[:, 0] > scores[:, 1]
    precision, recall = (cow & said).sum() / said.sum(), (cow & said).sum() / cow.sum()
    entry = told["per_class"]["cow"]
    assert told["labels"] == ["cow", OTHER]
    assert told["samples"] == 240
    assert (entry["precision"], entry["recall"]) == pytest.approx((precision, recall))
    assert entry["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    margin = scores[:, 0] - scores[:, 1]
    pairs = margin[cow][:, None] - margin[~cow][None]
    assert told["auroc"] == pytest.approx(np.mean(pairs > 0) + np.mean(pairs == 0) / 2, abs=1e-6)


@pytest.mark.parametrize("file", ["dense.onnx", *WRITTEN])
def test_inspect_tells_everything_of_any_file(file: str, graft: Graft, here: Place) -> None:
    """``inspect``: ``classes, origin, inputs, outputs, opset, macs, parameters, operators, groups``."""
    told = found(graft("inspect", file, "--json"), "inspect")
    proto = onnx.load(file)
    assert [end["name"] for end in told["outputs"]] == [end.name for end in proto.graph.output]
    assert [end["name"] for end in told["inputs"]] == ["x"]
    assert told["opset"] == 17
    assert told["operators"]["Gemm"] == sum(node.op_type == "Gemm" for node in proto.graph.node)
    assert told["macs"] == counted(proto)
    assert 0 < told["cuttable_parameters_ratio"] <= 1
    assert (told["origin"] is None) == (file == "dense.onnx")
    assert not told["origin"] or told["origin"]["parents"][0]["name"] == "insects"
    assert told["groups"]
    for group in told["groups"]:
        assert group.keys() >= {"name", "size", "kept", "cuttable", "parameters", "reason"}
        assert bool(group["reason"]) == (group["cuttable"] < group["kept"])


def test_compose_tells_what_it_did(graft: Graft, here: Place) -> None:
    """``compose``: ``strategy, strategy_reason, parents, modules, macs, parameters``."""
    for strategy in ("auto", "trunk", "branches"):
        told = found(
            graft(*words("compose", f"{strategy}.onnx"), "--strategy", strategy, "--force", "--json"),
            "compose",
        )
        assert told["strategy"] == ("branches" if strategy == "branches" else "trunk")
        assert told["strategy_reason"]
        assert [parent["name"] for parent in told["parents"]] == ["insects"]
        assert [module["classes"] for module in told["modules"]] == [[name] for name in kit.LABELS]
        assert told["macs"] == counted(onnx.load(f"{strategy}.onnx"))
        weights = onnx.load(f"{strategy}.onnx").graph.initializer
        floats = [w for w in weights if w.data_type == TensorProto.FLOAT]
        assert told["parameters"] == sum(int(np.prod(weight.dims)) for weight in floats)
