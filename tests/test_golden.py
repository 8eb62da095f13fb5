"""What an earlier Graft wrote is read, and gives the same numbers: see tests/golden/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from graft.passes.parent import Parent
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.profile import Profile
from tests import small
from tests.golden.make import COMPUTED, DATA, DECOMPOSE, MODELS, PARENTS, PROFILED, STORED, inputs
from tests.integration.kit import printed

GOLDEN = Path(__file__).parent / "golden"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
NODES: dict[str, list[str]] = json.loads((GOLDEN / "nodes.json").read_text())
LARGEST = 2_000_000
ROUNDING = 1e-4
"""Of refitted weights, of their scale: the code that wrote the golden files comes to 4e-5 where BLAS takes
the kernels of another processor. On one machine they are equal."""
PROFILES = [path.parts[-3] for path in sorted(GOLDEN.glob("*/parent/profile.safetensors"))]


@pytest.fixture(scope="module")
def outputs() -> dict[str, Any]:
    with np.load(GOLDEN / "outputs.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the golden files that commands may write beside."""
    return Path(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("golden") / "golden"))


def compare(source: Path | onnx.ModelProto, name: str, outputs: dict[str, Any]) -> None:
    """onnxruntime computes what was stored under ``name``."""
    content = source.read_bytes() if isinstance(source, Path) else source.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = {key.split("|")[1]: values for key, values in outputs.items() if key.split("|")[0] == name}
    assert set(names) == set(expected)
    for key, values in zip(names, session.run(names, inputs(session)), strict=True):
        scale = max(1.0, float(np.abs(expected[key]).max()))
        np.testing.assert_allclose(values, expected[key], rtol=0, atol=1e-5 * scale, err_msg=key)


def test_the_golden_files_are_few() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < LARGEST
    assert PROFILES == ["digits", "languages", "mnist"]
    assert len(EXPECTED) == 10


@pytest.mark.parametrize("file", EXPECTED)
def test_a_model_is_read_and_written_with_the_same_outputs(file: str, outputs: dict[str, Any]) -> None:
    compare(GOLDEN / file, file, outputs)
    model = Model.load(GOLDEN / file)
    assert model.require_card().labels
    compare(model.proto(), file, outputs)


@pytest.mark.parametrize("file", EXPECTED)
def test_inspect_says_the_same(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = printed(capfd, "inspect", GOLDEN / file)
    expected = EXPECTED[file]["inspect"]
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("file", [file for file in EXPECTED if "evaluate" in EXPECTED[file]])
def test_evaluate_measures_the_same(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = DATA[file.split("/")[0].split("_")[0]]
    found = printed(capfd, "evaluate", GOLDEN / file, "--data", data, "--threads", "1")
    expected = EXPECTED[file]["evaluate"]
    assert expected["samples"] > 0
    for name in expected.keys() - {"latency_ms"}:
        assert_close(found[name], expected[name], name)


def assert_close(found: Any, expected: Any, where: str) -> None:
    """Equal, but for the rounding of numbers; keys may be new."""
    if isinstance(expected, dict):
        for name in expected:
            assert_close(found[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_read_and_made_again(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = Profile.load(GOLDEN / name / "parent/profile.safetensors")
    stored.save(tmp_path / "copy")
    before, after = GOLDEN / name / "parent/profile.safetensors", tmp_path / "copy"
    tensors, copied = load_file(before), load_file(after)
    pooled = {key for key in tensors if "@step|" not in key}  # by time step nobody reads them
    assert copied.keys() == pooled
    assert all(copied[key].tobytes() == tensors[key].tobytes() for key in pooled)
    assert pooled != tensors.keys() or after.read_bytes() == before.read_bytes()
    classes, few = PROFILED[name]
    line = ("profile", MODELS / f"{PARENTS[name]}.onnx", "--data", DATA[name], "--classes", classes)
    printed(capfd, *line, *few.split(), "--threads", "1", "-o", tmp_path / "anew")
    anew = Profile.load(tmp_path / "anew")
    assert (anew.parent, anew.data, anew.classes) == (stored.parent, stored.data, stored.classes)
    np.testing.assert_array_equal(anew.counts, stored.counts)
    np.testing.assert_array_equal(anew.correct, stored.correct)
    for statistic, tables in anew.tables.items():
        for tensor, table in tables.items():
            expected = stored.tables[statistic][tensor]
            scale = float(np.abs(expected).max())
            np.testing.assert_allclose(table, expected, rtol=0, atol=1e-6 * scale, err_msg=tensor)
    assert stored.tables.keys() == anew.tables.keys()
    assert all(anew.tables[each].keys() == tables.keys() for each, tables in stored.tables.items())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/plans/*.json")), ids=lambda path: str(path.stem))
def test_a_plan_is_read_and_cuts_its_parent(path: Path) -> None:
    plan = Plan.load(path)
    assert plan.to_json().strip() == path.read_text().strip()
    source = Model.load(MODELS / f"{PARENTS[path.parts[-3]]}.onnx")
    module = Model.load(path.parents[1] / f"{path.stem}.onnx")
    assert plan.parent == source.graph_sha256()
    parent = Parent(source).model.copy()
    whole = ChannelGroups(parent)
    mask = plan.mask(whole)
    kept, channels = plan.counts()
    assert 0 < kept < channels
    assert mask.sum() < mask.size
    small.prune(parent, plan)
    sizes = {group.name: group.size for group in ChannelGroups(parent)}
    left = {group.name: group.size for group in ChannelGroups(module)}
    for group, flags in plan.kept.items():
        assert sizes.get(group, 0) == flags.sum()
        if group in left:
            assert left[group] == flags.sum()


@pytest.mark.parametrize("name", DECOMPOSE)
def test_decompose_makes_the_same_plans(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, outputs: dict[str, Any]
) -> None:
    decompose(name, capfd, tmp_path / "made", *DECOMPOSE[name].split())
    check_modules(name, tmp_path / "made", outputs)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/plans/*.json")), ids=lambda path: str(path.stem))
def test_decompose_by_a_plan_makes_the_same_module(
    path: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, outputs: dict[str, Any]
) -> None:
    name = path.parts[-3]
    classes = path.stem.replace("_", ",")
    whole = ("--together", "--other") if name == "fashion" else ()
    decompose(name, capfd, tmp_path / "made", "--classes", classes, *whole, "--plan", path)
    check_modules(name, tmp_path / "made", outputs)


def decompose(name: str, capfd: pytest.CaptureFixture[str], output: Path, *options: object) -> None:
    """Modules of a bundled parent, with the profile of the golden ones where it is there."""
    stored = GOLDEN / name / "parent/profile.safetensors"
    known = ("--profile", stored) if stored.exists() else ()
    line = ("decompose", MODELS / f"{PARENTS[name]}.onnx", "--data", DATA[name], *known)
    printed(capfd, *line, *options, *PROFILED[name][1].split(), "--threads", "1", "-o", output)


def check_modules(name: str, made: Path, outputs: dict[str, Any]) -> None:
    """Plans are equal; graphs have the nodes of nodes.json; weights and outputs differ by rounding only."""
    files = sorted(made.glob("*.onnx"))
    assert files
    for file in files:
        plan = f"plans/{file.stem}.json"
        assert json.loads((made / plan).read_text()) == json.loads((GOLDEN / name / plan).read_text())
        one, two = onnx.load(GOLDEN / name / file.name), onnx.load(file)
        assert [onnx.printer.to_text(node) for node in two.graph.node] == NODES[f"{name}/{file.name}"]
        assert (one.graph.input, one.graph.output) == (two.graph.input, two.graph.output)
        stored, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (one, two))
        assert all(name.startswith("graft/") or "/start/" in name for name in stored.keys() ^ new.keys())
        for tensor, values in stored.items():
            if tensor not in new:
                continue
            if values.dtype.kind != "f":
                np.testing.assert_array_equal(new[tensor], values)
                continue
            atol = ROUNDING * float(np.abs(values).max(initial=0))
            np.testing.assert_allclose(new[tensor], values, rtol=0, atol=atol, err_msg=tensor)
        compare(file, f"{name}/{file.name}", outputs)


@pytest.mark.parametrize("name", [*COMPUTED, *STORED])
def test_composites_of_golden_modules_compute_the_same(
    name: str,
    capfd: pytest.CaptureFixture[str],
    work: Path,
    outputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(work)
    made = Path("made") / f"{name}.onnx"
    made.parent.mkdir(exist_ok=True)
    line = {**COMPUTED, **STORED}[name]
    one = ("--threads", "1") if name in STORED and "compose" in line else ()
    printed(capfd, *line.split(), *one, "-o", made)
    compare(made, f"{name}.onnx" if name in STORED else name, outputs)
