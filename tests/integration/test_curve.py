"""``graft curve``: figures, pictures, and what it promises as every command does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from graft.passes import curve as passes
from graft.passes.compensate.fold import STEPS as COMPENSATE
from graft.passes.identify import MEASURED
from graft.rewriter.errors import GraftError
from graft.tools import plot
from tests.integration import kit
from tests.integration.kit import Graft, Place

KEYS = {
    *("schema", "classes", "seed", "samples", "train_samples"),
    *("parent", "points", "providers"),
}
POINT_KEYS = {
    *("method", "compensate", "keep", "macs", "macs_ratio", "parameters"),
    *("top1", "difference", "standard_error", "unreachable"),
}
GRAFT = f"Graft: {MEASURED}"
FEW = ("--budgets", "0.5,70%", "--round-to", "1")


def line(here: Place, *more: object, classes: str = "ant,bee") -> tuple[object, ...]:
    return ("curve", here.model, "--data", here.data, "--classes", classes, *more)


def made(graft: Graft, here: Place, *more: object, **classes: str) -> dict[str, Any]:
    result = graft(*line(here, *more, "--json", **classes))
    assert (result.code, result.err) == (0, ""), result
    assert result.json["schema"] == "graft/curve/1"
    return result.json


def texts(picture: Path) -> list[str]:
    return [node.text or "" for node in ElementTree.parse(picture).iter() if node.tag.endswith("text")]


def test_figures_and_picture(graft: Graft, small: Place) -> None:
    told = made(graft, small, *FEW, "-o", small / "curve.json")
    assert (told["output"], told["plot"]) == (str(small / "curve.json"), str(small / "curve.svg"))
    written = json.loads((small / "curve.json").read_text())
    assert written.keys() >= KEYS
    assert not set(kit.TIMES) & written.keys()
    elsewhere = {"output": told["output"], "plot": told["plot"], **dict.fromkeys(kit.TIMES, True)}
    assert {**written, **elsewhere} == kit.untimed(told)
    assert written["classes"] == ["ant", "bee"]
    assert written["parent"].keys() >= {"macs", "parameters", "top1"}
    assert (written["samples"], written["train_samples"]) == (120, 240)
    assert [(point["method"], point["keep"]) for point in written["points"]] == [
        (method, keep) for method in passes.METHODS for keep in (0.5, 0.7)
    ]
    for point in written["points"]:
        assert point.keys() >= POINT_KEYS
        assert point["compensate"] == COMPENSATE[-1]
        assert not point["unreachable"]
        assert point["macs_ratio"] == pytest.approx(point["macs"] / written["parent"]["macs"])
        assert 0 < point["macs_ratio"] <= point["keep"]
        assert point["difference"] == pytest.approx(100 * (point["top1"] - written["parent"]["top1"]))
    names = texts(small / "curve.svg")
    assert "ant, bee of dense.onnx" in names
    assert set(names) >= {"parent", GRAFT, "activity", "magnitude", "random"}
    assert "one plan for all classes" in names


def test_points_are_what_decompose_and_evaluate_say(graft: Graft, small: Place) -> None:
    told = made(graft, small, *FEW, "--methods", "activity", "--budgets", "0.5", "-o", small / "curve.json")
    (point, _) = told["points"]
    cut = ("--classes", "ant,bee", "--together", "--method", "activity", "--keep", "0.5", "--round-to", "1")
    cut = ("decompose", small.model, "--data", small.data, *cut, "-o", small / "out", "--json")
    (module,) = graft(*cut).json["modules"]
    beside = ("--data", small.data, "--classes", "ant,bee", "--baseline", small.model, "--json")
    evaluated = graft("evaluate", small / "out" / module["file"], *beside).json
    assert point["macs"] == module["macs"] == evaluated["macs"]
    assert point["parameters"] == module["parameters"]
    assert point["top1"] == evaluated["top1"]
    assert told["parent"]["top1"] == evaluated["baseline"]["top1"]
    assert point["difference"] == pytest.approx(100 * evaluated["delta"])
    assert point["standard_error"] == pytest.approx(100 * evaluated["delta_standard_error"])


def test_one_class_is_told_from_other(graft: Graft, small: Place) -> None:
    told = made(graft, small, *FEW, "-o", small / "one.json", classes="cow")
    assert told["samples"] == 240
    assert 0.5 < told["parent"]["balanced_accuracy"] <= 1
    assert all(0 < point["balanced_accuracy"] <= 1 for point in told["points"])
    assert told["measure"] == "balanced_accuracy"
    assert "balanced accuracy, %" in texts(small / "one.svg")
    assert "bars: ± one standard error of the difference from the parent" in texts(small / "one.svg")
    for point in told["points"]:
        gap = 100 * (point["balanced_accuracy"] - told["parent"]["balanced_accuracy"])
        assert point["balanced_difference"] == pytest.approx(gap)
        assert point["balanced_standard_error"] > 0
    assert "top-1, %" not in texts(small / "one.svg")


def test_lists_are_split_and_joined(graft: Graft, small: Place) -> None:
    ways = ("--methods", "random, magnitude", "--methods", "one-plan,random")
    steps = ("--compensate", "none,mean", "--budgets", "0.7", "--budgets", "50%,0.7", "--round-to", "1")
    told = made(graft, small, *ways, *steps, "-o", small / "curve.json")
    assert [(point["method"], point["keep"], point["compensate"]) for point in told["points"]] == [
        (method, keep, step)
        for method in ("random", "magnitude", "one-plan")
        for keep in (0.5, 0.7)
        for step in ("none", "mean")
    ]
    assert set(texts(small / "curve.svg")) >= {"random, none", "one plan for all classes, mean"}


def test_a_profile_saves_that_pass(graft: Graft, small: Place) -> None:
    assert graft("profile", small.model, "--data", small.data, "-o", small / "profile").code == 0
    own = made(graft, small, *FEW, "-o", small / "own.json")
    given = made(graft, small, *FEW, "--profile", small / "profile", "-o", small / "given.json")
    assert own["points"] == given["points"]


def test_a_budget_out_of_reach_is_told(graft: Graft, small: Place) -> None:
    some = ("--budgets", "0.0001,0.7", "--round-to", "1", "--methods", "activity,one-plan")
    told = made(graft, small, *some, "-o", small / "curve.json")
    assert [point["unreachable"] for point in told["points"]] == [True, False] * 2
    assert [point["top1"] is None for point in told["points"]] == [True, False] * 2
    assert made(graft, small, "--budgets", "0.0001", "-o", small / "none.json")["points"]
    assert "parent" in texts(small / "none.svg")


def test_table_for_people(graft: Graft, small: Place) -> None:
    result = graft(*line(small, "--budgets", "0.0001,0.7", "--round-to", "1", "-o", small / "curve.json"))
    assert (result.code, result.err) == (0, "")
    rows = [row for row in result.out.splitlines() if GRAFT in row]
    assert len(rows) == 1
    assert " - " in rows[0] and "±" in rows[0]
    assert all(word in result.out for word in ("<= 70 %", "120 test samples", "curve.json", "curve.svg"))


# ---- files


def test_same_request_same_bytes(graft: Graft, small: Place) -> None:
    for name in ("one", "two"):
        for suffix in ("svg", "png"):
            target = (f"--plot={small / name}.{suffix}", "-o", small / f"{name}.{suffix}.json")
            made(graft, small, *FEW, *target)
    made(graft, small, "--budgets", "0.4,0.7", "--round-to", "1", "-o", small / "other.json")
    for suffix in ("svg", "png"):
        assert (small / f"one.{suffix}").read_bytes() == (small / f"two.{suffix}").read_bytes()
    assert (small / "one.svg.json").read_bytes() == (small / "two.png.json").read_bytes()
    assert (small / "one.svg").read_bytes() != (small / "other.svg").read_bytes()


def test_a_picture_of_pixels(graft: Graft, small: Place) -> None:
    made(graft, small, *FEW, "--plot", small / "curve.PNG", "-o", small / "curve.json")
    with Image.open(small / "curve.PNG") as picture:
        assert picture.format == "PNG"
        colors = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colors) > 100
    assert not (small / "curve.svg").exists()


def test_class_names_are_no_formulas(graft: Graft, small: Place) -> None:
    small.card.write_text(kit.card(labels="['$x_1$', '<b>&', cow, dog]"))
    made(graft, small, *FEW, "-o", small / "curve.json", classes="$x_1$,<b>&")
    assert "$x_1$, <b>& of dense.onnx" in texts(small / "curve.svg")


REFUSED = {
    "figures are there": ("-o old.json", "output-exists", "old.json"),
    "picture is there": ("-o new.json --plot old.svg", "output-exists", "old.svg"),
    "picture beside is there": ("-o old.txt", "output-exists", "old.svg"),
    "picture of another kind": ("-o new.json --plot new.jpg", "plot-format", ".png"),
    "one file for both": ("-o new.svg", "plot-format", "new.svg"),
    "picture below a file": ("-o new.json --plot old.json/x.svg", "output-unwritable", "-o"),
    "method unknown": ("-o new.json --methods activity,magic", "usage", "one-plan"),
    "no method": ("-o new.json --methods ,", "usage", "one or more"),
    "budget of nothing": ("-o new.json --budgets 0.5,0", "usage", "above 0"),
    "budget of a word": ("-o new.json --budgets much", "usage", "50%"),
    "compensate unknown": ("-o new.json --compensate magic", "usage", "fold"),
    "class unknown": ("-o new.json --classes ants", "class-unknown", "did you mean 'ant'?"),
    "test split unknown": ("-o new.json --test-split dev", "data-split", "train"),
    "profile missing": ("-o new.json --profile no", "profile-unreadable", "no"),
    "output missing": ("--plot new.svg", "usage", "--output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.folder)
    words, code, says = REFUSED[name]
    for file in ("old.json", "old.svg"):
        Path(file).write_text("mine")
    before = kit.listing(small.folder)
    common = ("curve", "dense.onnx", "--data", "dense.npz", "--budgets", "0.7", "--round-to", "1")
    plain, told = graft(*common, *words.split()), graft(*common, *words.split(), "--json")
    assert (plain.code, told.code, told.json["schema"]) == (2, 2, "graft/error/1")
    assert (told.json["code"], plain.err.count("\n")) == (code, 1)
    assert says in plain.err
    assert kit.listing(small.folder) == before


def test_force_replaces_both(graft: Graft, small: Place) -> None:
    for file in ("curve.json", "curve.svg"):
        (small / file).write_text("old")
    made(graft, small, *FEW, "-o", small / "curve.json", "--force")
    assert json.loads((small / "curve.json").read_text())["points"]
    assert texts(small / "curve.svg")


def test_class_without_test_samples(graft: Graft, small: Place) -> None:
    with np.load(small.data) as data:
        arrays = dict(data)
    stay = arrays["y_test"] != 1
    np.savez(small.data, **{**arrays, "x_test": arrays["x_test"][stay], "y_test": arrays["y_test"][stay]})
    result = graft(*line(small, *FEW, "-o", small / "curve.json", "--json"))
    assert result.code == 0, "a rare class is no reason to throw the work away"
    assert "bee" in result.err


def test_one_plan_needs_all_classes_apart(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many classes, those that were not asked for are profiled together."""
    monkeypatch.setattr("graft.passes.select.profiling.MANY", 3)
    result = graft(*line(small, *FEW, "-o", small / "curve.json", "--dry-run", "--json"))
    assert (result.code, result.json["code"]) == (2, "one-plan-profile")
    told = made(graft, small, *FEW, "--methods", "activity,random", "-o", small / "curve.json")
    assert len(told["points"]) == 4
    told = made(graft, small, *FEW, "-o", small / "all.json", classes=",".join(kit.LABELS))
    assert len(told["points"]) == 10


def test_all_or_nothing(graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise GraftError("drawing", "no ink", "buy some")

    monkeypatch.setattr(plot, "draw", fail)
    before = kit.listing(small.folder)
    assert graft(*line(small, *FEW, "-o", small / "curve.json", "--json")).json["code"] == "drawing"
    assert kit.listing(small.folder) == before


def test_dry_run_writes_nothing(graft: Graft, small: Place) -> None:
    before = kit.listing(small.folder)
    told = made(graft, small, *FEW, "-o", small / "curve.json", "--dry-run")
    assert len(told["points"]) == len(passes.METHODS) * 2
    assert (told["output"], told["plot"]) == (str(small / "curve.json"), str(small / "curve.svg"))
    assert kit.listing(small.folder) == before
    real = made(graft, small, *FEW, "-o", small / "curve.json")
    assert kit.untimed(told) == {**kit.untimed(real), "dry_run": True}


def test_help_says_what_is_left_out(graft: Graft) -> None:
    words = "".join(graft("curve", "--help").out.split())
    assert "Default:0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9." in words
    assert f"Default:{','.join(passes.METHODS)}." in words
    assert f"Default:{COMPENSATE[-1]}." in words


@pytest.mark.parametrize("output", ["/", "..", "."])
def test_a_folder_is_no_file_for_figures(graft: Graft, small: Place, output: str) -> None:
    told = graft(*line(small, *FEW, "-o", output, "--force"))
    assert told.code == 2 and "a file name was expected" in told.err, told
