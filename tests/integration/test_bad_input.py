"""Whatever is wrong with files, data or a request: exit code 2, one line, nothing written."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from graft.tools.cli import run
from tests.integration import kit
from tests.integration.kit import Graft, Place

Breaks = Callable[[Place], object]

DECOMPOSE = "decompose dense.onnx --data dense.npz --keep 0.7 -o out"
PROFILE = "profile dense.onnx --data dense.npz -o out"
PLAN = "plan dense.onnx --profile dense.profile --classes ant --keep 0.7 -o out"
COMPOSE = "compose modules/ant.onnx modules/bee.onnx -o out"
EVALUATE = "evaluate dense.onnx --data dense.npz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A small model with all that commands make of it."""
    made = kit.place(tmp_path_factory.mktemp("whole"))
    common = [str(made.model), "--data", str(made.data)]
    profile = str(made / "dense.profile")
    assert run(["profile", *common, "-o", profile]) == 0
    plan = ["--profile", profile, "--classes", "ant", "--keep", "0.7"]
    assert run(["plan", str(made.model), *plan, "-o", str(made / "plan.json")]) == 0
    assert run(["decompose", *common, "--keep", "0.7", "-o", str(made / "modules")]) == 0
    other = kit.place(made / "other", kit.dense(seed=1))
    with np.load(other.data) as data:
        np.savez(made / "pictures.npz", x_train=np.zeros((4, 4, 4), np.uint8), y_train=range(4))
        np.savez(made / "twelve.npz", x_train=data["x_train"], y_train=data["y_train"] + 8)
    (made / "no.npy").write_bytes(b"no array")
    onnx.save(kit.pictures(), made / "pictures.onnx")
    image = "input: {name: x, kind: image, color: GRAY, size: [4, 4]}\n"
    (made / "pictures.yaml").write_text(image + kit.card().split("\n", 1)[1])
    return made


@pytest.fixture
def here(whole: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of it, as the working directory."""
    folder = tmp_path / "work" / "here"
    shutil.copytree(whole.folder, folder)
    monkeypatch.chdir(folder)
    return Place(folder, folder / "dense.onnx", folder / "dense.npz")


def refused(graft: Graft, folder: Path, line: str, code: str, says: str) -> None:
    """Run ``line`` plainly and with ``--json``; it has to fail in the way users are promised."""
    before = kit.listing(folder)
    plain = graft(*shlex.split(line))
    assert plain.code == 2, plain
    assert plain.err.count("\n") == 1, plain.err
    assert plain.err.startswith("graft: error: ")
    assert says in plain.err
    assert "Traceback" not in plain.err
    assert "unexpected" not in plain.err
    assert all(line.startswith("parent: top-1") for line in plain.out.splitlines())
    told = graft(*shlex.split(line), "--json")
    assert told.code == 2
    assert set(told.json) == {"schema", "code", "message", "hint"}
    assert (told.json["schema"], told.json["code"]) == ("graft/error/1", code)
    assert told.json["message"] in told.err
    assert told.json["hint"]
    assert plain.err.rstrip().endswith(told.json["hint"])
    assert kit.listing(folder) == before


REQUESTS = {
    "model missing": ("inspect no.onnx", "model-missing", "no.onnx"),
    "model is a folder": ("inspect modules", "model-is-folder", "modules"),
    "data missing": (DECOMPOSE.replace(".npz", ".npy"), "data-missing", "dense.npy"),
    "data of no known kind": (EVALUATE.replace(".npz", ".yaml"), "data-format", ".npz"),
    "labels out of range": (DECOMPOSE.replace("dense.npz", "twelve.npz"), "data-labels", "0 to 3"),
    "images for features": (DECOMPOSE.replace("dense.npz", "pictures.npz"), "run-failed", "card and data"),
    "split unknown": (f"{DECOMPOSE} --split dev", "data-split", "train"),
    "class unknown": (f"{DECOMPOSE} --classes ants", "class-unknown", "did you mean 'ant'?"),
    "class unknown, nothing near": (f"{EVALUATE} --classes xyz", "class-unknown", "ant, bee"),
    "class twice": (f"{DECOMPOSE} --classes ant,ant", "class-twice", "ant"),
    "class file missing": (f"{DECOMPOSE} --classes @no.txt", "classes-file", "no.txt"),
    "no class": (f"{DECOMPOSE} --classes ,", "class-unknown", "at least one"),
    "profile onto a file": (PROFILE.replace("out", "plan.json"), "output-exists", "--force"),
    "plan onto a file": (PLAN.replace("out", "dense.profile"), "output-exists", "--force"),
    "compose onto a file": (COMPOSE.replace("out", "dense.onnx"), "output-exists", "--force"),
    "card onto a file": ("card dense.onnx -o dense.yaml", "output-exists", "--force"),
    "compose onto a folder": (COMPOSE.replace("out", "modules"), "output-exists", "folder"),
    "decompose onto a folder": (DECOMPOSE.replace("out", "modules"), "output-exists", "--force"),
    "decompose onto a file": (DECOMPOSE.replace("out", "plan.json"), "output-exists", "--force"),
    "force onto a foreign folder": (
        f"{DECOMPOSE.replace('out', 'other')} --force",
        *("directory-unfinished", "other"),
    ),
    "output below a file": (COMPOSE.replace("out", "plan.json/x"), "output-unwritable", "-o"),
    "demo onto a folder": ("demo -o modules", "output-exists", "modules"),
    "keep nothing": (DECOMPOSE.replace("0.7", "0"), "usage", "above 0"),
    "keep too much": (DECOMPOSE.replace("0.7", "2"), "usage", "100%"),
    "keep a word": (DECOMPOSE.replace("0.7", "abc"), "usage", "50%"),
    "keep what is no number": (DECOMPOSE.replace("0.7", "nan"), "usage", "nan"),
    "keep out of reach": (DECOMPOSE.replace("0.7", "0.0001"), "budget-unreachable", "or more"),
    "plan out of reach": (PLAN.replace("0.7", "0.0001"), "budget-unreachable", "or more"),
    "trunk out of reach": (f"{COMPOSE} --keep 0.0001", "budget-unreachable", "or more"),
    "keep by what": (f"{DECOMPOSE} --keep-by joules", "usage", "'macs', 'parameters'"),
    "keep and max-drop": (f"{DECOMPOSE} --max-drop 1", "usage", "one of"),
    "keep and plan": (f"{DECOMPOSE} --plan plan.json", "usage", "one of"),
    "max-drop negative": (DECOMPOSE.replace("keep 0.7", "max-drop -1"), "usage", "-1"),
    "max-drop no number": (DECOMPOSE.replace("keep 0.7", "max-drop nan"), "usage", "nan"),
    "method unknown": (f"{DECOMPOSE} --method magic", "usage", "contrast"),
    "compensate unknown": (f"{DECOMPOSE} --compensate magic", "usage", "fold"),
    "provider unknown": (f"{EVALUATE} --providers abacus", "provider-unknown", "cuda"),
    "strategy unknown": (f"{COMPOSE} --strategy magic", "usage", "trunk"),
    "command unknown": ("dismantle dense.onnx", "usage", "graft --help"),
    "option unknown": (f"{DECOMPOSE} --magic", "usage", "graft decompose --help"),
    "option missing": ("decompose dense.onnx -o out", "usage", "--data"),
    "argument missing": ("compose -o out", "usage", "MODULES"),
    "samples-per-class nothing": (f"{DECOMPOSE} --samples-per-class 0", "usage", "x>=1"),
    "shape unreadable": ("inspect dense.onnx --input-shape x:a", "shape-unreadable", "x:a"),
    "plan missing": (
        "decompose dense.onnx --data dense.npz --plan no.json -o out",
        *("plan-unreadable", "no.json"),
    ),
    "plan of another model": (
        "decompose other/dense.onnx --data dense.npz --plan plan.json -o out",
        *("plan-of-another", "graft plan"),
    ),
    "profile missing": (PLAN.replace("dense.profile", "no"), "profile-unreadable", "no"),
    "profile is a plan": (PLAN.replace("dense.profile", "plan.json"), "profile-unreadable", "plan"),
    "profile of another model": (
        "plan other/dense.onnx --profile dense.profile --keep 0.7 -o out",
        *("profile-of-another", "graft profile"),
    ),
    "decompose by a profile of another model": (
        "decompose other/dense.onnx --data dense.npz --profile dense.profile --keep 0.7 -o out",
        *("profile-of-another", "graft profile"),
    ),
    "compose classes twice": ("compose dense.onnx modules -o out", "class-twice", "dense.onnx"),
    "compose a class twice": (
        "compose modules/ant.onnx modules/ant.onnx -o out",
        *("class-twice", "ant"),
    ),
    "compose what is not there": ("compose modules/cat.onnx -o out", "model-missing", "cat.onnx"),
    "compose an unfinished folder": ("compose other -o out", "directory-unfinished", "graft.json"),
    "baseline lacks a class": (
        f"{EVALUATE} --baseline modules/ant.onnx",
        *("baseline-class", "no class 'bee'"),
    ),
    "min-top1 a word": (f"{EVALUATE} --min-top1 good", "usage", "50%"),
    "sample missing": ("predict pictures.onnx no.png", "data-missing", "no.png"),
    "sample is no image": ("predict pictures.onnx dense.onnx", "data-image", "dense.onnx"),
    "sample is no array": ("predict dense.onnx no.npy", "data-unreadable", "numpy.save"),
    "image for features": ("predict dense.onnx plan.json", "data-type", "kind: image"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_request(name: str, graft: Graft, here: Place) -> None:
    refused(graft, here.folder.parent, *REQUESTS[name])


def broken(change: Callable[[bytes], bytes]) -> Breaks:
    return lambda here: here.model.write_bytes(change(here.model.read_bytes()))


def edited(change: Callable[[onnx.ModelProto], Any], name: str = "dense.onnx") -> Breaks:
    def edit(here: Place) -> None:
        proto = onnx.load(here / name)
        change(proto)
        (here / name).write_bytes(proto.SerializeToString())

    return edit


def external(location: str) -> Breaks:
    """A weight whose data lie in a file elsewhere."""

    def change(proto: onnx.ModelProto) -> None:
        weight = proto.graph.initializer[0]
        size = len(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        weight.external_data.add(key="length", value=str(size))

    def edit(here: Place) -> None:
        (here.folder.parent / "secret").write_bytes(bytes(10_000))
        edited(change)(here)

    return edit


def huge(dims: list[int], raw: bytes = b"") -> Breaks:
    def change(proto: onnx.ModelProto) -> None:
        weight = proto.graph.initializer[0]
        del weight.dims[:]
        weight.dims.extend(dims)
        weight.raw_data = raw

    return edited(change)


def opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 999


def ir_version(proto: onnx.ModelProto) -> None:
    proto.ir_version = 99


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Frobnicate"


def no_numbers(proto: onnx.ModelProto) -> None:
    size = len(proto.graph.initializer[1].raw_data)
    proto.graph.initializer[1].raw_data = np.full(size // 4, np.nan, np.float32).tobytes()


MODELS: dict[str, tuple[Breaks, str, str]] = {
    "empty": (broken(lambda _: b""), "model-unreadable", "empty"),
    "truncated": (broken(lambda b: b[: len(b) // 2]), "model-unreadable", "cut off"),
    "text": (broken(lambda _: b"hello, world\n"), "model-unreadable", "no ONNX model"),
    "garbage": (
        broken(lambda _: np.random.default_rng(0).bytes(4096)),
        *("model-unreadable", "no ONNX model"),
    ),
    "newer opset": (edited(opset), "model-version", "opset 999"),
    "newer IR version": (edited(ir_version), "model-version", "99"),
    "unknown operator": (edited(unknown_operator), "model-invalid", "Frobnicate"),
    "data outside its folder": (external("../secret"), "model-invalid", "outside"),
    "data at an absolute path": (external("/etc/hostname"), "model-invalid", "absolute"),
    "data file missing": (external("weights.bin"), "model-invalid", "weights.bin"),
    "huge without data": (huge([1 << 40]), "model-invalid", "dense.onnx"),
    "huge with little data": (huge([1 << 31, 1 << 31, 1 << 31], b"abcd"), "model-invalid", ""),
    "negative size": (huge([-6, 12], b"abcd"), "model-invalid", ""),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, graft: Graft, here: Place) -> None:
    change, code, says = MODELS[name]
    change(here)
    for line in ("inspect dense.onnx", DECOMPOSE):
        refused(graft, here.folder.parent, line, code, says)


@pytest.mark.parametrize(
    "line",
    [DECOMPOSE, PROFILE, PLAN, EVALUATE, "card dense.onnx", "predict dense.onnx plan.json"],
)
def test_model_of_every_command(line: str, graft: Graft, here: Place) -> None:
    here.model.write_bytes(here.model.read_bytes()[:100])
    refused(graft, here.folder.parent, line, "model-unreadable", "dense.onnx")


def written(text: str) -> Breaks:
    return lambda here: here.card.write_text(text)


CARDS: dict[str, tuple[Breaks, str, str]] = {
    "missing": (lambda here: here.card.unlink(), "card-missing", "graft card"),
    "wrong input": (written(kit.card(name="y")), "card-input", "'y'"),
    "wrong output": (
        written(kit.card().replace("scores", "logits")),
        *("card-output", "'logits'"),
    ),
    "few labels": (written(kit.card(labels="[ant, bee]")), "card-labels", "2 labels"),
    "labels that are booleans": (
        written(kit.card(labels="[yes, no, on, off]")),
        *("card-labels", "quote it: 'yes'"),
    ),
    "labels that are numbers": (
        written(kit.card(labels="[0x1A, b, c, d]")),
        *("card-labels", "quote it: '0x1A'"),
    ),
    "labels twice": (written(kit.card(labels="[a, b, a, d]")), "card-labels", "'a'"),
    "broken YAML": (written(kit.card() + "name: [open\n"), "card-invalid", "line"),
    "empty": (written(""), "card-invalid", "graft card"),
    "unknown key": (written(kit.card() + "lables: []\n"), "card-invalid", "'labels'"),
    "newer format": (written("graft: 9\n" + kit.card()), "card-format", "update"),
    "kind that cannot be cut": (written(kit.card("sigmoid")), "output-kind", "logits"),
}


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str, graft: Graft, here: Place) -> None:
    change, code, says = CARDS[name]
    change(here)
    refused(graft, here.folder.parent, DECOMPOSE, code, says)


def resaved(**changes: object) -> Breaks:
    """Other arrays in the data; ``None`` leaves one out."""

    def edit(here: Place) -> None:
        with np.load(here.data) as data:
            arrays = {**data, **changes}
        arrays = {key: value for key, value in arrays.items() if value is not None}
        np.savez(here.data, **arrays)

    return edit


def with_nan(here: Place) -> None:
    with np.load(here.data) as data:
        x = data["x_train"].copy()
    x[7, 0] = np.nan
    resaved(x_train=x)(here)


def without_dogs(here: Place) -> None:
    with np.load(here.data) as data:
        kept = data["y_train"] != kit.LABELS.index("dog")
        arrays = {"x_train": data["x_train"][kept], "y_train": data["y_train"][kept]}
    resaved(**arrays)(here)


OBJECTS = np.array([{"a": 1}] * 240, object)
DATA: dict[str, tuple[Breaks, str, str]] = {
    "no samples": (resaved(x_train=None), "data-missing-key", "x_train"),
    "labels of another name": (
        resaved(y_train=None, train_labels=np.zeros(240, int)),
        *("data-missing-key", "one that is called train_labels"),
    ),
    "truncated": (
        lambda here: here.data.write_bytes(here.data.read_bytes()[:2000]),
        *("data-unreadable", "np.savez"),
    ),
    "damaged": (
        lambda here: here.data.write_bytes(
            bytes(byte ^ 255 if 300 < at < 400 else byte for at, byte in enumerate(here.data.read_bytes()))
        ),
        *("data-unreadable", "again"),
    ),
    "empty file": (lambda here: here.data.write_bytes(b""), "data-unreadable", "np.savez"),
    "pickled samples": (resaved(x_train=OBJECTS), "data-format", "never unpickled"),
    "pickled labels": (resaved(y_train=OBJECTS), "data-format", "never unpickled"),
    "pickled names": (resaved(class_names=OBJECTS[:4]), "data-format", "never unpickled"),
    "NaN": (with_nan, "data-nan", "number 7"),
    "fewer labels": (resaved(y_train=np.zeros(9, int)), "data-length", "9 labels"),
    "labels negative": (resaved(y_train=np.full(240, -1)), "data-labels", "-1"),
    "labels not whole": (resaved(y_train=np.full(240, 0.5)), "data-labels", "whole"),
    "labels one-hot": (resaved(y_train=np.zeros((240, 4), int)), "data-labels", "argmax"),
    "other classes": (resaved(class_names=["u", "v", "w", "x"]), "data-classes", "ant"),
    "features of another size": (
        resaved(x_train=np.zeros((240, 5), np.float32)),
        *("run-failed", "card and data"),
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, graft: Graft, here: Place) -> None:
    change, code, says = DATA[name]
    change(here)
    for line in (DECOMPOSE, PROFILE):
        refused(graft, here.folder.parent, line, code, says)


@pytest.mark.parametrize(
    ("images", "code", "says"),
    [
        (np.zeros((4, 5, 4), np.uint8), "data-shape", "4x4"),
        (np.zeros((4, 4, 4, 3), np.uint8), "data-shape", "colour"),
        (np.full((4, 4, 4), np.nan, np.float32), "data-nan", "NaN"),
        (np.zeros((4, 4, 4), np.complex64), "data-type", "complex64"),
    ],
)
def test_images(images: kit.Array, code: str, says: str, graft: Graft, here: Place) -> None:
    np.savez(here / "pictures.npz", x_train=images, y_train=range(4))
    line = "decompose pictures.onnx --data pictures.npz --keep 0.7 -o out"
    refused(graft, here.folder.parent, line, code, says)


@pytest.mark.parametrize("command", [DECOMPOSE, PROFILE, EVALUATE])
def test_class_without_samples(command: str, graft: Graft, here: Place) -> None:
    without_dogs(here)
    line = f"{command} --classes dog"
    line += " --split train" if command == EVALUATE else ""
    refused(graft, here.folder.parent, line, "class-empty", "ant, bee, cow")


def test_plan_for_a_class_that_was_not_profiled(graft: Graft, here: Place) -> None:
    without_dogs(here)
    assert graft("profile", "dense.onnx", "--data", "dense.npz", "-o", "few").code == 0
    line = "plan dense.onnx --profile few --classes dog --keep 0.7 -o out"
    refused(graft, here.folder.parent, line, "profile-class", "'dog'")


PLANS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "no JSON": (lambda text: text[:40], "plan-unreadable", "graft plan"),
    "a list": (lambda text: "[]", "plan-unreadable", "graft plan"),
    "newer format": (lambda text: text.replace("plan/1", "plan/9"), "plan-format", "plan/9"),
    "unknown group": (lambda text: text.replace("first", "third"), "plan-group", "third"),
    "another size": (lambda text: text.replace(": 12", ": 13"), "plan-group", "13"),
    "channels beyond": (lambda text: kept(text, "0-99"), "plan-unreadable", "0-99"),
    "no channel": (lambda text: kept(text, ""), "plan-empty", "keep at least one"),
    "no range": (lambda text: kept(text, "a-b"), "plan-unreadable", "'a'"),
}


def kept(text: str, ranges: str, size: int = kit.HIDDEN) -> str:
    plan = json.loads(text)
    plan["groups"]["first"], plan["sizes"]["first"] = ranges, size
    return json.dumps(plan)


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str, graft: Graft, here: Place) -> None:
    change, code, says = PLANS[name]
    (here / "plan.json").write_text(change((here / "plan.json").read_text()))
    line = "decompose dense.onnx --data dense.npz --classes ant --plan plan.json -o out"
    refused(graft, here.folder.parent, line, code, says)


@pytest.mark.parametrize("size", [0, 8, 500])
def test_profile_cut_off(size: int, graft: Graft, here: Place) -> None:
    (here / "dense.profile").write_bytes((here / "dense.profile").read_bytes()[:size])
    refused(graft, here.folder.parent, PLAN, "profile-unreadable", "graft profile")


def prop(key: str, value: str) -> Breaks:
    """Change a metadata entry of a module."""

    def change(proto: onnx.ModelProto) -> None:
        found = {entry.key: entry.value for entry in proto.metadata_props}
        helper.set_model_props(proto, {**found, key: value})

    return edited(change, "modules/ant.onnx")


def other_parent(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(kit.dense(seed=1).graph.initializer[0])


MODULES: dict[str, tuple[Breaks, str, str]] = {
    "newer format": (prop("graft.format", "2"), "module-format", "update Graft"),
    "format of no kind": (prop("graft.format", "new"), "module-format", "new"),
    "origin broken": (prop("graft.origin", "{"), "module-broken", "graft.origin"),
    "card broken": (prop("graft.card", "{"), "card-invalid", "JSON"),
    "parent without profile": (
        lambda here: (here / "modules/parent/profile.safetensors").unlink(),
        *("parent-missing", "--strategy branches"),
    ),
    "parent broken": (
        lambda here: (here / "modules/parent/parent.onnx").write_bytes(b"x"),
        *("model-unreadable", "parent.onnx"),
    ),
    "parent of others": (
        edited(other_parent, "modules/parent/parent.onnx"),
        *("parent-missing", "--parent"),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str, graft: Graft, here: Place) -> None:
    change, code, says = MODULES[name]
    change(here)
    refused(graft, here.folder.parent, f"{COMPOSE} --strategy trunk", code, says)


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", "{}", *(f'{{"files": [], "modules": {each}}}' for each in ("1", "[1]", "[{}]", "[]"))],
)
def test_index(index: str, graft: Graft, here: Place) -> None:
    (here / "modules/graft.json").write_text(index)
    code = "nothing-to-join" if index.endswith(": []}") else "directory-unfinished"
    refused(graft, here.folder.parent, "compose modules -o out", code, "")


@pytest.mark.parametrize("files", ["1", "[1]", "null"])
def test_index_with_force(files: str, graft: Graft, here: Place) -> None:
    (here / "modules/graft.json").write_text(f'{{"files": {files}, "modules": []}}')
    line = f"{DECOMPOSE.replace('out', 'modules')} --force"
    refused(graft, here.folder.parent, line, "directory-unfinished", "modules")


def test_output_that_is_no_number(graft: Graft, here: Place) -> None:
    edited(no_numbers)(here)
    refused(graft, here.folder.parent, EVALUATE, "output-nan", "scale, mean and std")
    line = "evaluate other/dense.onnx --data dense.npz --baseline dense.onnx"
    refused(graft, here.folder.parent, line, "output-nan", "scale, mean and std")
    np.save(here / "sample.npy", np.zeros(kit.FEATURES, np.float32))
    refused(graft, here.folder.parent, "predict dense.onnx sample.npy", "output-nan", "sample.npy")


def test_debug_shows_where(graft: Graft) -> None:
    result = graft("inspect", "no.onnx", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.endswith("graft: error: no model at no.onnx; check the path\n")


def test_image_that_does_not_fit(graft: Graft, here: Place) -> None:
    Image.new("L", (9, 4)).save(here / "wide.png")
    noise = np.random.default_rng(0).integers(0, 256, (4, 4), np.uint8)
    Image.fromarray(noise).save(here / "small.png")
    (here / "cut.png").write_bytes((here / "small.png").read_bytes()[:55])
    folder = here.folder.parent
    told = graft("predict", here / "pictures.onnx", here / "wide.png")
    assert told.code == 0
    assert "squashed to 4x4" in told.err and "resize" in told.err
    refused(graft, folder, "predict pictures.onnx cut.png", "data-image", "cut.png")
