"""The card: reading, writing, refusing, and preparing samples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.errors import GraftError
from tests import bench

GOOD = """
input: {name: x, kind: image, layout: NCHW, color: RGB, size: [4, 5], scale: 0.5,
        mean: [1, 2, 3], std: [2.0]}
output: {name: y, kind: logits}
labels: [cat, dog, "no"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "net.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def image_card(**changes: object) -> InputCard:
    values: dict[str, object] = {"name": "x", "kind": "image", "size": (4, 5), **changes}
    return InputCard.model_validate(values)


def card(**changes: object) -> Card:
    values: dict[str, object] = {
        "inputs": (image_card(),),
        "output": OutputCard(name="y", kind="logits"),
        "labels": ("cat", "dog", "no"),
        **changes,
    }
    return Card.model_validate(values)


def refused(folder: Path, text: str) -> GraftError:
    with pytest.raises(GraftError) as caught:
        Card.load(write(folder, text))
    assert "\n" not in str(caught.value)
    return caught.value


def test_load_reads_every_value(tmp_path: Path) -> None:
    loaded = Card.load(write(tmp_path, "\ufeff" + GOOD))
    assert loaded.labels == ("cat", "dog", "no")
    assert loaded.inputs[0].mean == (1.0, 2.0, 3.0)
    assert (loaded.inputs[0].size, loaded.inputs[0].scale) == ((4, 5), 0.5)
    assert (loaded.output.kind, loaded.output.steps) == ("logits", False)


@pytest.mark.parametrize(
    ("old", "new", "code", "part"),
    [
        ("std: [2.0]", "std: [2.0, 0, 1]", "card-invalid", "std"),
        ("std: [2.0]", "std: [.nan]", "card-invalid", "input.std[0]"),
        ("std: [2.0]", "std: [.inf]", "card-invalid", "input.std[0]"),
        ("scale: 0.5", "scale: yes", "card-invalid", "the boolean true"),
        ("scale: 0.5", "scale: half", "card-invalid", "input.scale"),
        ("mean: [1, 2, 3]", "mean: [1, 2]", "card-invalid", "expected 1 or 3 numbers"),
        ("mean: [1, 2, 3]", "maen: [1, 2, 3]", "card-invalid", "did you mean 'mean'"),
        ("size: [4, 5]", "size: [4, 0]", "card-invalid", "input.size[1]"),
        ("size: [4, 5], ", "", "card-invalid", "without a size"),
        ("kind: image", "kind: picture", "card-invalid", "'picture'"),
        ("kind: image", "kind: tokens", "card-invalid", "is for images"),
        ("name: y", "name: 495", "card-invalid", "in quotes"),
        ("name: y, ", "", "card-invalid", "output.name"),
        ("labels:", "lables:", "card-invalid", "did you mean 'labels'"),
        ("labels:", "expect: {top1: 91.7}\nlabels:", "card-invalid", "expect.top1"),
        ("labels:", "graft: 2\nlabels:", "card-format", "format 2"),
        ("labels:", "inputs: {}\nlabels:", "card-invalid", "both"),
        ("[cat, dog,", "[cat, no,", "card-labels", "quote it: 'no'"),
        ("[cat, dog,", "[cat, 0x1A,", "card-labels", "quote it: '0x1A'"),
        ("[cat, dog,", "[cat, 3,", "card-labels", "the number 3"),
        ("[cat, dog,", "[cat, [dog],", "card-labels", "a list of 1"),
        ("[cat, dog,", "[cat, cat,", "card-labels", "'cat' is there twice"),
        ('[cat, dog, "no"]', "[]", "card-labels", "empty"),
        ('[cat, dog, "no"]', "{a: 1}", "card-labels", "expected a list"),
        ('[cat, dog, "no"]', "missing.txt", "card-missing", "missing.txt"),
        ("kind: logits", "kind: binary", "card-labels", "2 labels"),
        ("labels: [", "labels: [[", "card-invalid", "broken YAML in line"),
    ],
)
def test_load_refuses(tmp_path: Path, old: str, new: str, code: str, part: str) -> None:
    assert old in GOOD
    error = refused(tmp_path, GOOD.replace(old, new, 1))
    assert error.code == code
    assert part in str(error)


@pytest.mark.parametrize("text", ["", "- a", "3", "[" * 100_000, "a: 2001-99-99", "? [a]\n: b"])
def test_load_refuses_what_is_no_card(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).code == "card-invalid"


def test_load_refuses_large_and_binary_files(tmp_path: Path) -> None:
    assert "1048576 bytes" in str(refused(tmp_path, GOOD + "#" * (1 << 20)))
    (tmp_path / "net.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GraftError, match="UTF-8"):
        Card.load(tmp_path / "net.yaml")


def test_aliases_that_stand_for_gigabytes_are_told_in_one_line(tmp_path: Path) -> None:
    lines = ["a: &a0 [x, x]"] + [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    error = refused(tmp_path, "\n".join([*lines, "labels: [*a29]", "output: *a29", "input: *a29"]))
    assert len(str(error)) < 1000


def test_label_file_with_display_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffn01\ttench\r\nn02\r\nn03\tgreat shark\r\n", encoding="utf-8")
    loaded = Card.load(write(tmp_path, GOOD.replace('[cat, dog, "no"]', "names.txt")))
    assert loaded.labels == ("n01", "n02", "n03")
    assert loaded.display_names == ("tench", "n02", "great shark")
    assert Card.from_json(loaded.to_json()) == loaded
    with pytest.raises(GraftError, match=r"n01 \(tench\)"):
        loaded.class_index("Tench")
    smaller = loaded.replace(labels=("n03", "(other)"))
    assert smaller.display_names == ("great shark", "(other)")


def test_label_file_names_its_broken_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\n\nb\n", encoding="utf-8")
    assert "line 2 is empty" in str(refused(tmp_path, GOOD.replace('[cat, dog, "no"]', "names.txt")))
    (tmp_path / "names.txt").write_text("\n", encoding="utf-8")
    assert "empty" in str(refused(tmp_path, GOOD.replace('[cat, dog, "no"]', "names.txt")))


def test_find_takes_the_neighbour_or_says_how_to_make_one(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert Card.find(tmp_path / "net.onnx").labels == ("cat", "dog", "no")
    assert Card.find(tmp_path / "other.onnx", tmp_path / "net.yaml").labels[0] == "cat"
    with pytest.raises(GraftError) as caught:
        Card.find(tmp_path / "other.onnx")
    assert caught.value.code == "card-missing"
    assert f"graft card {tmp_path / 'other.onnx'} -o {tmp_path / 'other.yaml'}" in caught.value.hint
    with pytest.raises(GraftError, match="card-missing|found none"):
        Card.find(tmp_path / "net.onnx", tmp_path / "nowhere.yaml")


def test_class_index() -> None:
    assert card().class_index("dog") == 1
    with pytest.raises(GraftError, match="did you mean 'dog'\\?") as caught:
        card().class_index("Dogs")
    assert caught.value.code == "class-unknown"
    with pytest.raises(GraftError, match="the labels are cat, dog, no"):
        card().class_index("submarine")


def test_replace_checks_the_new_values() -> None:
    assert card().replace(labels=("a", "b")).labels == ("a", "b")
    with pytest.raises(GraftError, match="twice"):
        card().replace(labels=("a", "a"))
    with pytest.raises(GraftError, match="did you mean 'labels'"):
        card().replace(label=("a",))


def test_python_use_gets_the_same_errors() -> None:
    with pytest.raises(GraftError, match=r"input\.kind"):
        InputCard(name="x", kind="picture")  # type: ignore[arg-type]


label = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@given(
    labels=st.lists(label, min_size=1, max_size=5, unique=True),
    scale=st.floats(allow_nan=False, allow_infinity=False),
    several=st.booleans(),
    source=st.none() | label,
)
def test_json_and_yaml_give_the_card_back(
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[str],
    scale: float,
    several: bool,
    source: str | None,
) -> None:
    inputs = [image_card(name="zed 1", scale=scale, resize="crop", crop_fraction=0.5)]
    if several:
        inputs.append(InputCard(name="ids", kind="tokens"))
    first = card(inputs=inputs, labels=labels, source=source, expect={"top1": 0.5})
    assert Card.from_json(first.to_json()) == first
    assert "\n" not in first.to_json()
    path = write(tmp_path_factory.getbasetemp(), first.to_yaml())
    assert Card.load(path) == first


def test_yaml_is_readable() -> None:
    lines = card(inputs=(InputCard(name="ids", kind="tokens"),)).to_yaml().splitlines()
    assert "input: {name: ids, kind: tokens}" in lines
    assert "labels: [cat, dog, 'no']" in lines


@pytest.mark.parametrize("text", ["", "[]", "{", '{"labels": NaN}', "[" * 100_000])
def test_from_json_refuses(text: str) -> None:
    with pytest.raises(GraftError):
        Card.from_json(text)


pixels = hnp.arrays(np.uint8, (2, 4, 5, 3))


@given(pixels)
def test_layouts_are_transposes_and_colours_reverse(raw: np.ndarray) -> None:
    values = {"scale": 0.1, "mean": (1.0, 2.0, 3.0), "std": (0.5, 1.0, 2.0)}
    nchw = image_card(layout="NCHW", **values).prepare(raw)
    nhwc = image_card(layout="NHWC", **values).prepare(raw)
    assert nchw.dtype == nhwc.dtype == np.float32
    assert nchw.flags.c_contiguous
    np.testing.assert_array_equal(nchw, nhwc.transpose(0, 3, 1, 2))
    expected = (raw * 0.1 - np.array(values["mean"])) / np.array(values["std"])
    np.testing.assert_allclose(nhwc, expected, rtol=1e-5, atol=1e-5)
    bgr = image_card(layout="NHWC", color="BGR", **values).prepare(raw[..., ::-1])
    np.testing.assert_array_equal(bgr, nhwc)


def test_gray_images_without_an_axis_of_colours_and_rows_of_pixels() -> None:
    raw = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    gray = image_card(color="GRAY", layout="NHW", scale=0.5)
    np.testing.assert_array_equal(gray.prepare(raw), raw * np.float32(0.5))
    for layout in ("NHW", "NCHW", "flat"):
        card = image_card(color="GRAY", layout=layout)
        np.testing.assert_array_equal(card.prepare(raw.reshape(2, -1)), card.prepare(raw))
    gray.check_shape(["N", 4, 5])
    with pytest.raises(GraftError, match="NHW would fit"):
        image_card(color="GRAY").check_shape(["N", 4, 5])
    with pytest.raises(GraftError, match="color: GRAY"):
        image_card(layout="NHW")


@given(pixels)
def test_channels_first_is_read_where_nothing_else_fits(raw: np.ndarray) -> None:
    expected = image_card().prepare(raw)
    np.testing.assert_array_equal(image_card().prepare(raw.transpose(0, 3, 1, 2)), expected)
    # Both ends look like colours here: the size decides.
    narrow = image_card(size=(4, 3))
    first = raw[:, :, :3].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(narrow.prepare(first), narrow.prepare(raw[:, :, :3]))
    assert narrow.prepare(first).shape == (2, 3, 4, 3)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_prepare_leaves_the_raw_array_alone(layout: str) -> None:
    raw = np.ones((2, 4, 5, 3), np.float32)
    assert image_card(scale=2.0, layout=layout).prepare(raw).max() == 2.0
    assert raw.max() == 1.0


def test_gray_images_with_and_without_a_channel_axis() -> None:
    raw = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    gray = image_card(color="GRAY")
    expected = raw[:, None].astype(np.float32)
    for form in (raw, raw[..., None], raw[:, None], raw.astype(np.float64)):
        np.testing.assert_array_equal(gray.prepare(form), expected)


@pytest.mark.parametrize(
    ("changes", "raw", "code", "part"),
    [
        ({}, np.zeros((2, 5, 4, 3)), "data-shape", "expected images of 4x5, found 5x4"),
        ({}, np.zeros((2, 4, 5)), "data-shape", "found 1 colour channel (gray)"),
        ({"color": "GRAY"}, np.zeros((2, 4, 5, 3)), "data-shape", "found 3 colour channels"),
        ({}, np.zeros((2, 4, 5, 4)), "data-shape", "found (2, 4, 5, 4)"),
        ({}, np.zeros((2, 59)), "data-shape", "found (2, 59)"),
        ({}, np.zeros(()), "data-shape", "a single number"),
        ({}, np.array(["a"]), "data-type", "expected numbers"),
        ({}, np.array([object()]), "data-type", "expected numbers"),
        ({"kind": "tokens", "size": None}, np.zeros((2, 3)), "data-type", "expected integers"),
        ({"kind": "tensor", "size": None}, np.zeros(2, complex), "data-type", "numbers"),
    ],
)
def test_prepare_refuses(changes: dict[str, object], raw: np.ndarray, code: str, part: str) -> None:
    with pytest.raises(GraftError) as caught:
        image_card(**changes).prepare(raw)
    assert caught.value.code == code
    assert part in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_counted(bad: float) -> None:
    raw = np.zeros((5, 4, 5, 3), np.float32)
    raw[3, 0, 0, 0] = raw[4, 1, 1, 1] = bad
    with pytest.raises(GraftError, match="2 of 5 samples .* number 3") as caught:
        image_card().prepare(raw)
    assert caught.value.code == "data-nan"


def test_tensors_and_tokens_pass_as_they_are() -> None:
    tensor = InputCard(name="t", kind="tensor")
    assert tensor.prepare(np.ones((2, 3))).dtype == np.float32
    assert tensor.prepare(np.ones((2, 3), np.float16)).dtype == np.float16
    tokens = InputCard(name="t", kind="tokens")
    assert tokens.prepare(np.ones((2, 3), np.int32)).dtype == np.int32
    assert tokens.prepare(np.ones((2, 3), np.uint8)).dtype == np.int64


def test_prepare_finds_the_arrays_of_the_inputs() -> None:
    raw = np.zeros((2, 4, 5, 3), np.uint8)
    assert list(card().prepare({"": raw})) == list(card().prepare({"x": raw})) == ["x"]
    with pytest.raises(GraftError, match="found other"):
        card().prepare({"other": raw})
    two = card(inputs=(image_card(), InputCard(name="ids", kind="tokens")))
    prepared = two.prepare({"x": raw, "ids": np.ones((2, 7), np.int64)})
    assert [array.shape for array in prepared.values()] == [(2, 3, 4, 5), (2, 7)]
    with pytest.raises(GraftError) as caught:
        two.prepare({"x": raw, "ids": np.ones((3, 7), np.int64)})
    assert caught.value.code == "data-length"


IMAGES = (np.dtype(np.float32), ("N", 3, 4, 5))
LOGITS = (np.dtype(np.float32), (None, 3))


@pytest.mark.parametrize(
    ("changes", "inputs", "outputs", "code", "part"),
    [
        ({}, {"z": IMAGES}, {"y": LOGITS}, "card-input", "the model has input z"),
        ({}, {"x": IMAGES, "m": IMAGES}, {"y": LOGITS}, "card-input", "says nothing"),
        ({}, {"x": IMAGES}, {"a": LOGITS, "b": LOGITS}, "card-output", "outputs a, b"),
        ({}, {"x": IMAGES}, {"y": (None, ("N", 4))}, "card-labels", "3 labels"),
        ({}, {"x": IMAGES}, {"y": (None, ("N",))}, "card-output", "2 axes"),
        ({}, {"x": (None, ("N", 4, 5, 3))}, {"y": LOGITS}, "card-input", "layout: NHWC would"),
        ({}, {"x": (None, ("N", 1, 4, 5))}, {"y": LOGITS}, "card-input", "[N, 1, 4, 5]"),
        ({}, {"x": (None, ("N", 5, 12))}, {"y": LOGITS}, "card-input", "kind: tensor"),
        (
            {"output": OutputCard(name="y", kind="binary"), "labels": ("a", "b")},
            {"x": IMAGES},
            {"y": LOGITS},
            "card-labels",
            "3 classes",
        ),
        (
            {"output": OutputCard(name="y", kind="logits", steps=True)},
            {"x": IMAGES},
            {"y": LOGITS},
            "card-output",
            "3 axes",
        ),
    ],
)
def test_check_against_refuses(changes, inputs, outputs, code, part) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(GraftError) as caught:
        card(**changes).check_against(inputs, outputs)
    assert caught.value.code == code
    assert part in str(caught.value)


def test_check_against_accepts_what_fits_or_is_unknown() -> None:
    for shape in (("N", 3, 4, 5), (None, None, "h", "w"), None):
        card().check_against({"x": (None, shape)}, {"y": LOGITS})
    for shape in (("N", 3), ("N", "K"), (1, 3, 1, 1), None):
        card().check_against({"x": IMAGES}, {"y": (None, shape)})
    binary = card(output=OutputCard(name="y", kind="binary"), labels=("a", "b"))
    for shape in (("N",), ("N", 1), ("N", 2)):
        binary.check_against({"x": IMAGES}, {"y": (None, shape)})


@bench.needed
def test_bench_cards_load_and_fit_their_models() -> None:
    paths = sorted(bench.FOLDER.glob("*/*.yaml"))
    assert paths
    onnx = pytest.importorskip("onnx")
    for path in paths:
        loaded = Card.load(path)
        assert Card.from_json(loaded.to_json()) == loaded
        graph = onnx.load(path.with_suffix(".onnx"), load_external_data=False).graph
        tensors = [
            {
                value.name: (
                    None,
                    tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim),
                )
                for value in values
            }
            for values in (graph.input, graph.output)
        ]
        loaded.check_against(*tensors)
        with pytest.raises(GraftError, match="labels"):
            loaded.replace(labels=("one", "two")).check_against(*tensors)


@pytest.mark.parametrize(
    ("kind", "array", "part"),
    [
        ("image", np.full((1, 4, 5, 3), 2**64 - 1, np.uint64), "pixels are 0..255, found 1.84e+19"),
        ("image", np.full((1, 4, 5, 3), -1e30), "found -1e+30"),
        ("tensor", np.full((1, 2), 1e300), "models take float32, found 1e+300"),
        ("tensor", np.full((1, 2), np.longdouble("-1e400")), "models take float32"),
        ("tokens", np.full((1, 2), 2**63, np.uint64), "models take int64, found 9.22e+18"),
    ],
)
def test_numbers_that_no_model_takes(kind: str, array: np.ndarray, part: str) -> None:
    values = {"layout": "NCHW", "color": "RGB", "size": (4, 5)} if kind == "image" else {}
    with pytest.raises(GraftError, match=re.escape(part)) as caught:
        InputCard(name="x", kind=kind, **values).prepare(array)
    assert caught.value.code == "data-range"


def test_wide_numbers_become_narrow() -> None:
    for kind in (np.float64, np.longdouble):
        assert InputCard(name="x", kind="tensor").prepare(np.ones((1, 2), kind)).dtype == np.float32
