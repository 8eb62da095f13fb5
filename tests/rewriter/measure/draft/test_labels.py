"""Labels and preprocessing come from the file, from what lies beside it, and from the data, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graft.rewriter.card.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.draft.card_draft import draft_card
from graft.rewriter.measure.draft.written import parse_names
from tests.rewriter.measure.draft.kit import CHANNELS_FIRST, FLAT, SIDE, Task, classifier, draft, model, node
from tests.small import CPU

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
NAMES = ("dog", "ant", "cow", "bee")


def mapped(task: Task, zipped: bool) -> onnx.ModelProto:
    """What skl2onnx makes of a network for classes that have names."""
    weights, bias = task.head()
    nodes = [
        *FLAT,
        node("Gemm", "flat w b", "z"),
        node("Softmax", "z", "probabilities", axis=1),
        node("ArgMax", "probabilities", "best", axis=1, keepdims=0),
    ]
    words = np.array(NAMES, dtype=object)
    outputs = {"label": (STRING, ["N"])}
    nodes.append(node("ArrayFeatureExtractor", "classes best", "label", domain="ai.onnx.ml"))
    if not zipped:
        outputs["probabilities"] = (FLOAT, ["N", 4])
        weighed = {"w": weights, "b": bias, "classes": words}
        return model(nodes, weighed, {"x": (FLOAT, ["N", SIDE, SIDE])}, outputs)
    nodes.append(
        node("ZipMap", "probabilities", "zipped", domain="ai.onnx.ml", classlabels_strings=list(NAMES))
    )
    proto = model(nodes, {"w": weights, "b": bias, "classes": words}, {"x": (FLOAT, ["N", SIDE, SIDE])}, {})
    proto.graph.output.extend(
        [
            helper.make_tensor_value_info("label", STRING, ["N"]),
            helper.make_value_info(
                "zipped",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(STRING, helper.make_tensor_type_proto(FLOAT, []))
                ),
            ),
        ]
    )
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("zipped", [True, False], ids=["ZipMap", "looked up"])
def test_names_in_the_graph_are_the_order_of_the_columns(zipped: bool) -> None:
    task = Task()
    proto = mapped(task, zipped)
    assert draft(proto).card.labels == NAMES
    order = sorted(NAMES)
    task.labels = np.array([order.index(NAMES[label]) for label in task.labels])
    found = draft(proto, task.split(names=order))
    assert found.card.labels == NAMES
    assert found.card.output.kind == "probabilities"
    columns = np.array([order.index(name) for name in NAMES])[task.posterior.argmax(1)]
    assert found.top1 == pytest.approx((columns == task.labels).mean())


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", "{0: 'dog', 1: 'ant', 2: 'cow', 3: 'bee'}"),
        ("names", '["dog", "ant", "cow", "bee"]'),
        ("character", "dog\nant\ncow\nbee"),
        ("Labels", "dog, ant, cow, bee"),
        ("id2label", '{"0": "dog", "2": "cow", "1": "ant", "3": "bee"}'),
        ("classes", "('dog', 'ant', 'cow', 'bee')"),
        ("classNames", "dog; ant; cow; bee"),
        ("class_labels", "dog|ant|cow|bee"),
        ("label_map", '{"dog": 0, "cow": 2, "ant": 1, "bee": 3}'),
        ("idx_to_class", '{"0": "dog", "2": "cow", "1": "ant", "3": "bee"}'),
        ("names", '[{"id": 0, "name": "dog"}, {"name": "ant"}, {"name": "cow"}, {"name": "bee"}]'),
        ("config", '{"id2label": {"0": "dog", "1": "ant", "2": "cow", "3": "bee"}}'),
    ],
)
def test_names_in_the_metadata(key: str, text: str) -> None:
    proto = classifier(Task(), ["N", SIDE, SIDE])
    proto.metadata_props.add(key=key, value=text)
    assert draft(proto).card.labels == NAMES


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "{0: 'a', 5: 'b'}", "", "3", "[" * 500, "{}"])
def test_other_text_is_no_list_of_names(text: str) -> None:
    assert parse_names(text) == ()


def test_names_that_do_not_fit_are_not_taken_and_said() -> None:
    proto = classifier(Task(), ["N", SIDE, SIDE])
    proto.metadata_props.add(key="names", value="{0: 'a', 1: 'b'}")
    found = draft(proto)
    assert found.card.labels == ("0", "1", "2", "3")
    assert any("2 names for 4 columns" in note for note in found.notes)
    proto.metadata_props[0].value = "['a', 'a', 'a', 'b']"
    found = draft(proto)
    assert found.card.labels == ("0", "1", "2", "3")
    assert any("'a' is there 3 times" in note for note in found.notes)


def test_the_columns_of_a_file_without_names_are_found_by_what_it_says() -> None:
    """Folders of some classes: their numbers are not those of the columns."""
    task = Task(classes=6, samples=400)
    proto = classifier(task, ["N", SIDE, SIDE], output=(FLOAT, ["N", 6]))
    names = {4: "ant", 1: "bee", 3: "cow"}  # in the order of the alphabet, as folders are
    chosen = np.isin(task.labels, list(names))
    task.images, task.labels = task.images[chosen], task.labels[chosen]
    task.labels = np.array([list(names).index(label) for label in task.labels])
    found = draft(proto, task.split(names=list(names.values())))
    assert found.card.labels == ("0", "bee", "2", "cow", "ant", "5")
    assert found.top1 is not None and found.top1 > 0.6
    assert any("matched" in note for note in found.notes)


def test_fewer_names_than_columns_count_the_columns_where_that_fits() -> None:
    task = Task(classes=6, samples=400)
    proto = classifier(task, ["N", SIDE, SIDE], output=(FLOAT, ["N", 6]))
    chosen = task.labels < 3
    task.images, task.labels = task.images[chosen], task.labels[chosen]
    assert draft(proto, task.split(names=["ant", "bee", "cow"])).card.labels == (
        "ant",
        "bee",
        "cow",
        "3",
        "4",
        "5",
    )
    assert draft(proto, task.split()).card.labels == ("0", "1", "2", "3", "4", "5")


def test_numbers_in_the_file_are_those_of_the_data() -> None:
    task = Task()
    weights, bias = task.head()
    numbers = [3, 1, 0, 2]
    nodes = [*FLAT, node("Gemm", "flat w b", "z"), node("ArgMax", "z", "a", axis=1, keepdims=0)]
    nodes.append(node("Gather", "classes a", "label"))
    outputs = {"label": (INT64, ["N"]), "z": (FLOAT, ["N", 4])}
    held = {"w": weights, "b": bias, "classes": np.array(numbers)}
    proto = model(nodes, held, {"x": (FLOAT, ["N", SIDE, SIDE])}, outputs)
    task.labels = np.array(numbers)[task.labels]
    with pytest.raises(GraftError, match="columns are the classes 3, 1, 0, 2.*class_names.*'0' to '3'"):
        draft(proto, task.split())
    found = draft(proto, task.split(names=list("0123")))
    assert found.card.labels == tuple("3102")
    assert found.top1 is not None and found.top1 > 0.6
    found = draft(proto, task.split(names=["ant", "bee", "cow", "dog"]))
    assert found.card.labels == ("dog", "bee", "ant", "cow")
    assert found.top1 is not None and found.top1 > 0.6


@pytest.mark.parametrize("named", [True, False], ids=["ai.onnx.ml", "metadata"])
def test_numbers_in_the_data_that_count_no_columns_are_the_classes_of_the_model(named: bool) -> None:
    task = Task()
    proto = classifier(task, ["N", SIDE, SIDE])
    if named:
        weights, bias = task.head()
        nodes = [*FLAT, node("Gemm", "flat w b", "z"), node("ArgMax", "z", "a", axis=1, keepdims=0)]
        nodes.append(node("Gather", "classes a", "label"))
        held = {"w": weights, "b": bias, "classes": np.array([2, 3, 5, 8])}
        outputs = {"label": (INT64, ["N"]), "z": (FLOAT, ["N", 4])}
        proto = model(nodes, held, {"x": (FLOAT, ["N", SIDE, SIDE])}, outputs)
    else:
        proto.metadata_props.add(key="names", value="['2', '3', '5', '8']")
    right = (task.posterior.argmax(1) == task.labels).mean()
    task.labels = np.array([2, 3, 5, 8])[task.labels]
    found = draft(proto, task.split())
    assert found.card.labels == ("2", "3", "5", "8")
    assert found.top1 == pytest.approx(right)
    assert any("class labels 2, 3, 5, 8" in note for note in found.notes)


HUGGING_FACE = {
    "preprocessor_config.json": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.25, 0.2, 0.1],
        "rescale_factor": 1 / 255,
        "resample": 3,
        "size": {"height": SIDE, "width": SIDE},
    },
    "config.json": {"id2label": {str(n): name for n, name in enumerate(NAMES)}},
}
TIMM = {
    "config.json": {
        "architecture": "resnet10t",
        "num_classes": 4,
        "label_names": list(NAMES),
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.25, 0.2, 0.1],
            "crop_pct": 0.95,
            "crop_mode": "center",
            "interpolation": "bicubic",
        },
    }
}
NEWER = {
    "processor_config.json": {"image_processor": HUGGING_FACE["preprocessor_config.json"]},
    "config.json": HUGGING_FACE["config.json"],
}
NORMALIZATION = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1)}


@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
@pytest.mark.parametrize(
    ("files", "resize", "fraction"),
    [(HUGGING_FACE, "squash", 0.875), (NEWER, "squash", 0.875), (TIMM, "crop", 0.95)],
    ids=["HF", "HF processor", "timm"],
)
@pytest.mark.parametrize("where", ["m.onnx", "onnx/model.onnx"])
def test_configurations_beside_the_file(
    files: dict[str, object], resize: str, fraction: float, where: str, with_data: bool, tmp_path: Path
) -> None:
    task = Task(3)
    (tmp_path / where).parent.mkdir(exist_ok=True)
    onnx.save(classifier(task, ["N", 3, "H", "W"], CHANNELS_FIRST, **NORMALIZATION), tmp_path / where)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    part = task.split(names=NAMES) if with_data else None
    found = draft_card(Model.load(tmp_path / where), part, CPU, tmp_path / where)
    (card,) = found.card.inputs
    assert found.card.labels == NAMES
    assert (card.mean, card.std, card.size) == (*NORMALIZATION.values(), (SIDE, SIDE))
    assert card.scale == pytest.approx(1 / 255)
    assert (card.resize, card.crop_fraction, card.interpolation) == (resize, fraction, "bicubic")
    if with_data:
        assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())
    assert Card.model_validate(found.card.model_dump()) == found.card


def test_a_short_side_and_a_centre_are_a_crop(tmp_path: Path) -> None:
    task = Task(3)
    onnx.save(classifier(task, ["N", 3, SIDE, SIDE], CHANNELS_FIRST), tmp_path / "m.onnx")
    processor = {
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "size": {"shortest_edge": 10},
        "resample": 2,
        "do_normalize": False,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    (card,) = draft_card(Model.load(tmp_path / "m.onnx"), None, CPU, tmp_path / "m.onnx").card.inputs
    assert (card.resize, card.crop_fraction, card.mean, card.std) == ("crop", 0.8, (0.0,), (1.0,))


def test_a_file_of_labels_with_a_line_for_each_column(tmp_path: Path) -> None:
    onnx.save(classifier(Task(), ["N", SIDE, SIDE]), tmp_path / "m.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES) + "\n")
    assert draft_card(Model.load(tmp_path / "m.onnx"), None, CPU, tmp_path / "m.onnx").card.labels == NAMES


def test_a_file_of_labels_may_count_them(tmp_path: Path) -> None:
    onnx.save(classifier(Task(), ["N", SIDE, SIDE]), tmp_path / "m.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(f"{place} {name}" for place, name in enumerate(NAMES)))
    assert draft_card(Model.load(tmp_path / "m.onnx"), None, CPU, tmp_path / "m.onnx").card.labels == NAMES


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", b'{"id2label": {"0": "a",}', "is not JSON"),
        ("preprocessor_config.json", b'{"size": ', "is not JSON"),
        ("labels.txt", "caf\xe9".encode("latin-1"), "is not text in UTF-8"),
        ("preprocessor_config.json", b'{"size": 8, "image_mean": 0.5, "image_std": 0}', "std is 0"),
        ("preprocessor_config.json", b'{"size": 8, "image_mean": NaN, "image_std": 1}', "not finite"),
        ("preprocessor_config.json", b'{"size": 8, "rescale_factor": "x"}', "not taken"),
        ("preprocessor_config.json", b'{"size": {"height": null, "width": 8}}', "not taken"),
        ("preprocessor_config.json", b'{"size": 8, "resample": [2]}', "not taken"),
        ("preprocessor_config.json", b'{"size": 8, "image_mean": [1, 2], "image_std": 1}', "neither one"),
        ("config.json", b'{"mean": 0.5, "std": 0.5, "crop_pct": "b"}', "not taken"),
    ],
)
def test_files_beside_the_model_that_cannot_be_used_are_named(
    file: str, content: bytes, said: str, tmp_path: Path
) -> None:
    onnx.save(classifier(Task(), ["N", SIDE, SIDE]), tmp_path / "m.onnx")
    (tmp_path / file).write_bytes(content)
    found = draft_card(Model.load(tmp_path / "m.onnx"), None, CPU, tmp_path / "m.onnx")
    assert found.card.labels == ("0", "1", "2", "3")
    (note,) = found.notes
    assert file in note and said in note
