"""Profiles add up, and are read as they were written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from graft.rewriter.errors import GraftError
from graft.rewriter.record.profile import ACTIVE, FORMAT, SQUARES, SUM, Profile
from tests import small


def profile(seed: int = 0, classes: tuple[str, ...] = ("a", "b", "ü|x"), parent: str = "p") -> Profile:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 9, 3)
    return Profile(
        parent,
        "data",
        classes,
        counts,
        counts - 1,
        {
            "sum": {"t/1|2": random.normal(size=(3, 4)), "u": random.normal(size=(3, 2))},
            "squares": {"u": random.random((3, 2))},
            "active": {"u": random.random((3, 2))},
            "products": {"u": random.random((3, 4))},
        },
    )


def same(one: Profile, two: Profile) -> bool:
    return one.to_bytes() == two.to_bytes()


def test_files_are_as_safetensors_writes_them(tmp_path: Path) -> None:
    text = 'a"\\\n\t\x01\x7f/é\u2028'
    one = replace(profile(classes=("a", text, "ü")), label_source="predictions", label_classes=("a", "ü"))
    one.tables["sum"][text] = np.arange(6.0).reshape(2, 3).T
    one.tables["sum"]["Z"] = np.zeros((3, 0))
    tensors = {f"{name}|{key}": each for name, tables in one.tables.items() for key, each in tables.items()}
    tensors = {key: np.ascontiguousarray(each) for key, each in tensors.items()}
    header = {
        "format": FORMAT,
        "parent": "p",
        "data": "data",
        "classes": list(one.classes),
        "label_source": "predictions",
        "label_classes": ["a", "ü"],
    }
    expected = save(
        {"counts": one.counts, "correct": one.correct, **tensors},
        {"graft": json.dumps(header, sort_keys=True)},
    )
    assert one.to_bytes() == expected
    assert one.sha256 == hashlib.sha256(expected).hexdigest()
    one.save(tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == expected


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    before = profile()
    before.save(tmp_path / "one")
    after = Profile.load(tmp_path / "one")
    assert (after.parent, after.data, after.classes) == ("p", "data", ("a", "b", "ü|x"))
    np.testing.assert_array_equal(after.tables["sum"]["t/1|2"], before.tables["sum"]["t/1|2"])
    assert after.tables["sum"]["u"].dtype == np.float64
    after.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert after.sha256 == before.sha256 != profile(1).sha256


def test_tables_by_time_step_of_earlier_versions_are_passed_over(tmp_path: Path) -> None:
    tensors = {"counts": np.ones(1, np.int64), "correct": np.ones(1, np.int64), "steps": np.ones((1, 2))}
    tensors |= {"sum|t": np.ones((1, 4)), "sum@step|t": np.ones((1, 8))}
    header = {"format": FORMAT, "parent": "p", "data": "d", "classes": ["a"]}
    (tmp_path / "old").write_bytes(save(tensors, {"graft": json.dumps(header)}))
    found = Profile.load(tmp_path / "old")
    assert {name: list(tables) for name, tables in found.tables.items()} == {"sum": ["t"]}


def test_the_order_of_tables_does_not_matter() -> None:
    one, two = profile(), profile()
    tables = {name: dict(reversed(t.items())) for name, t in reversed(two.tables.items())}
    assert same(one, Profile(two.parent, two.data, two.classes, two.counts, two.correct, tables))


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    profile().save(tmp_path / "p")
    with pytest.raises(GraftError) as caught:
        profile(1).save(tmp_path / "p")
    assert caught.value.code == "output-exists"
    profile(1).save(tmp_path / "p", force=True)
    assert same(Profile.load(tmp_path / "p"), profile(1))


def test_merging_adds() -> None:
    one, two = profile(0), profile(1)
    both = one.merge(two)
    np.testing.assert_array_equal(both.counts, one.counts + two.counts)
    np.testing.assert_array_equal(both.correct, one.correct + two.correct)
    for name, tables in one.tables.items():
        for tensor, table in tables.items():
            np.testing.assert_array_equal(both.tables[name][tensor], table + two.tables[name][tensor])
    assert same(one, profile(0)), "the parts stay"


def test_profiles_of_parts_merge_to_that_of_the_whole() -> None:
    model = small.model(small.conv_net())
    data = small.samples(small.inputs([2, 6, 5]))
    parts = [small.profile(model, part) for part in (data.take(range(13)), data.take(range(13, 40)))]
    both, whole = parts[0].merge(parts[1]), small.profile(model, data)
    np.testing.assert_array_equal(both.counts, whole.counts)
    for name, tables in whole.tables.items():
        for tensor, table in tables.items():
            np.testing.assert_allclose(both.tables[name][tensor], table, 1e-4, 1e-5)


def test_what_does_not_add_up_is_refused() -> None:
    for other in (profile(parent="q"), profile(classes=("a", "b", "d"))):
        with pytest.raises(GraftError) as caught:
            profile().merge(other)
        assert caught.value.code == "profile-merge"


def test_means_weigh_every_class_the_same() -> None:
    table = np.array([[2.0], [12.0], [0.0], [9.0]])
    counts = np.array([1, 4, 0, 3])
    found = Profile("p", "d", tuple("abcd"), counts, counts // 2, {"sum": {"t": table}})
    assert found.mean(SUM, "t").tolist() == [(2 + 3 + 3) / 3]
    assert found.mean(SUM, "t", ["a", "b"]).tolist() == [2.5]
    assert found.mean(SUM, "t", ["b", "c"]).tolist() == [3], "a class without samples has no mean"
    assert found.blend(SUM, "t", ["a"]).tolist() == [(2 + 3) / 2]
    assert found.blend(SUM, "t", ["a", "b"]).tolist() == [(2.5 + 3) / 2]
    assert found.blend(SUM, "t", list("abcd")).tolist() == [(2 + 3 + 3) / 3]
    assert found.seen == ("a", "b", "d")
    assert found.blend(SUM, "t", list("abd")).tolist() == [(2 + 3 + 3) / 3]
    with pytest.raises(GraftError) as caught:
        found.mean(SUM, "t", ["c"])
    assert caught.value.code == "profile-class"
    assert found.has(SUM, "t", 1)
    assert not found.has(SUM, "t", 2)
    assert not found.has(SUM, "u", 1)
    assert not found.has(SQUARES, "t", 1)
    assert not found.has(ACTIVE, "t", 1)
    assert found.top1 == (0 + 2 + 0 + 1) / 8


def test_a_class_that_was_not_told_apart_is_refused() -> None:
    with pytest.raises(GraftError) as caught:
        profile().rows(["a", "z"])
    assert caught.value.code == "profile-class"
    assert "z" in caught.value.message
    assert profile().rows(["b", "a"]) == [1, 0]
    assert profile().rows() == [0, 1, 2]


def refused(path: Path) -> str:
    with pytest.raises(GraftError) as caught:
        Profile.load(path)
    assert caught.value.hint
    return caught.value.code


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "p"
    assert refused(path) == "profile-unreadable"
    assert refused(tmp_path) == "profile-unreadable"
    for content in (b"", b"no profile", profile().to_bytes()[:-100], profile().to_bytes()[:20]):
        path.write_bytes(content)
        assert refused(path) == "profile-unreadable"
    counts = {"counts": np.ones(1, np.int64)}
    header = {"format": FORMAT, "parent": "p", "data": "d", "classes": ["a"]}
    for metadata in (
        None,
        {"other": "1"},
        {"graft": "{"},
        {"graft": "7"},
        {"graft": json.dumps({**header, "classes": 3})},
        {"graft": json.dumps({"format": FORMAT})},
        {"graft": json.dumps(header)},  # correct is missing
    ):
        path.write_bytes(save(counts, metadata))
        assert refused(path) == "profile-unreadable"
    path.write_bytes(save(counts, {"graft": json.dumps({**header, "format": "graft/profile/9"})}))
    assert refused(path) == "profile-format"


BAD = {
    "fewer counts": {"counts": np.ones(2, np.int64)},
    "fewer correct": {"correct": np.ones(2, np.int64)},
    "shares as counts": {"counts": np.ones(3)},
    "negative counts": {"counts": -np.ones(3, np.int64)},
    "fewer rows": {"sum|u": np.ones((2, 2))},
    "no rows": {"sum|u": np.ones(3)},
    "infinite": {"sum|u": np.full((3, 2), np.inf)},
    "not a number": {"squares|u": np.full((3, 2), np.nan)},
    "single precision": {"sum|u": np.ones((3, 2), np.float32)},
    "no sums": {"active|v": np.ones((3, 2))},
    "fewer channels": {"active|u": np.ones((3, 1))},
    "fewer pairs": {"products|u": np.ones((3, 2))},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_statistics_that_do_not_fit(change: dict[str, np.ndarray], tmp_path: Path) -> None:
    good = {"counts": np.ones(3, np.int64), "correct": np.ones(3, np.int64), "sum|u": np.ones((3, 2))}
    header = {"format": FORMAT, "parent": "p", "data": "d", "classes": ["a", "b", "c"]}
    (tmp_path / "p").write_bytes(save(good, {"graft": json.dumps(header)}))
    assert Profile.load(tmp_path / "p").classes == ("a", "b", "c")
    (tmp_path / "p").write_bytes(save({**good, **change}, {"graft": json.dumps(header)}))
    assert refused(tmp_path / "p") == "profile-unreadable"


@pytest.mark.parametrize("classes", [[], ["a", "b"], ["a", "b", "b"], "ab", None])
def test_classes_that_do_not_fit(classes: object, tmp_path: Path) -> None:
    good = {"counts": np.ones(3, np.int64), "correct": np.ones(3, np.int64), "sum|u": np.ones((3, 2))}
    header = {"format": FORMAT, "parent": "p", "data": "d", "classes": classes}
    (tmp_path / "p").write_bytes(save(good, {"graft": json.dumps(header)}))
    assert refused(tmp_path / "p") == "profile-unreadable"


def test_headers_that_lie(tmp_path: Path) -> None:
    for content in (
        (2**63).to_bytes(8, "little") + b"{}",
        (1 << 30).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        b'\x44\0\0\0\0\0\0\0{"counts": {"dtype": "F64", "shape": [99], "data_offsets": [0, 8]}}     ',
    ):
        (tmp_path / "p").write_bytes(content)
        assert refused(tmp_path / "p") == "profile-unreadable"
    (tmp_path / "p").write_bytes(save({"counts": np.ones(1)}, {"graft": "[" * 100_000}))
    assert refused(tmp_path / "p") == "profile-unreadable"


@pytest.mark.skipif(os.name != "posix", reason="pipes have no paths on Windows")
def test_a_pipe_is_no_profile(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    for path in (tmp_path / "p", Path("/dev/zero"), tmp_path / ("x" * 5000)):
        assert refused(path) == "profile-unreadable"


def test_activations_beyond_all_numbers() -> None:
    assert profile().checked().counts.size == 3
    broken = profile()
    broken.tables["sum"]["u"][0, 0] = np.inf
    with pytest.raises(GraftError, match="activations u are so large"):
        broken.checked()
