"""Plans: read again as they were written, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import FORMAT, Plan
from tests import small

MASKS = st.lists(st.booleans(), min_size=1, max_size=70).map(lambda flags: np.array(flags, bool))
NAMES = st.text(max_size=12)


@given(st.dictionaries(NAMES, MASKS, max_size=4), st.text(max_size=64))
def test_a_round_trip(kept: dict[str, np.ndarray], parent: str) -> None:
    plan = Plan(parent, kept)
    again = Plan.from_json(plan.to_json())
    assert again.parent == parent
    assert list(again.kept) == list(kept)
    for name, mask in kept.items():
        np.testing.assert_array_equal(again.kept[name], mask)
    assert again.to_json() == plan.to_json()
    assert again.counts() == (sum(m.sum() for m in kept.values()), sum(map(len, kept.values())))


def test_the_file_is_readable() -> None:
    kept = np.ones(20, bool)
    kept[[4, 16, 17, 19]] = False
    data = json.loads(Plan("hash", {"conv": kept, "none": np.zeros(3, bool)}).to_json())
    assert data == {
        "format": FORMAT,
        "parent": "hash",
        "groups": {"conv": "0-3,5-15,18", "none": ""},
        "sizes": {"conv": 20, "none": 3},
    }


def test_load(tmp_path: Path) -> None:
    plan = Plan("hash", {"conv": np.array([True, False])})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    assert Plan.load(tmp_path / "plan.json").to_json() == plan.to_json()


def text(kept: object = "0-1", size: object = 4, **changes: object) -> str:
    data = {"format": FORMAT, "parent": "p", "groups": {"a": kept}, "sizes": {"a": size}}
    return json.dumps({**data, **changes})


def test_what_a_person_may_write() -> None:
    plan = Plan.from_json(text("3,0-1"))
    assert plan.kept["a"].tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        text("0-4"),
        text("2-1"),
        text("-1"),
        text("a"),
        text("0--1"),
        text("1-2-3"),
        text(7),
        text(None),
        text("0", "many"),
        text("0", None),
        text("", 0),
        text("", -1),
        text(groups=[]),
        text(groups={"b": "0-1"}),
        text(sizes={}),
        json.dumps({"format": FORMAT, "groups": {}}),
        text(sizes={"a": float("inf")}),
        text(sizes={"a": float("nan")}),
        text(sizes={"a": 10**400}),
        text(sizes={"a": -3}),
        text(groups={"a": "0-" + "9" * 5000}),
        text(groups={"a": ["0"]}),
        text(groups={f"g{n}": "0" for n in range(9)}, sizes={f"g{n}": 2**22 for n in range(9)}),
        text(groups={"a": ",".join(["0-99999"] * 999)}, sizes={"a": 100_000}),
        text(keep_layers={"a": float("nan")}),
        text(keep_layers={"a": 1e400}),
        text(keep_layers=[0.5]),
        text(frozen=7),
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_bad_plans(content: str, tmp_path: Path) -> None:
    with pytest.raises(GraftError) as caught:
        Plan.from_json(content)
    assert caught.value.code == "plan-unreadable"
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(GraftError) as caught:
        Plan.load(tmp_path / "plan.json")
    assert caught.value.code == "plan-unreadable"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary", ".", "x" * 5000, "a\0b", "/dev/zero"):
        with pytest.raises(GraftError) as caught:
            Plan.load(tmp_path / name)
        assert caught.value.code == "plan-unreadable"


def test_another_format_is_named() -> None:
    with pytest.raises(GraftError) as caught:
        Plan.from_json(text(format="graft/plan/2"))
    assert caught.value.code == "plan-format"
    assert "graft/plan/2" in caught.value.message


def mask(**kept: list[bool]) -> np.ndarray:
    groups = ChannelGroups(small.model(small.conv_net()))
    return Plan("p", {name: np.array(flags) for name, flags in kept.items()}).mask(groups)


def refused(**kept: list[bool]) -> GraftError:
    with pytest.raises(GraftError) as caught:
        mask(**kept)
    return caught.value


def test_the_mask_of_a_plan() -> None:
    groups = ChannelGroups(small.model(small.conv_net()))
    found = mask(conv1=[True, False, True, False, True, True])
    removed = groups["conv1"].channels[[1, 3]]
    np.testing.assert_array_equal(np.flatnonzero(~found), np.sort(removed))
    assert mask().all(), "a group that is not named is kept whole"
    assert Plan.of(groups, found, "p").kept["conv1"].tolist() == [*(True, False, True, False, True, True)]


def test_plans_that_do_not_fit() -> None:
    assert refused(nowhere=[True]).code == "plan-group"
    wrong = refused(conv1=[True, False])
    assert wrong.code == "plan-group"
    assert "2 channels" in wrong.message
    assert "6" in wrong.message
    pinned = refused(y=[True, True, True, False])
    assert pinned.code == "plan-pinned"
    assert "output y" in pinned.message
    empty = refused(conv1=[False] * 6)
    assert empty.code == "plan-empty"
    assert "conv1" in empty.message
