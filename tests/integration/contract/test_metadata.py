"""What the design promises of metadata, and plans, sentence by sentence."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from pathlib import Path

import onnx
import pytest

from graft.rewriter.card.card import Card
from graft.rewriter.graph.model import Model
from tests.integration import kit
from tests.integration.contract.kit import (
    OTHER,
    WRITING,
    WRITTEN,
    files_of,
    props,
    words,
)
from tests.integration.kit import Graft, Place


@pytest.mark.parametrize("file", WRITTEN)
def test_the_metadata(file: str, here: Place) -> None:
    """``graft.format, graft.kind, graft.card, graft.origin, graft.metrics``. Foreign keys are kept."""
    found = props(here / file)
    ours = {f"graft.{key}" for key in ("format", "kind", "card", "origin", "metrics")}
    assert found.keys() >= ours
    assert {key for key in found if not key.startswith("graft.")} == {"author"}
    assert found["author"] == "somebody"
    assert found["graft.kind"] == ("module" if "/" in file else "composite")
    origin = json.loads(found["graft.origin"])
    (parent,) = origin["parents"]
    assert parent["file_sha256"] == hashlib.sha256(here.model.read_bytes()).hexdigest()
    assert parent["graph_sha256"] == Model.load(here.model).graph_sha256()
    assert (parent["name"], parent["license"], parent["source"]) == ("insects", "MIT", "field trip")
    assert origin["versions"].keys() >= {"onnx-graft", "onnx"}
    assert origin["classes"] == [name for name in Card.from_json(found["graft.card"]).labels if name != OTHER]


def test_the_origin_of_a_module(here: Place) -> None:
    """``graft.origin``: plan and options; ``graft.metrics``."""
    index = json.loads((here / "modules/graft.json").read_text())
    for module in index["modules"]:
        found = props(here / "modules" / module["file"])
        origin, metrics = (json.loads(found[f"graft.{key}"]) for key in ("origin", "metrics"))
        assert origin["plan"] == json.loads((here / "modules" / module["plan"]).read_text())["groups"]
        assert (origin["options"]["keep"], origin["options"]["together"]) == (0.7, False)
        assert origin["options"].keys() >= {"method", "compensate", "seed"}
        profile = (here / "modules/parent/profile.safetensors").read_bytes()
        assert origin["profile_sha256"]
        assert profile == (here / "dense.profile").read_bytes()
        assert {key: metrics[key] for key in ("macs", "macs_ratio", "parameters")} == {
            key: module[key] for key in ("macs", "macs_ratio", "parameters")
        }


@pytest.mark.parametrize("file", WRITTEN)
def test_no_time_host_or_path(file: str, here: Place, whole: Place) -> None:
    """No time, host or path, in no key."""
    text = "\n".join(f"{key}={value}" for key, value in props(here / file).items())
    for word in (str(whole.folder), whole.folder.name, str(Path.home()), "/tmp", "dense.onnx"):
        assert word not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)


@pytest.mark.parametrize("command", WRITING)
def test_same_bytes_in_another_place(command: str, graft: Graft, here: Place, tmp_path: Path) -> None:
    """Same input, same bytes: twice, and from another folder."""
    elsewhere = shutil.copytree(here.folder, tmp_path / "else" / "where")
    lines = [words(command, f"{place}/out") for place in (here.folder, elsewhere)]
    for line, place in zip(lines, (here.folder, elsewhere), strict=True):
        named = [str(place / word) if (place / word).exists() else word for word in line]
        assert graft(*named).code == 0
    outs = [folder / "out" for folder in (here.folder, elsewhere)]
    ours, theirs = (files_of(out) if out.is_dir() else {"": out.read_bytes()} for out in outs)
    assert ours == theirs


def test_a_plan_names_groups_after_nodes_of_the_parents_file(
    graft: Graft, bundle: Place, tmp_path: Path
) -> None:
    """A group is named after its first producing node in the parent's file."""
    data = ("--data", bundle.data, *kit.FEW)
    assert graft("profile", bundle.model, *data, "-o", tmp_path / "profile").code == 0
    line = ("plan", bundle.model, "--profile", tmp_path / "profile", "--classes", "3", "--keep", "0.4")
    assert graft(*line, "-o", tmp_path / "plan.json").code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    makers = [node.name for node in onnx.load(bundle.model).graph.node if node.op_type in ("Conv", "Gemm")]
    assert plan["groups"]
    assert plan["groups"].keys() <= set(makers)


def test_a_plan_is_json(graft: Graft, here: Place) -> None:
    """JSON: format, parent's graph hash."""
    assert graft(*words("plan", "plan.json")).code == 0
    plan = json.loads((here / "plan.json").read_text())
    assert plan.keys() == {"format", "parent", "groups", "sizes"}
    assert plan["format"] == "graft/plan/1"
    assert plan["parent"] == Model.load(here.model).graph_sha256()
    assert list(plan["groups"]) == ["first"]
    assert re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", plan["groups"]["first"])
    assert plan["sizes"] == {"first": kit.HIDDEN}
