"""Encoder-decoders from the command line: a module for each language, joined, replaced, removed, read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graft.rewriter.graph.model import Model
from tests import translator
from tests.integration.kit import Graft


@pytest.fixture
def place(tmp_path: Path) -> Path:
    translator.save(tmp_path)
    return tmp_path


def test_the_walk(graft: Graft, place: Path) -> None:
    data, parent = ("--data", place / "sentences.npz"), place / "translator.onnx"
    made = graft("decompose", parent, *data, "--keep", "0.8", "-o", place / "d", "--json")
    assert (made.code, made.err) == (0, "")
    assert [entry["classes"] for entry in made.json["modules"]] == [["Red"], ["Blue"]]
    assert 0 <= made.json["composed_top1"] <= 1 and made.json["test_samples"] == 20
    assert (place / "d" / "Red.onnx").is_file() and (place / "d" / "plans" / "Blue.json").is_file()

    both = graft("compose", place / "d", *data, "-o", place / "both.onnx", "--json").json
    assert both["classes"] == ["Red", "Blue"] and both["scores"] == "first word"
    assert both["top1"] == pytest.approx(made.json["composed_top1"])

    told = graft("evaluate", place / "both.onnx", *data, "--baseline", parent, "--json").json
    assert told["languages"].keys() == {"Red", "Blue"} == told["baseline"]["languages"].keys()
    assert told["languages"]["Red"].keys() == {"samples", "exact", "bleu", "chrf"}
    assert told["top1"] == both["top1"]
    assert "Red: exact" in graft("evaluate", place / "both.onnx", *data).out

    replaced = graft(
        *("replace", parent, "--class", "Red", "--with", place / "d" / "Red.onnx", *data),
        *("-o", place / "r.onnx", "--json"),
    ).json
    assert sorted(replaced["classes"]) == ["Blue", "Red"] and replaced["after"].keys() >= {"top1", "shared"}
    removed = graft("remove", parent, "--class", "Red", *data, "-o", place / "b.onnx", "--json").json
    assert removed["classes"] == ["Blue"]
    added = graft(
        "add", place / "b.onnx", "--with", place / "d" / "Red.onnx", *data, "-o", place / "a.onnx", "--json"
    ).json
    assert sorted(added["classes"]) == ["Blue", "Red"] and added["class"] is None

    found = translator.arrays(20, seed=3)
    for name in ("r", "a"):
        scores = translator.run(Model.load(place / f"{name}.onnx"), found)
        card = Model.load(place / f"{name}.onnx").require_card()
        red = Model.load(place / "d" / "Red.onnx")
        own = red.require_card().labels
        columns = [card.labels.index(label) for label in own]
        np.testing.assert_allclose(scores[::2][..., columns], translator.run(red, found)[::2], atol=1e-5)

    answers = graft("predict", place / "both.onnx", place / "sentences.npz", "--json").json["predictions"]
    assert len(answers) == 20 and answers[1]["language"] == "Blue"
    assert answers[0]["text"] == " ".join(answers[0]["words"])
    only = graft("predict", place / "both.onnx", place / "sentences.npz", "--language", "Blue").out
    assert only.count(" Blue: ") == 20


def test_one_module_for_several_languages(graft: Graft, place: Path) -> None:
    line = ("decompose", place / "translator.onnx", "--data", place / "sentences.npz", "--max-drop", "5")
    told = graft(*line, "--classes", "Red,Blue", "--together", "-o", place / "d", "--json").json
    assert [entry["classes"] for entry in told["modules"]] == [["Red", "Blue"]]
    assert told["modules"][0]["difference"] >= -5
    assert json.loads((place / "d" / "graft.json").read_text())["modules"][0]["file"] == "Red_Blue.onnx"


def test_a_module_is_measured_beside_its_parent_on_its_own_language(graft: Graft, place: Path) -> None:
    data, parent = ("--data", place / "sentences.npz"), place / "translator.onnx"
    graft("decompose", parent, *data, "--keep", "1.0", "--compensate", "none", "-o", place / "d")
    told = graft("evaluate", place / "d" / "Blue.onnx", *data, "--baseline", parent, "--json").json
    assert told["languages"].keys() == {"Blue"} == told["baseline"]["languages"].keys()
    assert told["samples"] == told["baseline"]["samples"] == 10
    blue = graft("evaluate", parent, *data, "--classes", "Blue", "--json").json
    assert blue["samples"] == 10 and blue["top1"] == told["baseline"]["top1"]
    assert blue["languages"]["Blue"] == told["baseline"]["languages"]["Blue"]
    told = graft("evaluate", place / "d" / "Blue.onnx", *data, "--baseline", place / "d" / "Red.onnx")
    assert told.code == 2 and "the baseline has no class 'Blue'" in told.err
    told = graft("evaluate", parent, *data, "--classes", "Blau")
    assert told.code == 2 and "did you mean 'Blue'" in told.err


def test_agreement_is_of_words_not_of_columns(graft: Graft, place: Path) -> None:
    data, parent = ("--data", place / "sentences.npz"), place / "translator.onnx"
    graft("decompose", parent, *data, "--keep", "1.0", "--compensate", "none", "-o", place / "d")
    told = graft("evaluate", place / "d" / "Blue.onnx", *data, "--baseline", parent, "--json").json
    found = translator.arrays(20, seed=1)
    words = translator.run(Model.load(parent), found).argmax(axis=-1)[1::2]
    module = Model.load(place / "d" / "Blue.onnx")
    labels = module.require_card().labels
    said = translator.run(module, found).argmax(axis=-1)[1::2]
    mine = np.array([translator.WORDS.index(label) for label in labels])[said]
    counted = found["y"][1::2] != translator.PADDING
    assert told["agreement"] == pytest.approx((words == mine)[counted].mean())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("decompose", "--classes", "Rod"), "no language 'Rod'; did you mean 'Red'"),
        (("decompose", "--method", "icse23:rolled"), "do not know encoder-decoders"),
        (("decompose", "--profile", "p"), "--profile is not for encoder-decoders"),
        (("decompose", "--mode", "unrolled"), "do not know encoder-decoders"),
        (("decompose", "--other", "--together"), "no column"),
        (("remove", "--class", "Green"), "no language 'Green'"),
    ],
)
def test_what_does_not_apply_is_said(
    graft: Graft, place: Path, command: tuple[str, ...], message: str
) -> None:
    name, *more = command
    data = ("--data", place / "sentences.npz")
    told = graft(name, place / "translator.onnx", *data, *more, "-o", place / "o")
    assert told.code == 2 and message in told.err, told
    assert not (place / "o").exists()


def test_what_joining_refuses(graft: Graft, place: Path) -> None:
    parent, out = place / "translator.onnx", ("-o", place / "o.onnx")
    for more in (("--other",), ("--scores", "odds"), ("--keep", "0.5"), ("--rename", "Red=Green")):
        told = graft("compose", parent, *more, *out)
        assert told.code == 2 and f"{more[0]} is not for encoder-decoders" in told.err
    told = graft("remove", parent, "--class", "Red", *out)
    assert told.code == 2 and "sentences" in told.err
    told = graft("add", parent, "--with", parent, "--with-class", "Red", *out)
    assert told.code == 2 and "two models speak Red" in told.err
    told = graft("predict", parent, place / "sentences.npz", "--language", "Rad")
    assert told.code == 2 and "did you mean 'Red'" in told.err


@pytest.mark.parametrize("command", ["profile", "plan", "curve"])
def test_commands_that_know_classes_only_say_so(graft: Graft, place: Path, command: str) -> None:
    data = ("--data", place / "sentences.npz")
    more = ("--profile", place / "p.npz", "--keep", "0.5") if command == "plan" else data
    told = graft(command, place / "translator.onnx", *more, "-o", place / "o.json")
    assert told.code == 2 and f"'graft {command}' does not know encoder-decoders" in told.err, told
    assert not (place / "o.json").exists()


def test_the_next_command_joins_the_languages(graft: Graft, place: Path) -> None:
    data = ("--data", place / "sentences.npz")
    told = graft("decompose", place / "translator.onnx", *data, "--keep", "0.8", "-o", place / "d")
    assert told.out.count("next: ") == 1 and "one model of all languages" in told.out
