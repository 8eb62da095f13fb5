"""Samples without labels: the parent's predictions are the labels, and every output says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.pseudo_labels import predicted_labels, with_predictions
from graft.rewriter.run.session import Device
from tests.integration import kit
from tests.integration.contract.kit import found, refused
from tests.integration.kit import Graft, Place

SAID = "labels: the parent's predictions"


@pytest.fixture
def bare(small: Place) -> Place:
    """Two dense layers, data whose labels are what the network says, and the samples alone."""
    with np.load(small.data) as data:
        np.savez(small / "bare.npz", x_train=data["x_train"], x_test=data["x_test"])
        np.savez(small / "half.npz", x_train=data["x_train"], x_test=data["x_test"], y_test=data["y_test"])
        np.savez(small / "none.npz", x_test=data["x_test"])
    return small


def test_labels_are_what_onnxruntime_says(bare: Place) -> None:
    model = Model.load(bare.model)
    model.card = model.require_card()
    split = Dataset.load(bare / "bare.npz").split("test")
    assert not split.labelled
    with pytest.raises(GraftError) as caught:
        Samples.match(split, model.card)
    assert caught.value.code == "data-unlabelled"
    split = with_predictions(Dataset.load(bare / "bare.npz"), model, Device()).split("test")
    x = np.load(bare / "bare.npz")["x_test"]
    expected = kit.run_model(bare.model, x)["scores"].argmax(axis=1)
    np.testing.assert_array_equal(split.labels, expected)
    assert (split.labelled, split.predicted, split.class_names) == (True, True, kit.LABELS)
    labelled = Dataset.load(bare.data).split("test")
    assert predicted_labels(labelled, model, Device()).labels.tolist() == expected.tolist()


def test_decompose_gives_the_modules_of_the_predicted_labels(graft: Graft, bare: Place) -> None:
    line = ("decompose", bare.model, "--keep", "0.7", "--json", "-o")
    labelled = found(graft(*line, bare / "a", "--data", bare.data), "decompose")
    result = found(graft(*line, bare / "b", "--data", bare / "bare.npz"), "decompose")
    assert (labelled["label_source"], labelled["test_label_source"]) == ("data", "data")
    assert (result["label_source"], result["test_label_source"]) == ("predictions", "predictions")
    assert result["modules"] == [
        {**each, "bytes": other["bytes"]}
        for each, other in zip(labelled["modules"], result["modules"], strict=True)
    ]
    assert result["composed_top1"] == labelled["composed_top1"]
    for name in kit.LABELS:
        first, second = (onnx.load(bare / f"{folder}/{name}.onnx") for folder in "ab")
        assert first.graph.SerializeToString() == second.graph.SerializeToString()
        origins = [
            json.loads({each.key: each.value for each in model.metadata_props}["graft.origin"])
            for model in (first, second)
        ]
        assert [each["options"].get("label_source") for each in origins] == [None, "predictions"]
        assert json.loads((bare / f"b/plans/{name}.json").read_text())["label_source"] == "predictions"
    told = graft(*line[:-2], "-o", bare / "c", "--data", bare / "bare.npz")
    assert SAID in told.out
    assert "top-1" not in told.out
    assert "240 test samples: all modules joined decide as the parent on" in told.out


def test_one_split_may_have_labels(graft: Graft, bare: Place) -> None:
    line = ("decompose", bare.model, "--keep", "0.7", "--data", bare / "half.npz", "-o", bare / "out")
    result = found(graft(*line, "--json"), "decompose")
    assert (result["label_source"], result["test_label_source"]) == ("predictions", "data")
    assert f"{SAID} (training samples)" in graft(*line, "--force").out


def test_profile_plan_and_curve_say_it(graft: Graft, bare: Place) -> None:
    data = ("--data", bare / "bare.npz")
    line = ("profile", bare.model, *data, "-o", bare / "p", "--force")
    assert found(graft(*line, "--json"), "profile")["label_source"] == "predictions"
    assert SAID in (told := graft(*line)).out
    assert "top-1" not in told.out
    line = ("plan", bare.model, "--profile", bare / "p", "--keep", "0.7", "-o", bare / "plan", "--force")
    for more in ((), data):
        assert found(graft(*line, *more, "--json"), "plan")["label_source"] == "predictions"
        assert SAID in graft(*line, *more).out
    few = ("--budgets", "0.7", "--methods", "magnitude", "--classes", "ant,bee", "--force")
    line = ("curve", bare.model, *data, *few, "-o", bare / "curve.json")
    result = found(graft(*line, "--json"), "curve")
    assert (result["label_source"], result["parent"]["top1"]) == ("predictions", 1)
    assert SAID in graft(*line).out


def test_evaluate_takes_the_labels_of_the_parent(graft: Graft, bare: Place) -> None:
    data = ("--data", bare / "none.npz", "--json")
    assert "--baseline MODEL" in refused(graft("evaluate", bare.model, *data), "data-unlabelled")
    cut = ("decompose", bare.model, "--data", bare.data, "--keep", "0.7", "-o", bare / "m")
    composed = found(graft(*cut, "--json"), "decompose")["composed_top1"]
    for line in (("m",), ("m", "--baseline", bare.model)):
        result = found(graft("evaluate", bare / line[0], *line[1:], *data), "evaluate")
        assert (result["label_source"], result["top1"]) == ("predictions", composed)
    assert result["agreement"] == composed
    assert result["baseline"]["top1"] == 1
    told = graft("evaluate", bare / "m", *data[:2])
    assert SAID in told.out
    assert "agrees with the labels" in told.out
    module = found(graft("evaluate", bare / "m/cow.onnx", *data), "evaluate")
    assert module["per_class"]["cow"]["support"] == 60
    assert found(graft("compose", bare / "m", "-o", bare / "all.onnx", "--json"), "compose")
    assert "--baseline PARENT" in refused(graft("evaluate", bare / "all.onnx", *data), "data-unlabelled")


def test_compose_takes_the_labels_of_the_only_parent(graft: Graft, bare: Place) -> None:
    assert graft("decompose", bare.model, "--data", bare.data, "--keep", "0.7", "-o", bare / "m").code == 0
    line = ("compose", bare / "m", "-o", bare / "all.onnx", "--force")
    results = [
        found(graft(*line, "--data", data, "--json"), "compose") for data in (bare.data, bare / "bare.npz")
    ]
    assert results[0]["top1"] == results[1]["top1"]
    assert [each["label_source"] for each in results] == ["data", "predictions"]
    assert SAID in graft(*line, "--data", bare / "bare.npz").out
    (bare / "m/parent/parent.onnx").unlink()
    message = refused(graft(*line, "--data", bare / "bare.npz", "--json"), "data-unlabelled")
    assert "their parent is not at hand" in message


@pytest.mark.parametrize("command", ["remove", "replace"])
def test_patches_take_the_labels_of_the_model(command: str, graft: Graft, bare: Place) -> None:
    assert graft("decompose", bare.model, "--data", bare.data, "--keep", "0.7", "-o", bare / "m").code == 0
    more = ("--with", bare / "m/ant.onnx") if command == "replace" else ()
    line = (command, bare.model, "--class", "ant", *more, "--data", bare / "bare.npz", "-o", bare / "n.onnx")
    result = found(graft(*line, "--json"), command)
    assert (result["label_source"], result["before"]["top1"]) == ("predictions", 1)
    assert SAID in graft(*line, "--force").out


def test_classes_that_are_never_predicted_have_no_samples(graft: Graft, bare: Place) -> None:
    with np.load(bare.data) as data:
        np.savez(bare / "some.npz", x_train=data["x_train"][data["y_train"] != 3])
    line = ("decompose", bare.model, "--data", bare / "some.npz", "--keep", "0.7", "-o", bare / "m", "--json")
    assert "the parent's predictions" in refused(graft(*line, "--classes", "dog"), "class-empty")
    assert len(found(graft(*line), "decompose")["modules"]) == 3


def test_a_card_is_drafted_without_a_score(graft: Graft, bare: Place) -> None:
    told = graft("card", bare.model, "--data", bare / "bare.npz", "--json")
    assert found(told, "card")["top1"] is None
    assert "no labels" in told.err


def test_images_without_folders_of_classes(graft: Graft, tmp_path: Path) -> None:
    here = Place(tmp_path, tmp_path / "dense.onnx", tmp_path)
    onnx.save(kit.pictures(), here.model)
    here.card.write_text(
        "input: {name: x, kind: image, layout: NCHW, color: GRAY, size: [4, 4], scale: 1.0, mean: [127]}\n"
        f"output: {{name: scores, kind: logits}}\nlabels: [{', '.join(kit.LABELS)}]\n"
    )
    raw = np.random.default_rng(0).integers(0, 256, (100, 4, 4), np.uint8)
    for number, pixels in enumerate(raw):
        for folder in ("flat", "split/" + ("Train" if number < 70 else "validation")):
            target = here / f"{folder}/{number:03}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
    expected = kit.run_model(here.model, raw[:, None].astype(np.float32) - 127)["scores"].argmax(axis=1)
    counts = dict(zip(kit.LABELS, np.bincount(expected[:70], minlength=4).tolist(), strict=True))
    line = ("profile", here.model, "--json", "-o", here / "p", "--force", "--data")
    result = found(graft(*line, here / "split"), "profile")
    assert result["classes"] == counts
    assert "split" not in result
    result = found(graft(*line, here / "flat"), "profile")
    assert (result["samples"], result["split"]) == (80, {"train": 80, "test": 20, "seed": 0})
    assert (result["label_source"], result["top1"]) == ("predictions", 1)


def test_labels_of_time_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = kit.dense()
    del model.graph.value_info[:]
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        onnx.helper.make_node("Relu", ["h"], ["a"], "relu"),
        onnx.helper.make_node("MatMul", ["a", "w2"], ["scores"], "second"),
    ]
    types = (
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 5, 6])],
        [onnx.helper.make_tensor_value_info("scores", 1, ["n", 5, 4])],
    )
    kept = [each for each in model.graph.initializer if each.name in ("w1", "w2")]
    graph = onnx.helper.make_graph(nodes, "steps", *types, kept)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    (tmp_path / "m.yaml").write_text(kit.card().replace("kind: logits", "kind: logits, steps: true"))
    loaded = Model.load(tmp_path / "m.onnx")
    loaded.card = loaded.require_card()
    x = rng.normal(size=(40, 5, 6)).astype(np.float32)
    split = predicted_labels(Dataset.from_arrays(x).split("train"), loaded, Device())
    expected = (np.maximum(x @ weights["w1"], 0) @ weights["w2"]).argmax(axis=2)
    np.testing.assert_array_equal(split.labels, expected)
    assert len(Samples.match(split, loaded.card)) == 40
