"""``--freeze`` and ``--keep-layer`` of every command that plans; what decompose says comes next."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import origin_of
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


def test_samples_of_two_classes_have_no_top_5(graft: Graft, small: Place) -> None:
    line = ("evaluate", small.model, "--data", small.data)
    assert "top-5" not in graft(*line).out
    result = graft(*line, "--json").json
    assert result["top5"] is None
    assert np.isfinite(result["top1"])
