"""YAML of cards from anybody: one clear error, in time and memory that the length of the text bounds."""

import time
from pathlib import Path

import pytest

from graft.rewriter.card.card import Card
from graft.rewriter.card.safe_yaml import load_yaml, written_as
from graft.rewriter.errors import GraftError

GOOD = "input: {name: x, kind: tensor}\noutput: {name: y, kind: logits}\nlabels: [a, b]\n"
MERGED = "\n".join(
    ["a: &a0 {x: 1}", *(f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))]
)
BAD = {
    "merged keys": (MERGED, "merged keys"),
    "base 60": ("a: " + ":".join(["1"] * 200_000), "a number of 399999 characters"),
    "long number": ("a: " + "9" * 5000, "a number of 5000 characters"),
    "deep": ("a: " + "[" * 100_000, "broken YAML"),
    "deep keys": ("? " * 100_000, "broken YAML"),
    "a tag's value": ("a: !!bool maybe", "broken YAML"),
    "an empty number": ("a: !!int ''", "broken YAML"),
    "no time": ("a: !!timestamp x", "broken YAML"),
    "code": ("a: !!python/object/apply:os.getcwd []", "broken YAML in line 1"),
    "control characters": ("a: \x1b[2K", "broken YAML"),
}


@pytest.mark.parametrize(("text", "part"), BAD.values(), ids=BAD)
def test_refused(text: str, part: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=part):
        load_yaml(text)
    assert time.monotonic() - start < 30
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GraftError) as caught:
        Card.load(tmp_path / "c.yaml")
    assert caught.value.code == "card-invalid"


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.rewriter.card.safe_yaml.MOST_VALUES", 100)
    assert len(load_yaml("[" + "a, " * 90 + "]")) == 90
    with pytest.raises(ValueError, match="more than 100 values; a list of labels may be a file"):
        load_yaml("[" + "a, " * 100 + "]")


def test_aliases_stay() -> None:
    assert load_yaml("a: &x [1, 2.5]\nb: *x") == {"a": [1, 2.5], "b": [1, 2.5]}
    assert load_yaml("[0x1F, 1:30, 1_000, 1e3, .inf]")[:3] == [31, 90, 1000]


def test_a_value_as_it_is_written() -> None:
    assert written_as("labels: [a, no]", "labels", 1) == "no"


ALIASES = "\n".join(
    ["z: &a0 [x, x]", *(f"z{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 25))]
)


@pytest.mark.parametrize("key", ["graft", "name", "input", "inputs", "output", "labels", "expect", "source"])
@pytest.mark.parametrize(
    "value", ["*a24", "{a: *a24}", "[*a24, *a24]", "&r [*r]", "&r {name: *r}", "{name: *a24}"]
)
def test_aliases_that_stand_for_gigabytes(key: str, value: str, tmp_path: Path) -> None:
    lines = [line for line in GOOD.splitlines() if not line.startswith(key)]
    (tmp_path / "c.yaml").write_text("\n".join([ALIASES, *lines, f"{key}: {value}"]), encoding="utf-8")
    with pytest.raises(GraftError) as caught:
        Card.load(tmp_path / "c.yaml")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "..", "/dev/zero", ""])
def test_label_files_that_cannot_be(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace("[a, b]", f'"{name}"'.replace("\0", "\\0")), encoding="utf-8")
    with pytest.raises(GraftError) as caught:
        Card.load(path)
    assert caught.value.code == "card-missing"
