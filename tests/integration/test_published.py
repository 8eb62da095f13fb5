"""Published methods on the command line: masks, what is cut of them, and their composition."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from graft.rewriter.graph.model import Model
from tests.integration.kit import Graft
from tests.integration.kit import printed as found

MODELS = Path(str(import_module("graft.models").__path__[0]))
MODEL, DATA = MODELS / "digits_sklearn.onnx", ("--data", MODELS / "digits_sample.npz")
CLASSES = ("--classes", "two,six,seven")


def test_masks_are_cut_composed_and_evaluated(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The accuracy that decompose prints is that of the composite that it names."""
    line = (MODEL, *DATA, *CLASSES, "--method", "fse20:cm-rie")
    whole = found(capfd, "decompose", *line, "-o", tmp_path / "whole")
    cut = found(capfd, "decompose", *line, "--cut", "--variant", "code", "-o", tmp_path / "cut")
    assert whole["method"] == "fse20:cm-rie" and whole["method_options"]["variant"] == "code"
    for mask, module in zip(whole["modules"], cut["modules"], strict=True):
        assert mask["zero_weights_ratio"] == module["zero_weights_ratio"] > 0
        assert mask["channels_kept"] == mask["channels"] > module["channels_kept"]
        assert module["parameters_ratio"] < mask["parameters_ratio"] == 1
        assert (module["law_difference"] or 0) < 1e-5
    assert whole["composed_top1"] == cut["composed_top1"] > 0.9
    scores = ("--strategy", "branches", "--scores", "fse20:vote")
    found(capfd, "compose", tmp_path / "cut", *scores, "-o", tmp_path / "all.onnx")
    measured = found(capfd, "evaluate", tmp_path / "all.onnx", *DATA)
    assert measured["top1"] == cut["composed_top1"] and measured["samples"] == cut["test_samples"]


def test_variants_and_fewer_examples_differ(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graphs = []
    for number, more in enumerate(([], ["--variant", "paper"], ["--concerned", "3"])):
        line = (MODEL, *DATA, "--classes", "two", "--method", "fse20:cm-c", *more)
        found(capfd, "decompose", *line, "-o", tmp_path / str(number))
        graphs.append(Model.load(tmp_path / str(number) / "two.onnx").graph_sha256())
    assert len(set(graphs)) == 3


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--method", "fse20:ti-i", "--keep", "0.5"], "--keep does not apply"),
        (["--method", "fse20:ti-i", "--max-drop", "1"], "--max-drop does not apply"),
        (["--method", "fse20:ti-i", "--together"], "--together does not apply"),
        (["--method", "relevance", "--cut"], "--cut is for the methods fse20:ti-i"),
        (["--method", "fse20:ti-i", "--variant", "codes"], "'codes' is not one of 'code', 'paper', 'prose'"),
        (["--method", "fse20:ti-i", "--concerned", "0"], "--concerned"),
        (["--method", "fse20:ti-i", "--propagation", "linear"], "has no option --propagation"),
        (["--method", "fse20:ti-i", "--variant", "prose"], "has no variant prose; choose from code, paper"),
        (["--method", "fse20:ti"], "'fse20:ti' is not one of"),
    ],
)
def test_options_that_do_not_apply_are_one_line(
    graft: Graft, tmp_path: Path, more: list[str], line: str
) -> None:
    result = graft("decompose", MODEL, *DATA, *CLASSES, *more, "-o", tmp_path / "out")
    assert result.code == 2 and line in result.err
    assert result.err.count("\n") <= 2 and not (tmp_path / "out").exists()


def test_a_convolutional_network(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = (MODELS / "mnist_torch.onnx", "--data", MODELS / "mnist_sample.npz", "--classes", "1,7")
    told = found(
        capfd, "decompose", *line, "--method", "icse22:bi", "--concerned", "40", "-o", tmp_path / "masks"
    )
    assert told["composed_top1"] > 0.9 and told["modules"][0]["one_class"]
    scores = ("--strategy", "branches", "--scores", "vote")
    found(capfd, "compose", tmp_path / "masks", *scores, "-o", tmp_path / "all.onnx")
    measured = found(capfd, "evaluate", tmp_path / "all.onnx", *line[1:3])
    assert measured["top1"] == told["composed_top1"]


@pytest.mark.parametrize("method", ["icse23:rolled", "icse23:unrolled"])
def test_a_recurrent_network(capfd: pytest.CaptureFixture[str], tmp_path: Path, method: str) -> None:
    """Masks without a budget; with one, units are ranked and cut."""
    line = (MODELS / "languages_torch.onnx", "--data", MODELS / "languages_sample.npz")
    classes = ("--classes", "Danish,French,German", "--samples-per-class", "40", "--method", method)
    told = found(capfd, "decompose", *line, *classes, "-o", tmp_path / "masks")
    assert told["method"] == method and told["composed_top1"] > 0.8
    ratios = [entry["macs_ratio"] for entry in told["modules"]]
    assert all(ratio > 0.95 for ratio in ratios) and all(e["zero_weights_ratio"] for e in told["modules"])
    scores = ("--strategy", "branches", "--scores", "odds")
    found(capfd, "compose", tmp_path / "masks", *scores, "-o", tmp_path / "all.onnx")
    measured = found(capfd, "evaluate", tmp_path / "all.onnx", *line[1:])
    assert measured["top1"] == told["composed_top1"]


def test_one_cut_for_every_time_step(graft: Graft, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Larger than the parent, which is said; composed as it was measured."""
    line = (MODELS / "languages_torch.onnx", "--data", MODELS / "languages_sample.npz")
    few = ("--classes", "Danish,French", "--samples-per-class", "40", "--mode", "unrolled")
    result = graft("decompose", *line, *few, "--keep", "0.7", "--json", "-o", tmp_path / "steps")
    assert result.code == 0 and "larger and slower" in result.err
    told = result.json
    assert all(entry["parameters_ratio"] > 2 for entry in told["modules"]) and told["composed_top1"] > 0.7
    found(capfd, "compose", tmp_path / "steps", "--strategy", "branches", "-o", tmp_path / "all.onnx")
    assert found(capfd, "evaluate", tmp_path / "all.onnx", *line[1:])["top1"] == told["composed_top1"]
    result = graft("decompose", *line, *few, "--method", "icse23:rolled", "-o", tmp_path / "both")
    assert result.code == 2 and "exclude each other" in result.err


def test_a_network_that_is_not_dense_is_refused(graft: Graft, tmp_path: Path) -> None:
    line = (MODELS / "mnist_torch.onnx", "--data", MODELS / "mnist_sample.npz", "--method", "fse20:ti-i")
    result = graft("decompose", *line, "-o", tmp_path / "out")
    assert result.code == 2 and "it is for dense networks" in result.err
    assert not (tmp_path / "out").exists()
