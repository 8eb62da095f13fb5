"""Whole commands, end to end: what they print, write and promise."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from PIL import Image

from graft.rewriter.card.card import Card
from graft.tools.cli import COMMANDS, run
from graft.tools.commands import demo
from tests.integration import kit
from tests.integration.kit import FEW, Graft, Place, Result

OTHER = "(other)"
PARENT_KEYS = {"macs", "parameters", "top1"}
MODULE_KEYS = {
    *("file", "classes", "macs", "parameters"),
    *("macs_ratio", "parameters_ratio", "channels_kept"),
}
EVALUATE_KEYS = {
    *("schema", "samples", "top1", "top5", "per_class", "macs", "parameters", "bytes"),
    *("latency_ms", "providers", "labels"),
}
COMPOSE_KEYS = {"schema", "strategy", "strategy_reason", "parents", "modules", "macs", "parameters"}
INSPECT_KEYS = {
    *("schema", "classes", "origin", "inputs", "outputs", "opset", "macs", "parameters"),
    *("operators", "groups", "cuttable_parameters_ratio", "cuttable_macs_ratio"),
}
GROUP_KEYS = {"name", "size", "kept", "cuttable", "parameters", "reason"}


def done(*arguments: object) -> None:
    assert run([str(argument) for argument in arguments]) == 0


def found(result: Result, command: str) -> dict[str, Any]:
    """The JSON of a command that succeeded."""
    assert result.code == 0, result
    assert result.json["schema"] == f"graft/{command}/1"
    return result.json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bundle: Place) -> Place:
    """The bundled model, modules of all its classes and of one set, and composites of three."""
    here = kit.copied(bundle, tmp_path_factory.mktemp("made"))
    parent = onnx.load(here.model)
    helper.set_model_props(parent, {"author": "somebody"})
    onnx.save(parent, here.model)
    cut = ("decompose", here.model, "--data", here.data, *FEW, "--keep", "0.5")
    done(*cut, "-o", here / "modules")
    done(*cut, "-o", here / "set", "--classes", "7,1", "--together")
    three = [here / f"modules/{digit}.onnx" for digit in "417"]
    done("compose", *three, "-o", here / "trunk.onnx")
    done("compose", *three, "-o", here / "branches.onnx", "--strategy", "branches")
    return here


def images(here: Place, count: int = 64) -> kit.Array:
    """Some test images as the bundled model takes them."""
    with np.load(here.data) as data:
        raw = data["x_test"][:count, None].astype(np.float32)
    return np.asarray((raw / 255 - 0.1307) / 0.3081, np.float32)


def logsumexp(scores: kit.Array) -> kit.Array:
    top = scores.max(axis=-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(scores - top).sum(axis=-1, keepdims=True)))


# ---- card, profile, plan


def test_card_with_data_reaches_the_right_scaling(graft: Graft, bundled: Place) -> None:
    command = ("card", bundled.model, "--data", bundled.data)
    bundled.card.unlink()
    draft = found(graft(*command, "--json"), "card")
    assert draft["top1"] > 0.99
    assert not bundled.card.exists()
    assert found(graft(*command, "-o", bundled.card, "--json"), "card")["card"] == draft["card"]
    (drafted,) = Card.load(bundled.card).inputs
    assert (drafted.color, drafted.size, drafted.mean) == ("GRAY", (28, 28), (0.1307,))
    assert graft("evaluate", bundled.model, "--data", bundled.data, "--min-top1", "0.99").code == 0


def test_card_without_data_is_printed(graft: Graft, small: Place) -> None:
    small.card.unlink()
    drafted = graft("card", small.model)
    assert drafted.code == 0
    small.card.write_text(drafted.out)
    assert Card.load(small.card).output.kind == "logits"


def test_card_of_probabilities(graft: Graft, tmp_path: Path) -> None:
    here = kit.place(tmp_path, kind="probabilities")
    drafted = found(graft("card", here.model, "--data", here.data, "--json"), "card")
    assert "kind: probabilities" in drafted["card"]
    assert drafted["top1"] == 1


def test_profile_and_plan_are_what_decompose_makes_itself(graft: Graft, made: Place, tmp_path: Path) -> None:
    data = ("--data", made.data, *FEW)
    profile, plan = tmp_path / "profile", tmp_path / "plan.json"
    profiled = found(graft("profile", made.model, *data, "-o", profile, "--json"), "profile")
    assert profiled["classes"] == {str(digit): 20 for digit in range(10)}
    assert profiled["samples"] == 200
    assert profiled["top1"] > 0.95
    assert profiled["providers"]
    assert profile.read_bytes() == (made / "modules/parent/profile.safetensors").read_bytes()
    planning = ("plan", made.model, "--profile", profile, *data, "--classes", "7,1", "--keep", "50%")
    planned = found(graft(*planning, "-o", plan, "--json"), "plan")
    assert planned["channels_kept"] < planned["channels"]
    assert planned["classes"] == ["7", "1"]
    assert plan.read_bytes() == (made / "set/plans/7_1.json").read_bytes()
    cut = ("decompose", made.model, *data, "--classes", "7,1", "--together", "--json")
    for way in (("--plan", plan), ("--profile", profile, "--keep", "0.5")):
        result = found(graft(*cut, *way, "-o", tmp_path / way[0]), "decompose")
        (module,) = result["modules"]
        assert module["channels_kept"] == planned["channels_kept"]
        x = images(made)
        ours, theirs = (kit.run_model(f / "7_1.onnx", x) for f in (tmp_path / way[0], made / "set"))
        np.testing.assert_array_equal(ours["logits"], theirs["logits"])


def test_plan_can_be_edited(graft: Graft, small: Place) -> None:
    common = (small.model, "--data", small.data)
    assert graft("profile", *common, "-o", small / "profile").code == 0
    plan = small / "plan.json"
    line = ("--profile", small / "profile", "--classes", "ant", "--keep", "1", "-o", plan)
    assert graft("plan", small.model, *line).code == 0
    edited = json.loads(plan.read_text())
    edited["groups"]["first"] = "0-3,9"
    plan.write_text(json.dumps(edited))
    cut = ("--classes", "ant", "--plan", plan, "--compensate", "none", "-o", small / "out")
    assert graft("decompose", *common, *cut).code == 0
    weights = {w.name: list(w.dims) for w in onnx.load(small / "out/ant.onnx").graph.initializer}
    assert [kit.FEATURES, 5] in weights.values()


# ---- decompose


def test_decompose_tells_what_it_wrote(made: Place) -> None:
    index = json.loads((made / "modules/graft.json").read_text())
    assert index["schema"] == "graft/decompose/1"
    assert index["parent"].keys() >= PARENT_KEYS
    assert index["parent"]["top1"] > 0.99
    assert index["composed_top1"] > 0.9
    assert [module["classes"] for module in index["modules"]] == [[str(d)] for d in range(10)]
    for module in index["modules"]:
        assert module.keys() >= MODULE_KEYS
        assert 0 < module["macs_ratio"] <= 0.5
        assert module["macs_ratio"] == pytest.approx(module["macs"] / index["parent"]["macs"])
        assert module["bytes"] == (made / "modules" / module["file"]).stat().st_size
    files = [name for name, content in kit.listing(made / "modules").items() if content is not None]
    assert sorted([*index["files"], "graft.json"]) == files
    expected = {"graft.json", "parent/parent.onnx", "parent/profile.safetensors"}
    assert expected | {f"{d}.onnx" for d in range(10)} | {f"plans/{d}.json" for d in range(10)} == set(files)


@pytest.mark.parametrize(
    "classes",
    [
        ["--classes", "bee, or wasp,dog"],
        ["--classes", "bee, or wasp", "--classes", "dog"],
        ["--classes", "@names"],
    ],
    ids=["comma", "repeated", "file"],
)
def test_classes(classes: list[str], graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    small.card.write_text(kit.card(labels="[ant, 'bee, or wasp', cow, dog]"))
    monkeypatch.chdir(small.folder)
    Path("names").write_text("bee, or wasp\n\ndog\n")
    line = ("decompose", small.model, "--data", small.data, "--keep", "0.7", *classes, "--json")
    result = graft(*line, "-o", "out")
    if classes[1] == "bee, or wasp,dog":  # what splits at commas is no label
        assert (result.code, result.json["code"]) == (2, "class-unknown")
        return
    modules = found(result, "decompose")["modules"]
    assert [module["classes"] for module in modules] == [["bee, or wasp"], ["dog"]]
    assert [module["file"] for module in modules] == ["bee__or_wasp.onnx", "dog.onnx"]
    index = json.loads(Path("out/graft.json").read_text())
    assert index.keys() <= result.json.keys()
    assert all(result.json[key] == value for key, value in index.items() if key != "files")


@pytest.mark.parametrize(
    ("flags", "outputs", "labels"),
    [
        ([], {"scores": 2, "rest": 1}, ["dog", "ant"]),
        (["--no-rest"], {"scores": 2}, ["dog", "ant"]),
        (["--other"], {"scores": 3}, ["dog", "ant", OTHER]),
    ],
    ids=["rest", "no rest", "other"],
)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_set(
    kind: str, flags: list[str], outputs: dict[str, int], labels: list[str], graft: Graft, tmp_path: Path
) -> None:
    here = kit.place(tmp_path, kind=kind)
    line = ("decompose", here.model, "--data", here.data, "--keep", "1", "--together", *flags)
    result = found(graft(*line, "--classes", "dog,ant", "-o", here / "out", "--json"), "decompose")
    (module,) = result["modules"]
    assert (module["file"], module["classes"]) == ("dog_ant.onnx", ["dog", "ant"])
    file = here / "out/dog_ant.onnx"
    assert found(graft("inspect", file, "--json"), "inspect")["classes"] == labels
    with np.load(here.data) as data:
        x = data["x_test"]
    ours, parent = kit.run_model(file, x), kit.run_model(here.model, x)["scores"]
    assert {name: values.shape for name, values in ours.items()} == {
        name: (len(x), columns) for name, columns in outputs.items()
    }
    wanted, others = parent[:, [3, 0]], parent[:, [1, 2]]
    if kind == "probabilities":
        rest = others.sum(axis=1, keepdims=True)
        expected = {"rest": np.log(rest), "scores": wanted / wanted.sum(axis=1, keepdims=True)}
    else:
        rest = logsumexp(others)
        expected = {"rest": rest, "scores": wanted}
    if "--other" in flags:
        expected["scores"] = np.concatenate([wanted, rest], axis=1)
    for name, values in ours.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_one_class_says_what_the_parent_says(kind: str, graft: Graft, tmp_path: Path) -> None:
    here = kit.place(tmp_path, kind=kind)
    line = ("decompose", here.model, "--data", here.data, "--keep", "1", "-o", here / "out")
    assert graft(*line).code == 0
    with np.load(here.data) as data:
        x = data["x_test"]
    parent = kit.run_model(here.model, x)["scores"]
    for column, label in enumerate(kit.LABELS):
        own = parent[:, [column]]
        rest = 1 - own if kind == "probabilities" else logsumexp(np.delete(parent, column, axis=1))
        expected = np.concatenate([own, rest], axis=1)
        ours = kit.run_model(here / f"out/{label}.onnx", x)["scores"]
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_one_class_of_the_bundled_model(graft: Graft, made: Place, tmp_path: Path) -> None:
    line = ("decompose", made.model, "--data", made.data, *FEW, "--keep", "1", "--classes", "3")
    assert graft(*line, "-o", tmp_path / "out").code == 0
    x = images(made)
    parent, ours = (kit.run_model(f, x)["logits"] for f in (made.model, tmp_path / "out/3.onnx"))
    expected = np.concatenate([parent[:, [3]], logsumexp(np.delete(parent, 3, axis=1))], axis=1)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_keep_by_parameters_leaves_the_head_out(graft: Graft, small: Place) -> None:
    line = ("decompose", small.model, "--data", small.data, "--classes", "ant", "-o", small / "out")
    assert graft(*line, "--keep", "0.5", "--keep-by", "parameters").code == 0
    plan = json.loads((small / "out/plans/ant.json").read_text())
    assert kit.HIDDEN == plan["sizes"]["first"]
    weights = onnx.load(small / "out/ant.onnx").graph.initializer
    assert [kit.FEATURES, kit.HIDDEN // 2] in [list(weight.dims) for weight in weights]


@pytest.mark.parametrize("budget", [["--max-drop", "3"], []], ids=["asked for", "default"])
def test_max_drop(budget: list[str], graft: Graft, small: Place) -> None:
    line = ("decompose", small.model, "--data", small.data, "--classes", "ant", "--json")
    (module,) = found(graft(*line, *budget, "-o", small / "out"), "decompose")["modules"]
    assert -module["difference"] <= (3 if budget else 0.5)
    assert module["difference_standard_error"] >= 0
    assert module["macs_ratio"] <= 1


@pytest.mark.parametrize(
    "line",
    [
        "card {model} -o {out}",
        "profile {model} --data {data} -o {out}",
        "plan {model} --profile {profile} --classes 1 --keep 0.5 -o {out}",
        "compose {made}/modules/1.onnx {made}/modules/2.onnx -o {out}",
    ],
    ids=lambda line: str(line).split()[0],
)
def test_dry_run_writes_nothing(line: str, graft: Graft, made: Place, tmp_path: Path) -> None:
    names = {"model": made.model, "data": made.data, "made": made.folder, "out": tmp_path / "out"}
    profile = made / "modules/parent/profile.safetensors"
    words = line.format(**names, profile=profile).split()
    before = kit.listing(made.folder).keys()
    assert graft(*words, "--dry-run").code == 0
    assert found(graft(*words, "--dry-run", "--json"), words[0])["output"] == str(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert kit.listing(made.folder).keys() == before


def test_force_replaces_only_what_it_wrote(graft: Graft, small: Place) -> None:
    line = ("decompose", small.model, "--data", small.data, "--keep", "0.7", "-o", small / "out")
    assert graft(*line, "--classes", "ant,bee").code == 0
    (small / "out/notes.txt").write_text("mine")
    (small / "out/plans/notes.txt").write_text("mine too")
    index = json.loads((small / "out/graft.json").read_text())
    index["files"] += ["../dense.yaml", str(small.data), "plans", "gone.onnx"]
    (small / "out/graft.json").write_text(json.dumps(index))
    assert graft(*line, "--classes", "cow").code == 2
    assert graft(*line, "--classes", "cow", "--force").code == 0
    assert sorted(path.name for path in (small / "out").rglob("*")) == [
        *("cow.json", "cow.onnx", "graft.json", "notes.txt", "notes.txt", "parent"),
        *("parent.onnx", "plans", "profile.safetensors"),
    ]
    assert (small / "out/notes.txt").read_text() == "mine"
    assert small.card.exists()
    assert small.data.exists()


def test_force_replaces_files(graft: Graft, made: Place, tmp_path: Path) -> None:
    for target in ("profile", "composite.onnx"):
        (tmp_path / target).write_text("old")
    assert (
        graft("profile", made.model, "--data", made.data, *FEW, "-o", tmp_path / "profile", "--force").code
        == 0
    )
    modules = (made / "modules/1.onnx", made / "modules/2.onnx")
    assert graft("compose", *modules, "-o", tmp_path / "composite.onnx", "--force").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["composite.onnx", "profile"]
    assert (tmp_path / "profile").stat().st_size > 3
    onnx.load(tmp_path / "composite.onnx")


# ---- what is written

WRITTEN = {
    "modules/3.onnx": 2,
    "set/7_1.onnx": 2,
    "trunk.onnx": 3,
    "branches.onnx": 3,
}


@pytest.mark.parametrize("file", WRITTEN)
def test_written_models_are_ordinary(file: str, made: Place, tmp_path: Path) -> None:
    alone = shutil.copy(made / file, tmp_path / "alone.onnx")
    model, parent = onnx.load(alone), onnx.load(made.model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == parent.ir_version
    assert [(o.domain, o.version) for o in model.opset_import] == [("", parent.opset_import[0].version)]
    assert model.graph.input == parent.graph.input
    own, theirs = model.graph.output[0], parent.graph.output[0]
    theirs.type.tensor_type.shape.dim[1].dim_value = WRITTEN[file]
    assert own == theirs
    session = ort.InferenceSession(alone, providers=["CPUExecutionProvider"])
    x = images(made)
    whole = session.run(["logits"], {"input": x})[0]
    assert whole.shape == (64, WRITTEN[file])
    for place in range(3):
        one = session.run(["logits"], {"input": x[place : place + 1]})[0]
        np.testing.assert_allclose(one[0], whole[place], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("file", WRITTEN)
def test_metadata(file: str, made: Place) -> None:
    props = {entry.key: entry.value for entry in onnx.load(made / file).metadata_props}
    assert props["author"] == "somebody"
    ours = {"graft.format", "graft.kind", "graft.card", "graft.origin", "graft.metrics"}
    modules = {"graft.typicality"} if "/" in file else set()
    assert props.keys() == ours | {"author"} | modules
    assert props["graft.kind"] == ("module" if "/" in file else "composite")
    labels = Card.from_json(props["graft.card"]).labels
    assert len(labels) == WRITTEN[file]
    origin = json.loads(props["graft.origin"])
    assert origin["classes"] == [label for label in labels if label != OTHER]
    text = "\n".join(value for key, value in props.items() if key != "graft.typicality")
    assert str(made.folder) not in text
    assert str(Path.home()) not in text
    assert socket.gethostname() not in text
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)


def test_same_request_same_bytes(made: Place, tmp_path: Path) -> None:
    cut = ("decompose", made.model, "--data", made.data, *FEW, "--keep", "0.5")
    done(*cut, "-o", tmp_path / "modules")
    first, second = kit.listing(made / "modules"), kit.listing(tmp_path / "modules")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    for strategy in ("trunk", "branches"):
        files = [tmp_path / f"modules/{digit}.onnx" for digit in "417"]
        target = tmp_path / f"{strategy}.onnx"
        done("compose", *files, "--strategy", strategy, "-o", target)
        if strategy == "trunk":
            again = tmp_path / "again.onnx"
            done("compose", *files, "--strategy", strategy, "-o", again)
            assert again.read_bytes() == target.read_bytes()
        else:
            assert target.read_bytes() == (made / "branches.onnx").read_bytes()


# ---- compose


def test_compose_tells_what_it_joined(graft: Graft, made: Place, tmp_path: Path) -> None:
    line = ("compose", *(made / f"modules/{d}.onnx" for d in "417"), "--data", made.data, "--json")
    trunk = found(graft(*line, "-o", tmp_path / "trunk.onnx"), "compose")
    branches = found(graft(*line, "--strategy", "branches", "-o", tmp_path / "branches.onnx"), "compose")
    for result in (trunk, branches):
        assert result.keys() >= COMPOSE_KEYS
        assert result["classes"] == ["4", "1", "7"]
        assert [module["classes"] for module in result["modules"]] == [["4"], ["1"], ["7"]]
        assert len(result["parents"]) == 1
        assert result["strategy_reason"]
        assert result["top1"] > 0.95
        assert result["samples"] == 300
    assert (trunk["strategy"], branches["strategy"]) == ("trunk", "branches")
    parent = json.loads((made / "modules/graft.json").read_text())["parent"]
    assert trunk["macs"] <= 0.5 * parent["macs"] < branches["macs"]
    assert trunk["parameters"] < branches["parameters"]


def test_compose_takes_a_folder_and_other(graft: Graft, made: Place, tmp_path: Path) -> None:
    line = ("compose", made / "modules/1.onnx", made / "modules/7.onnx", "--other", "--json")
    result = found(graft(*line, "-o", tmp_path / "other.onnx"), "compose")
    assert result["classes"] == ["1", "7", OTHER]
    result = found(graft("compose", made / "modules", "-o", tmp_path / "all.onnx", "--json"), "compose")
    assert result["classes"] == [str(digit) for digit in range(10)]


def test_modules_without_their_parent_become_branches(graft: Graft, made: Place, tmp_path: Path) -> None:
    files = [shutil.copy(made / f"modules/{digit}.onnx", tmp_path) for digit in "17"]
    result = found(graft("compose", *files, "-o", tmp_path / "out.onnx", "--json"), "compose")
    assert (result["strategy"], result["strategy_reason"]) == ("branches", "the parent is not at hand")
    beside = ("--parent", made.model, "--profile", made / "modules/parent/profile.safetensors")
    result = found(graft("compose", *files, *beside, "-o", tmp_path / "t.onnx", "--json"), "compose")
    assert result["strategy"] == "trunk"


@pytest.mark.parametrize("budget", [["--keep", "1"], []], ids=["asked for", "of the modules"])
def test_trunk_of_all_classes_is_the_parent(
    budget: list[str], graft: Graft, made: Place, tmp_path: Path
) -> None:
    modules = made / "modules"
    if not budget:
        modules = tmp_path / "modules"
        line = ("decompose", made.model, "--data", made.data, *FEW, "--keep", "1", "-o", modules)
        assert graft(*line).code == 0
    assert graft("compose", modules, *budget, "-o", tmp_path / "all.onnx").code == 0
    x = images(made)
    parent, ours = (kit.run_model(f, x)["logits"] for f in (made.model, tmp_path / "all.onnx"))
    np.testing.assert_allclose(ours, parent, atol=1e-4)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_branches_of_whole_modules_choose_as_the_parent(kind: str, graft: Graft, tmp_path: Path) -> None:
    here = kit.place(tmp_path, kind=kind)
    line = ("decompose", here.model, "--data", here.data, "--keep", "1", "-o", here / "out")
    assert graft(*line).code == 0
    composite = here / "all.onnx"
    assert graft("compose", here / "out", "--strategy", "branches", "-o", composite).code == 0
    with np.load(here.data) as data:
        x = data["x_test"]
    parent, ours = (kit.run_model(f, x)["scores"] for f in (here.model, composite))
    np.testing.assert_array_equal(ours.argmax(axis=1), parent.argmax(axis=1))
    if kind == "probabilities":
        np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-5)


# ---- evaluate, predict, inspect


def test_evaluate(graft: Graft, made: Place) -> None:
    line = ("evaluate", made / "trunk.onnx", "--data", made.data, "--json")
    result = found(graft(*line, "--baseline", made.model), "evaluate")
    assert result.keys() >= EVALUATE_KEYS | {"baseline", "agreement", "delta"}
    assert result["baseline"].keys() >= EVALUATE_KEYS - {"schema"}
    assert result["latency_ms"].keys() >= {"median", "p90", "batch", "threads", "runs"}
    latency = (result["latency_ms"][key] for key in ("batch", "threads", "runs"))
    assert tuple(latency) == (32, 2, 20)
    assert result["labels"] == result["baseline"]["labels"] == ["4", "1", "7"]
    assert result["per_class"].keys() == {"4", "1", "7"}
    assert result["samples"] == result["baseline"]["samples"] == 300
    assert 0.95 < result["top1"] and result["top5"] is None, "of three classes there is none"
    assert result["delta"] == pytest.approx(result["baseline"]["top1"] - result["top1"])
    assert result["macs"] < result["baseline"]["macs"]
    assert result["bytes"] == (made / "trunk.onnx").stat().st_size
    alone = found(graft(*line), "evaluate")
    assert alone.keys() >= EVALUATE_KEYS
    assert alone["top1"] == result["top1"]


def test_evaluate_restricted_to_classes(graft: Graft, made: Place) -> None:
    line = ("evaluate", made.model, "--data", made.data, "--classes", "7,2", "--json")
    result = found(graft(*line), "evaluate")
    assert (result["labels"], result["samples"]) == (["7", "2"], 200)
    with np.load(made.data) as data:
        y = data["y_test"]
    scores = kit.run_model(made.model, images(made, 1000))["logits"][np.isin(y, [7, 2])]
    labels = y[np.isin(y, [7, 2])]
    expected = np.mean(np.where(scores[:, 7] >= scores[:, 2], 7, 2) == labels)
    assert result["top1"] == pytest.approx(expected)


def test_evaluate_a_module_of_one_class(graft: Graft, made: Place) -> None:
    line = ("evaluate", made / "modules/3.onnx", "--data", made.data, "--baseline", made.model)
    result = found(graft(*line, "--json"), "evaluate")
    assert result["labels"] == ["3", OTHER]
    assert result["samples"] == result["baseline"]["samples"] == 1000
    assert result["auroc"] > 0.95
    assert result["per_class"]["3"].keys() >= {"precision", "recall", "f1"}
    assert result["baseline"]["top1"] > 0.99


@pytest.mark.parametrize(("least", "code"), [("0.5", 0), ("100%", 1)])
def test_min_top1(least: str, code: int, graft: Graft, made: Place) -> None:
    line = ("evaluate", made / "modules/8.onnx", "--data", made.data, "--min-top1", least)
    result = graft(*line)
    assert result.code == code
    assert ("below --min-top1" in result.err) == bool(code)
    told = graft(*line, "--json")
    assert (told.code, told.json["schema"]) == (code, "graft/evaluate/1")
    assert 0.5 < told.json["top1"] < 1


def test_predict(graft: Graft, made: Place, tmp_path: Path) -> None:
    with np.load(made.data) as data:
        chosen = [int(np.flatnonzero(data["y_test"] == digit)[0]) for digit in (4, 7)]
        for number, place in enumerate(chosen):
            Image.fromarray(data["x_test"][place]).save(tmp_path / f"{number}.png")
        np.save(tmp_path / "2.npy", data["x_test"][chosen[0]])
    samples = [tmp_path / name for name in ("0.png", "1.png", "2.npy")]
    for model in (made.model, made / "trunk.onnx"):
        result = found(graft("predict", model, *samples, "--json"), "predict")
        assert [entry["label"] for entry in result["predictions"]] == ["4", "7", "4"]
        for entry in result["predictions"]:
            shares = [each["probability"] for each in entry["top"]]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1 + 1e-6
    assert graft("predict", made.model, *samples).out.count("\n") == 3


def test_inspect_the_parent(graft: Graft, made: Place) -> None:
    result = found(graft("inspect", made.model, "--json"), "inspect")
    assert result.keys() >= INSPECT_KEYS
    assert result["classes"] == [str(digit) for digit in range(10)]
    assert result["origin"] is None
    assert result["inputs"] == [{"name": "input", "type": "float32", "shape": ["batch", 1, 28, 28]}]
    assert result["outputs"] == [{"name": "logits", "type": "float32", "shape": ["batch", 10]}]
    assert result["opset"] == 18
    assert result["operators"]["Conv"] == 6
    assert result["cuttable_parameters_ratio"] > 0.9
    assert 0.9 < result["cuttable_macs_ratio"] <= 1
    assert all(group.keys() >= GROUP_KEYS for group in result["groups"])
    assert all(group["size"] == group["kept"] for group in result["groups"])
    pinned = [group for group in result["groups"] if group["cuttable"] < group["size"]]
    assert pinned
    assert all(group["reason"] for group in pinned)


def test_inspect_a_module(graft: Graft, made: Place) -> None:
    whole = found(graft("inspect", made.model, "--json"), "inspect")
    result = found(graft("inspect", made / "modules/3.onnx", "--json"), "inspect")
    assert result["classes"] == ["3", OTHER]
    assert result["outputs"] == [{"name": "logits", "type": "float32", "shape": ["batch", 2]}]
    assert result["origin"]["classes"] == ["3"]
    (parent,) = result["origin"]["parents"]
    index = json.loads((made / "modules/graft.json").read_text())["modules"][3]
    assert len(parent["graph_sha256"]) == len(parent["file_sha256"]) == 64
    assert (result["macs"], result["parameters"]) == (index["macs"], index["parameters"])
    sizes = {group["name"]: group["size"] for group in whole["groups"]}
    groups = {group["name"]: group for group in result["groups"]}
    assert all(groups[name]["size"] == size for name, size in sizes.items() if name in groups)
    assert sum(group["kept"] for group in groups.values()) < sum(sizes.values())


# ---- demo, and the command itself


def test_demo(graft: Graft, tmp_path: Path) -> None:
    result = found(graft("demo", "--json", "-o", tmp_path / "demo"), "demo")
    assert result.keys() >= {"commands", "decompose", "compose", "evaluate", "parents", "alone"}
    verbs = [command.split()[1] for command in result["commands"]]
    assert verbs == ["decompose"] * 3 + ["compose"] + ["evaluate"] * 4
    ours, parents = result["evaluate"], result["parents"]
    assert len(ours["labels"]) == 6 and ours["top1"] > 0.95
    assert ours["macs"] < 0.7 * sum(parent["macs"] for parent in parents)
    assert result["compose"]["strategy"] == "trunk" and len(result["compose"]["parents"]) == 3
    assert result["alone"]["input"] == ["uint8", 100, 28, 28, 1] and result["alone"]["recall"] > 0.9
    session = ort.InferenceSession(tmp_path / "demo/six_classes.onnx")
    assert [(tensor.name, tensor.type) for tensor in session.get_inputs()] == [("image", "tensor(uint8)")]


@pytest.mark.parametrize("dry", [True, False])
def test_a_dry_demo_writes_nothing(
    dry: bool, graft: Graft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is run, in a folder that vanishes."""

    def tell(story: demo._Story) -> dict[str, Any]:
        story.folder.mkdir(exist_ok=True)
        (story.folder / "six_classes.onnx").write_text("a model")
        return {"commands": []}

    monkeypatch.setattr(demo._Story, "tell", tell)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = tmp_path / "demo"
    result = found(graft("demo", "--json", "-o", output, *(["--dry-run"] if dry else [])), "demo")
    assert (result.get("dry_run", False), result["output"]) == (dry, str(output))
    assert [path.name for path in tmp_path.iterdir()] == ([] if dry else ["demo"])


def test_commands_print_tables_for_people(graft: Graft, made: Place) -> None:
    lines = (
        ("inspect", made.model),
        ("evaluate", made / "modules/3.onnx", "--data", made.data, "--baseline", made.model),
    )
    for line in lines:
        result = graft(*line)
        assert result.code == 0
        assert result.out.count("\n") > 3
        assert result.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, graft: Graft) -> None:
    result = graft(command, "--help")
    assert result.code == 0
    assert f"Usage: graft {command}" in result.out
    assert "--json" in result.out


def test_no_command_is_help(graft: Graft) -> None:
    result = graft()
    assert (result.code, result.err) == (0, "")
    assert all(command in result.out for command in COMMANDS)


def test_entry_point(made: Place) -> None:
    """As the console script does it, in a process of its own."""
    code = "from graft.tools.cli import main; main()"
    for words, exit_code in ((["inspect", str(made.model), "--json"], 0), (["inspect", "no.onnx"], 2)):
        ran = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert ran.returncode == exit_code
        if exit_code:
            assert ran.stderr == "graft: error: no model at no.onnx; check the path\n"
        else:
            assert json.loads(ran.stdout)["schema"] == "graft/inspect/1"
            assert ran.stderr == ""
