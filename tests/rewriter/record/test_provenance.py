"""The record of where a module comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import (
    FORMAT,
    FORMAT_KEY,
    METRICS_KEY,
    ORIGIN_KEY,
    Origin,
    kind_of,
    origin_of,
    parent_record,
    stamp,
    versions,
)
from tests import small

RECORD = Origin(
    parents=(parent_record(small.model(small.dense_net())),),
    classes=("a", "ü"),
    options={"keep": 0.5, "method": "random"},
    plan={"dense": "0-3"},
    sizes={"dense": 8},
    profile_sha256="f" * 64,
    versions={"onnx": "1"},
)


def stamped() -> Model:
    model = small.model(small.dense_net())
    model.metadata["theirs"] = "1"
    stamp(model, "module", RECORD, {"top1": 0.5})
    return model


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    stamped().save(tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    assert origin_of(model) == RECORD
    assert kind_of(model) == "module"
    assert json.loads(model.metadata[METRICS_KEY]) == {"top1": 0.5}
    assert model.metadata[FORMAT_KEY] == str(FORMAT)
    assert model.metadata["theirs"] == "1"


def test_the_record_of_a_parent(tmp_path: Path) -> None:
    model = small.model(small.dense_net())
    model.card = small.card().replace(name="Net", license="MIT", source="https://example.org")
    model.save(tmp_path / "m.onnx")
    loaded = Model.load(tmp_path / "m.onnx")
    record = parent_record(loaded)
    assert record.graph_sha256 == model.graph_sha256()
    assert record.file_sha256 == loaded.file_sha256 != ""
    assert record.labels == small.LABELS
    assert (record.name, record.license, record.source) == ("Net", "MIT", "https://example.org")


def refused(model: Model) -> GraftError:
    with pytest.raises(GraftError) as caught:
        origin_of(model)
    return caught.value


def test_a_foreign_model_is_refused() -> None:
    model = small.model(small.dense_net())
    assert kind_of(model) is None
    assert refused(model).code == "not-a-module"


@pytest.mark.parametrize("found", [str(FORMAT + 1), "99", "", "new", "-1", "1.5"])
def test_a_newer_or_unknown_format_is_refused(found: str) -> None:
    model = stamped()
    model.metadata[FORMAT_KEY] = found
    error = refused(model)
    assert error.code == "module-format"
    assert error.hint == "update Graft"


def test_a_missing_format_is_refused() -> None:
    model = stamped()
    del model.metadata[FORMAT_KEY]
    assert refused(model).code == "module-format"


@pytest.mark.parametrize("text", ["", "{", "7", "{}", '{"parents": [{}], "classes": []}'])
def test_a_broken_record_is_refused(text: str) -> None:
    model = stamped()
    model.metadata[ORIGIN_KEY] = text
    assert refused(model).code == "module-broken"


def test_versions_name_the_packages_and_nothing_of_the_host() -> None:
    assert list(versions()) == ["onnx-graft", "onnx", "onnx-graphsurgeon", "onnxslim"]
    text = stamped().metadata[ORIGIN_KEY]
    assert set(json.loads(text)) == set(Origin.model_fields)
