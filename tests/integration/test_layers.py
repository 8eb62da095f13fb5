"""``--freeze`` and ``--keep-layer`` of every command that plans; what decompose says comes next."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import origin_of
from tests.integration import kit
from tests.integration.kit import Graft, Place

HIDDEN = "first"
"""The layer of the small network that can be pruned."""
METHOD = ("--method", "activity")


def kept(ranges: str) -> int:
    parts = [part.partition("-") for part in ranges.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in parts)


def plans(here: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((here / "plans").iterdir())]


def size(small: Place) -> int:
    return int(Model.load(small.model).graph.tensors()["w1"].shape[1])


def test_a_share_holds_in_plan_decompose_curve_and_compose(graft: Graft, small: Place) -> None:
    half = size(small) // 2
    cut = graft(
        *("decompose", small.model, "--data", small.data, "--keep", "1", *METHOD),
        *("--keep-layer", f"{HIDDEN}*=50%", "-o", small / "parts", "--json"),
    )
    assert cut.code == 0, cut.err
    assert cut.json["keep_layers"] == {HIDDEN: 0.5} and cut.json["frozen"] == []
    assert [kept(plan["groups"][HIDDEN]) for plan in plans(small / "parts")] == [half] * 4
    profile = small / "parts/parent/profile.safetensors"
    planned = graft(
        *("plan", small.model, "--profile", profile, "--classes", "ant", "--keep-layer", f"{HIDDEN}=0.25"),
        *("-o", small / "plan.json", "--json"),
    )
    assert planned.json["kept_of_layers"] == {HIDDEN: half // 2}
    assert json.loads((small / "plan.json").read_text())["keep_layers"] == {HIDDEN: 0.25}
    drawn = graft(
        *("curve", small.model, "--data", small.data, "--classes", "ant,bee", "--budgets", "1"),
        *("--methods", "random,activity", "--keep-layer", "relu=0.5", "-o", small / "c.json", "--json"),
    )
    assert drawn.json["keep_layers"] == {HIDDEN: 0.5}
    assert {point["macs_ratio"] < 0.6 for point in drawn.json["points"]} == {True}
    line = ("compose", small / "parts", "-o")
    assert graft(*line, small / "as_planned.onnx").code == 0
    assert kept(origin_of(Model.load(small / "as_planned.onnx")).plan[HIDDEN]) == half
    assert graft(*line, small / "whole.onnx", "--freeze", HIDDEN).code == 0
    assert kept(origin_of(Model.load(small / "whole.onnx")).plan[HIDDEN]) == 2 * half


def test_a_frozen_layer_is_said(graft: Graft, small: Place) -> None:
    cut = graft(
        *("decompose", small.model, "--data", small.data, "--classes", "ant", "--keep", "1", *METHOD),
        *("--freeze", "rel?", "--freeze", "second", "-o", small / "parts"),
    )
    assert "left alone: first, second" in cut.out, cut.err
    (plan,) = plans(small / "parts")
    assert plan["frozen"] == ["first", "second"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--freeze", "frist"), "layer-unknown", "did you mean 'first'"),
        (("--keep-layer", "second=0.5"), "keep-layer-pinned", "output"),
        (("--keep-layer", "first"), "usage", "PATTERN=SHARE"),
        (("--keep-layer", "first=0"), "usage", "above 0"),
        (("--freeze", "first", "--keep-layer", "first=0.5"), "keep-layer-frozen", "--freeze first"),
        (("--freeze", "first", "--keep", "0.3"), "budget-unreachable", "--freeze first"),
        (("--freeze", "first", "--plan", "x.json"), "usage", "--plan"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    graft: Graft, small: Place, options: tuple[str, ...], code: str, words: str
) -> None:
    result = graft(
        *("decompose", small.model, "--data", small.data, "--classes", "ant", *METHOD, *options),
        *("-o", small / "parts", "--json"),
    )
    assert (result.code, result.json["code"]) == (2, code)
    assert words in result.json["message"] + result.json["hint"]
    assert not (small / "parts").exists()


@pytest.mark.parametrize("more", [("--classes", "ant,bee"), ("--together",), ("--classes", "ant")])
def test_what_comes_next_can_be_copied_and_gives_what_was_announced(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    folder = small / "my parts"
    monkeypatch.chdir(small.folder)
    os.rename(small.data, small / "my data.npz")
    cut = graft(
        *("decompose", small.model, "--data", small / "my data.npz", *more, "--keep", "0.7", *METHOD),
        *("--round-to", "1", "-o", folder),
    )
    assert cut.code == 0, cut.err
    lines = [line.removeprefix("next: ") for line in cut.out.splitlines() if line.startswith("next: ")]
    assert len(lines) == (2 if "ant,bee" in more else 1)
    index = json.loads((folder / "graft.json").read_text())
    for line in lines:
        program, *words = shlex.split(line)
        result = graft(*words, "--json")
        assert (program, result.code) == ("graft", 0), result.err
    if "ant,bee" in more:
        composed = small / "my parts_branches.onnx"
        result = graft("evaluate", composed, "--data", small / "my data.npz", "--json")
    assert result.json["top1"] == pytest.approx(index["composed_top1"])
    if more == ("--classes", "ant"):
        assert result.json["balanced_accuracy"] == pytest.approx(index["modules"][0]["balanced_accuracy"])


def test_what_comes_next_works_without_test_samples(graft: Graft, small: Place) -> None:
    with np.load(small.data) as data:
        np.savez(small / "train.npz", x_train=data["x_train"], y_train=data["y_train"])
        np.savez(small / "dev.npz", **dict(data), x_dev=data["x_test"][:40], y_dev=data["y_test"][:40])
        tested = int((data["y_test"][:40] < 2).sum())
    for name, more in (("train", ()), ("dev", ("--test-split", "dev"))):
        line = ("decompose", small.model, "--data", small / f"{name}.npz", "--classes", "ant,bee", *more)
        cut = graft(*line, "--keep", "0.7", *METHOD, "-o", small / name)
        lines = [each.removeprefix("next: ") for each in cut.out.splitlines() if each.startswith("next: ")]
        found = [graft(*shlex.split(each)[1:], "--json") for each in lines]
        assert [each.code for each in found] == [0, 0], found[-1].err
        assert found[-1].json.get("samples", 0) == (0 if name == "train" else tested)
    line = ("replace", small.model, "--class", "ant", "--with", small / "train/ant.onnx", "--json")
    result = graft(*line, "--data", small / "train.npz", "-o", small / "mended.onnx")
    assert result.code == 0 and "before" not in result.json, result.err


def test_two_cuts_of_a_class_are_joined_as_the_message_says(graft: Graft, small: Place) -> None:
    cuts = []
    for keep in ("0.6", "0.9"):
        line = ("decompose", small.model, "--data", small.data, "--classes", "ant", "--round-to", "1")
        assert graft(*line, "--keep", keep, *METHOD, "-o", small / keep).code == 0
        cuts.append(small / keep / "ant.onnx")
    compose = ("compose", "-o", small / "both.onnx", "--force", "--json")
    told = graft(*compose, *cuts).json
    assert told["code"] == "class-twice"
    assert "PREFIX=PATH" in told["hint"] and "--rename 'ant=NAME'" in told["hint"]
    for words, classes in (
        ((*cuts, "--rename", "ant=large"), ["ant", "large"]),
        ((f"small={cuts[0]}", cuts[1]), ["small:ant", "ant"]),
    ):
        result = graft(*compose, *words).json
        assert (result["classes"], result["strategy"]) == (classes, "branches")
        assert result["strategy_reason"].startswith("several cuts of class 'ant'")
    refused = graft(*compose, *cuts, "--rename", "ant=large", "--strategy", "trunk").json
    assert refused["message"].startswith("the modules cannot share a trunk: several cuts of class 'ant'")


def test_classes_without_samples_are_named_where_scores_are_fitted(graft: Graft, small: Place) -> None:
    with np.load(small.data) as data:
        np.savez(small / "named.npz", **dict(data), class_names=[f"a:{name}" for name in kit.LABELS])
    other = small / "other.onnx"
    onnx.save(kit.dense(seed=5), other)
    other.with_suffix(".yaml").write_text(small.card.read_text())
    line = ("compose", f"a={small.model}", f"b={other}", "--json", "-o", small / "both.onnx")
    told = graft(*line, "--data", small / "named.npz").json
    assert told["code"] == "joint-samples" and "leave --data out" in told["hint"]
    assert "there are 0 of 'b:ant', 'b:bee', 'b:cow' ... (4 classes)" in told["message"]
    assert graft(*line).code == 0


def test_samples_of_two_classes_have_no_top_5(graft: Graft, small: Place) -> None:
    line = ("evaluate", small.model, "--data", small.data)
    assert "top-5" not in graft(*line).out
    result = graft(*line, "--json").json
    assert result["top5"] is None
    assert np.isfinite(result["top1"])
