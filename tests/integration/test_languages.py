"""Whole commands on the recurrent network that comes with Graft: which language is a text in?"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from graft.rewriter.graph.model import Model
from tests.integration.kit import Graft
from tests.integration.kit import printed as found

MODELS = Path(str(import_module("graft.models").__path__[0]))
PARENT = MODELS / "languages_torch.onnx"
DATA = ("--data", MODELS / "languages_sample.npz")
UNITS = 64


def hidden(file: Path) -> int:
    (node,) = (node for node in onnx.load(file).graph.node if node.op_type == "GRU")
    return next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")


def test_it_is_as_good_as_its_card_says(capfd: pytest.CaptureFixture[str]) -> None:
    measured = found(capfd, "evaluate", PARENT, *DATA)
    assert measured["samples"] == 1000
    assert measured["top1"] > 0.92
    assert found(capfd, "inspect", PARENT)["cuttable_parameters_ratio"] > 0.99


def test_modules_are_cut_and_joined(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    cut = found(capfd, "decompose", PARENT, *DATA, "--keep", "0.6", "-o", modules)
    assert len(cut["modules"]) == 10
    assert cut["composed_top1"] > cut["parent"]["top1"] - 0.02
    for module in cut["modules"]:
        assert module["macs_ratio"] <= 0.6 and module["law_difference"] < 1e-5
        assert hidden(modules / module["file"]) < 0.85 * UNITS
    romance = [modules / f"{name}.onnx" for name in ("French", "Italian", "Spanish")]
    line = ("--strategy", "trunk", *DATA, "-o", tmp_path / "romance.onnx")
    joined = found(capfd, "compose", *romance, *line)
    assert joined["macs"] <= 0.6 * cut["parent"]["macs"]
    classes = ("--classes", "French,Italian,Spanish")
    baseline = ("--baseline", PARENT)
    measured = found(capfd, "evaluate", tmp_path / "romance.onnx", *DATA, *classes, *baseline)
    assert measured["top1"] > measured["baseline"]["top1"] - 0.05


def test_its_letters_are_no_words(graft: Graft, tmp_path: Path) -> None:
    """Modules that read tokens by another vocabulary, or none, are refused."""
    card = (MODELS / "languages_torch.yaml").read_text("utf-8")
    (tmp_path / "other.yaml").write_text(card.replace("letters of languages_torch", "words"), "utf-8")
    model = onnx.load(PARENT)
    embedding = model.graph.initializer[0]
    embedding.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(embedding), embedding.name))
    onnx.save(model, tmp_path / "other.onnx")
    few = (*DATA, "--samples-per-class", "30", "--compensate", "fold", "--keep", "0.9")
    assert graft("decompose", PARENT, *few, "--classes", "French", "-o", tmp_path / "one").code == 0
    other = tmp_path / "other.onnx"
    assert graft("decompose", other, *few, "--classes", "Polish", "-o", tmp_path / "two").code == 0
    files = (tmp_path / "one/French.onnx", tmp_path / "two/Polish.onnx")
    result = graft("compose", *files, "-o", tmp_path / "both.onnx")
    assert result.code == 2
    assert "letters of languages_torch and words" in result.err


def test_words_that_are_never_used_are_removed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a change on the calibration set; a trunk of such modules lacks the words, too."""
    line = (PARENT, *DATA, "--keep", "1", "--compensate", "none", "--vocabulary", "used")
    one = found(capfd, "decompose", *line, "--together", "-o", tmp_path / "one")
    (words,) = one["modules"][0]["vocabulary"]
    assert words["name"] == "letters" and words["kept"] < words["before"]
    model = tmp_path / "one" / one["modules"][0]["file"]
    for split in ("train", "test"):
        data = (*DATA, "--split", split)
        cut, whole = (found(capfd, "evaluate", path, *data)["top1"] for path in (model, PARENT))
        assert abs(cut - whole) < (1e-9 if split == "train" else 0.01)
    found(capfd, "decompose", *line, "--classes", "Danish,Dutch", "-o", tmp_path / "two")
    joined = found(capfd, "compose", tmp_path / "two", *DATA, "-o", tmp_path / "joined.onnx")
    assert joined["strategy"] == "trunk"
    trunk = Model.load(tmp_path / "joined.onnx")
    assert any(node.name.endswith("/place") for node in trunk.graph.nodes)
