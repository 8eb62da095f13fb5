"""Whole commands on recurrent networks that nobody here made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device
from tests.bench import MARKS
from tests.bench import RECURRENT as BENCH
from tests.integration.kit import printed as graft

pytestmark = MARKS


def hidden(file: Path) -> int:
    """Hidden units of all recurrent nodes."""
    attributes = [a for node in onnx.load(file).graph.node for a in node.attribute]
    return sum(attribute.i for attribute in attributes if attribute.name == "hidden_size")


@pytest.mark.parametrize(
    ("name", "parent"), [("clinc_lstm1_published", 0.9489), ("clinc_gru1_published", 0.9456)]
)
def test_ten_modules_joined(
    name: str, parent: float, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = (BENCH / f"{name}.onnx", "--data", BENCH / "clinc.npz", "--compensate", "fold")
    found = graft(capfd, "decompose", *line, "--keep", "0.5", "-o", tmp_path / "modules")
    assert found["parent"]["top1"] == pytest.approx(parent, abs=1e-4)
    assert found["composed_top1"] > parent - 0.01
    sizes = [hidden(tmp_path / "modules" / module["file"]) for module in found["modules"]]
    assert len(sizes) == 10 and max(sizes) < 80
    assert all(module["macs_ratio"] <= 0.5 and module["law_difference"] < 1e-5 for module in found["modules"])
    files = [tmp_path / "modules" / module["file"] for module in found["modules"]]
    whole = tmp_path / "whole.onnx"
    joined = graft(capfd, "compose", *files, "--keep", "0.7", "--data", BENCH / "clinc.npz", "-o", whole)
    assert joined["strategy"] == "trunk" and joined["macs"] <= 0.7 * found["parent"]["macs"]
    assert joined["top1"] > parent - 0.01
    assert hidden(whole) < 100


@pytest.mark.parametrize("name", ["clinc_lstm1_published", "clinc_gru1_published"])
def test_a_spelled_out_cell_is_cut_like_its_twin(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = []
    for file in (name, f"{name}_loop"):
        line = (BENCH / f"{file}.onnx", "--data", BENCH / "clinc.npz", "--classes", "auto,home", "--together")
        options = ("--keep", "0.5", "--compensate", "fold", "-o", tmp_path / file)
        (module,) = graft(capfd, "decompose", *line, *options)["modules"]
        made.append(Model.load(tmp_path / file / module["file"]))
        assert hidden(tmp_path / file / module["file"]) < 100
    x = np.load(BENCH / "clinc.npz")["x_test"][:200]
    device = Device(("cpu",))
    first, second = (
        device.open(m).run({m.graph.inputs[0].name: x})[m.require_card().output.name] for m in made
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("ignore", [(), ("--ignore-label", "PAD")])
def test_a_tagger(ignore: tuple[str, ...], capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, data = BENCH / "brown_gru1_retrained.onnx", BENCH / "brown.npz"
    line = (model, "--data", data, "--classes", "NOUN,VERB,DET", "--compensate", "fold", *ignore)
    found = graft(
        capfd, "decompose", *line, "--keep", "0.6", "--test-split", "test_paper", "-o", tmp_path / "modules"
    )
    assert found["composed_top1"] > found["parent"]["top1"] - 0.01 > 0.95
    labels = Dataset.load(data).split("test_paper").labels
    told = graft(
        capfd, "evaluate", tmp_path / "modules/NOUN.onnx", "--data", data, "--split", "test_paper", *ignore
    )
    assert told["top1"] > 0.95
    assert told["samples"] == len(labels)
    counted = sum(each["support"] for each in told["per_class"].values())
    assert counted == ((labels != 0).sum() if ignore else labels.size)
    line = (tmp_path / "modules", "--data", data, "--test-split", "test_paper", *ignore)
    trunk = graft(capfd, "compose", *line, "-o", tmp_path / "whole.onnx")
    assert trunk["strategy"] == "trunk" and trunk["top1"] > 0.95
