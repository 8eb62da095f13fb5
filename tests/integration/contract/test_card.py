"""What the design promises of cards, sentence by sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from graft.rewriter.card.card import Card
from tests import small
from tests.integration import kit
from tests.integration.contract.kit import (
    CARD_OF_Y,
    NEEDING_CARD,
    arrays,
    found,
    props,
    put,
    refused,
    resaved,
    words,
)
from tests.integration.kit import Graft, Place


@pytest.mark.parametrize("command", ["profile", "decompose", "evaluate"])
@pytest.mark.parametrize(
    "name",
    [
        "name: ants and more\n",
        "",
    ],
    ids=["named", "nameless"],
)
def test_a_run_far_below_the_card_warns_and_names_it(
    name: str, command: str, graft: Graft, here: Place
) -> None:
    """``expect``: optional: what the parent reaches; a run far below it warns and names the card."""
    here.card.write_text(f"{name}{kit.card()}expect: {{top1: 0.99}}\n")
    assert "expects" not in graft(*words(command, "good")).err
    resaved(here, **{key: (y + 1) % 4 for key, y in arrays(here).items() if key[0] == "y"})
    told = graft(*words(command), "--json")
    assert found(told, command)
    assert "expects 0.99" in told.err
    assert ("ants and more" if name else "dense.yaml") in told.err


@pytest.mark.parametrize("command", NEEDING_CARD)
def test_a_command_that_needs_a_card_says_so(command: str, graft: Graft, here: Place) -> None:
    """A command that needs a card and finds none says so; ``--card FILE`` names one elsewhere."""
    here.card.rename("other.yaml")
    says = refused(graft(*words(command), "--json"), "card-missing")
    assert "graft card" in says
    assert "--card" in says
    assert graft(*words(command), "--card", "other.yaml").code == 0


@pytest.mark.parametrize("command", ["card", "inspect"])
def test_commands_that_need_no_card(command: str, graft: Graft, here: Place) -> None:
    here.card.unlink()
    assert found(graft(*words(command), "--json"), command)


@pytest.mark.parametrize("file", ["modules/cow.onnx", "set/dog_ant.onnx", "trunk.onnx", "branches.onnx"])
def test_a_written_model_carries_its_card(file: str, graft: Graft, here: Place, tmp_path: Path) -> None:
    """A module and a composite carry theirs in ``metadata_props``: alone in a folder they still work."""
    alone = shutil.copy(here / file, tmp_path / "alone.onnx")
    labels = list(Card.from_json(props(alone)["graft.card"]).labels)
    assert found(graft("inspect", alone, "--json"), "inspect")["classes"] == labels
    assert found(graft("evaluate", alone, "--data", here.data, "--json"), "evaluate")["labels"] == labels
    (entry,) = found(graft("predict", alone, "sample.npy", "--json"), "predict")["predictions"]
    assert entry["label"] in labels


def test_labels_may_lie_in_a_file_with_display_names(graft: Graft, here: Place) -> None:
    """``labels``: the name of a text file; a second, tab-separated column is a display name."""
    (here / "names.txt").write_text("n1\tsmall ant\nn2\tbee\nn3\tcow\nn4\tdog\n")
    here.card.write_text(kit.card(labels="names.txt"))
    cut = graft(*words("decompose"), "--classes", "n1,n4", "--together", "--json")
    assert found(cut, "decompose")["modules"][0]["file"] == "n1_n4.onnx"
    assert found(graft("inspect", "out/n1_n4.onnx", "--json"), "inspect")["classes"] == ["n1", "n4"]
    says = refused(graft(*words("evaluate"), "--classes", "small ants,n2", "--json"), "class-unknown")
    assert "n1 (small ant)" in says


@pytest.mark.parametrize("label", ["no", "0x1A", "1.0", "null", "2020-01-01"])
def test_labels_that_are_no_strings_have_to_be_quoted(label: str, graft: Graft, here: Place) -> None:
    """Labels that are not strings in YAML (``no``, ``0x1A``) are an error that says to quote them."""
    here.card.write_text(kit.card(labels=f"[{label}, b, c, d]"))
    assert f"quote it: '{label}'" in refused(graft(*words("evaluate"), "--json"), "card-labels")
    here.card.write_text(kit.card(labels=f"['{label}', b, c, d]"))
    assert found(graft(*words("evaluate"), "--json"), "evaluate")["labels"][0] == label


def test_several_inputs(graft: Graft, here: Place) -> None:
    """Several inputs: ``inputs: {NAME: {...}}``, in an ``.npz`` as ``x_train.NAME``."""
    net = small.Net(6)
    net.gemm("y", net.node("Relu", "relu", net.gemm("one", net.node("Mul", "both", "x", "z"), 8, 6)), 4, 8)
    put("two", net, dict.fromkeys("xz", (TensorProto.FLOAT, (6,))))
    inputs = "inputs: {x: {kind: tensor}, z: {kind: tensor}}\n"
    Path("two.yaml").write_text(inputs + CARD_OF_Y.split("\n", 1)[1])
    feed = {"x": small.inputs((6,), 200), "z": small.inputs((6,), 200, seed=2)}
    y = ort.InferenceSession("two.onnx", providers=["CPUExecutionProvider"]).run(["y"], feed)[0].argmax(1)
    np.savez("two.npz", **{f"x_train.{name}": x for name, x in feed.items()}, y_train=y)
    measure = ("evaluate", "two.onnx", "--data", "two.npz", "--split", "train", "--json")
    assert found(graft(*measure), "evaluate")["top1"] == 1
    cut = ("decompose", "two.onnx", "--data", "two.npz", "--keep", "0.6", "-o", "out", "--json")
    (module, *_) = found(graft(*cut), "decompose")["modules"]
    assert module["macs_ratio"] <= 0.6
    told = found(graft("inspect", f"out/{module['file']}", "--json"), "inspect")
    assert [end["name"] for end in told["inputs"]] == ["x", "z"]


def test_tokens(graft: Graft, here: Place) -> None:
    """``kind: tokens`` feeds integers as they are."""
    net = small.Net(5)
    net.node("Gather", "embedded", net.weight("table", 9, 6), "x")
    mean = net.node("ReduceMean", "mean", "embedded", axes=[1], keepdims=0)
    net.gemm("y", net.node("Relu", "relu", net.gemm("one", mean, 8, 6)), 4, 8)
    proto = put("words", net, {"x": (TensorProto.INT64, (5,))})
    Path("words.yaml").write_text(CARD_OF_Y.replace("kind: tensor", "kind: tokens"))
    x = np.random.default_rng(0).integers(0, 9, (200, 5))
    y = kit.run_model(proto, x)["y"].argmax(axis=1)
    np.savez("words.npz", x_train=x.astype(np.int16), y_train=y)
    measure = ("evaluate", "words.onnx", "--data", "words.npz", "--split", "train", "--json")
    assert found(graft(*measure), "evaluate")["top1"] == 1
    cut = ("decompose", "words.onnx", "--data", "words.npz", "--keep", "0.8", "--together", "-o", "out")
    assert found(graft(*cut, "--json"), "decompose")["modules"][0]["macs_ratio"] <= 0.8


def test_one_label_a_time_step(graft: Graft, here: Place) -> None:
    """``steps: true``: one label per time step; per-step outputs have a time axis before the classes."""
    net = small.Net(5, 3)
    relu = net.node("Relu", "relu", net.node("MatMul", "one", "x", net.weight("w1", 3, 16)))
    net.node("MatMul", "y", relu, net.weight("w2", 16, 4))
    proto = put("steps", net, y=(5, 4))
    Path("steps.yaml").write_text(CARD_OF_Y.replace("logits}", "logits, steps: true}"))
    x = small.inputs((5, 3), 100)
    scores = kit.run_model(proto, x)["y"]
    np.savez("steps.npz", x_train=x, y_train=scores.argmax(-1))
    measure = ("evaluate", "steps.onnx", "--data", "steps.npz", "--split", "train", "--json")
    assert found(graft(*measure), "evaluate")["top1"] == 1
    cut = ("decompose", "steps.onnx", "--data", "steps.npz", "--keep", "1", "-o", "out", "--json")
    assert found(graft(*cut, "--classes", "dog,cow", "--together", "--other"), "decompose")
    rest = small.logsumexp(scores[..., [0, 1]])
    expected = np.concatenate([scores[..., [3, 2]], rest], axis=-1)
    ours = kit.run_model(Path("out/dog_cow.onnx"), x)["y"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
