"""Samples: matched by class name, cut into folds, read in batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.prefixed import PrefixedData
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from tests import bench


def card(labels: str = "abc", steps: bool = False) -> Card:
    return Card.model_validate(
        {
            "input": {"name": "x", "kind": "tokens"},
            "output": {"name": "y", "kind": "logits", "steps": steps},
            "labels": list(labels),
        }
    )


def split(labels: Any, names: str | None = None) -> Split:
    numbers = np.arange(len(labels))[:, None]
    data = Dataset.from_arrays(numbers, labels, class_names=None if names is None else list(names))
    return data.split("train")


def refused(*arguments: Any, **options: Any) -> GraftError:
    with pytest.raises(GraftError) as caught:
        Samples.match(*arguments, **options)
    return caught.value


def test_classes_are_matched_by_name() -> None:
    samples = Samples.match(split([0, 1, 2, 3, 0], "cbza"), card("abc"))
    assert samples.indices.tolist() == [0, 1, 3, 4]
    assert samples.labels.tolist() == [2, 1, 0, 2]
    assert samples.left_out == 1
    assert samples.counts() == {"a": 1, "b": 1, "c": 2}


def test_numbers_without_names_count_the_labels() -> None:
    assert Samples.match(split([2, 0]), card("abc")).labels.tolist() == [2, 0]
    assert "found 3" in str(refused(split([3, 0]), card("abc")))
    with pytest.raises(GraftError, match="from 0 to 3, as many as the data has labels, found 99"):
        Samples.match(split([99, 0]), card("abc"), names=list("abcd"))


def test_numbers_that_count_no_labels_are_names_of_them() -> None:
    """As scikit-learn has them: classes 3, 5 and 8 are columns 0, 1 and 2."""
    samples = Samples.match(split([8, 3, 5, 8]), card("358"))
    assert samples.labels.tolist() == [2, 0, 1, 2]
    assert "found 9" in str(refused(split([9, 3]), card("358")))
    module = Samples.match(split([8, 3, 5]), card("53"), names=list("358"))
    assert (module.labels.tolist(), module.left_out) == ([1, 0], 1)
    assert Samples.match(split([1, 0, 2]), card("210")).labels.tolist() == [1, 0, 2]


def test_no_class_in_common_shows_both_sides() -> None:
    error = refused(split([0, 1], "xy"), card("abc"))
    assert error.code == "data-classes"
    assert "x, y" in error.message and "a, b, c" in error.message


def test_restricting_to_classes() -> None:
    data = split([0, 1, 2, 0, 1], "abcd")
    samples = Samples.match(data, card("abd"), classes=["b", "a"])
    assert samples.indices.tolist() == [0, 1, 3, 4]
    assert samples.left_out == 1
    assert refused(data, card("abd"), classes=["d"]).code == "class-empty"
    assert refused(data, card("abd"), classes=["e"]).code == "class-unknown"
    assert refused(data, card("abd"), classes=[]).code == "class-empty"
    assert refused(split([2, 2], "abc"), card("abd")).code == "class-empty"


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 99))
def test_per_class_keeps_a_seeded_choice_in_order(labels: list[int], count: int, seed: int) -> None:
    data = split(labels)
    samples = Samples.match(data, card(), per_class=count, seed=seed)
    assert samples.indices.tolist() == sorted(samples.indices.tolist())
    assert samples.labels.tolist() == [labels[index] for index in samples.indices]
    expected = {"abc"[n]: min(count, labels.count(n)) for n in sorted(set(labels))}
    assert samples.counts() == expected
    again = Samples.match(data, card(), per_class=count, seed=seed)
    assert again.indices.tolist() == samples.indices.tolist()
    # The choice within a class does not depend on the other classes, and grows with the count.
    name = "abc"[labels[0]]
    alone = Samples.match(data, card(), classes=[name], per_class=count, seed=seed)
    assert alone.indices.tolist() == samples.indices[samples.labels == labels[0]].tolist()
    more = Samples.match(data, card(), per_class=count + 1, seed=seed)
    assert set(samples.indices) <= set(more.indices)


def test_per_class_depends_on_the_seed_and_is_not_the_first() -> None:
    data = split([0] * 100)
    choices = {tuple(Samples.match(data, card(), per_class=5, seed=seed).indices) for seed in range(5)}
    assert len(choices) == 5
    assert refused(data, card(), per_class=0).code == "bad-request"
    assert refused(data, card(), per_class=1, seed=-1).code == "bad-request"


@given(st.lists(st.integers(0, 2), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_partition_the_samples_class_by_class(labels: list[int], k: int, seed: int) -> None:
    samples = Samples.match(split(labels), card())
    if k > len(samples):
        with pytest.raises(GraftError):
            samples.folds(k, seed)
        return
    folds = samples.folds(k, seed)
    assert len(folds) == k
    held_out = np.concatenate([held.indices for _, held in folds])
    assert sorted(held_out) == list(range(len(labels)))
    for train, held in folds:
        assert sorted([*train.indices, *held.indices]) == list(range(len(labels)))
        assert held.labels.tolist() == [labels[index] for index in held.indices]
        for number in range(3):
            share = labels.count(number) / k
            assert int(share) <= (held.labels == number).sum() <= int(np.ceil(share))
    again = [held.indices.tolist() for _, held in samples.folds(k, seed)]
    assert again == [held.indices.tolist() for _, held in folds]


def test_labels_of_time_steps() -> None:
    steps = [[0, 1], [1, 1], [3, 3], [2, 0], [0, 3]]
    samples = Samples.match(split(steps[:4], "abcz"), card(steps=True))
    assert samples.indices.tolist() == [0, 1, 3]
    assert (samples.labels.shape, samples.left_out) == ((3, 2), 1)
    assert samples.counts() == {"a": 2, "b": 3, "c": 1}
    only = Samples.match(split(steps[:4], "abcz"), card(steps=True), classes=["a"])
    assert only.indices.tolist() == [0, 3]
    held = [held.indices.tolist() for _, held in samples.folds(3)]
    assert sorted(sum(held, [])) == [0, 1, 3]
    part = Samples.match(split(steps, "abcz"), card(steps=True))
    assert part.labels[-1].tolist() == [0, IGNORED]
    without = Samples.match(replace(split(steps, "abcz"), ignore="a"), card(steps=True))
    assert without.indices.tolist() == [0, 1, 3]
    assert without.labels.tolist() == [[IGNORED, 1], [1, 1], [2, IGNORED]]
    assert without.counts() == {"b": 3, "c": 1}
    assert Samples.match(replace(split([0, 1, 0]), ignore="a"), card()).labels.tolist() == [1]
    assert refused(replace(split(steps, "abcz"), ignore="y"), card(steps=True)).code == "class-unknown"
    words = replace(split([0, 1], ("a", "two")), ignore="tow")
    assert "no class 'tow' to ignore; did you mean 'two'?" in str(refused(words, card()))
    assert "argmax" in str(refused(split(steps), card("abcd")))
    assert refused(split([0, 1]), card(steps=True)).code == "data-labels"
    assert Samples.match(split([[0], [1]]), card()).labels.tolist() == [0, 1]


@given(st.integers(1, 30), st.integers(1, 12))
def test_batches_hold_every_sample_once_in_order(count: int, size: int) -> None:
    labels = np.arange(count) % 4
    samples = Samples.match(split(labels, "abcz"), card())
    if not len(samples):
        return
    batches = list(samples.batches(size))
    assert all(len(found) == size for _, found in batches[:-1])
    np.testing.assert_array_equal(np.concatenate([found for _, found in batches]), samples.labels)
    inputs = np.concatenate([feed["x"] for feed, _ in batches])
    np.testing.assert_array_equal(inputs[:, 0], samples.indices)
    with pytest.raises(GraftError):
        next(samples.batches(0))


def test_take_by_position_and_by_mask() -> None:
    samples = Samples.match(split([0, 1, 2, 1]), card())
    assert samples.take([3, 0]).labels.tolist() == [1, 0]
    assert samples.take(samples.labels == 1).indices.tolist() == [1, 3]
    assert len(samples.take([])) == 0
    assert list(samples.take([]).batches(2)) == []


@bench.needed
def test_bench_samples_match_their_cards() -> None:
    efficientnet = Card.load(bench.FOLDER / "vision/efficientnet_lite0_imagenet.yaml")
    samples = Samples.match(
        Dataset.load(bench.FOLDER / "vision/imagenette").split("test"), efficientnet, per_class=2
    )
    assert len(samples.counts()) == 10
    feed, labels = next(samples.batches(4))
    assert (feed["input"].shape, feed["input"].dtype) == ((4, 3, 224, 224), np.float32)
    assert efficientnet.labels[labels[0]] == "n01440764"
    assert -1 <= feed["input"].min() < feed["input"].max() <= 1
    brown = Card.load(bench.FOLDER / "rnn/brown_lstm1_retrained.yaml")
    steps = Samples.match(Dataset.load(bench.FOLDER / "rnn/brown.npz").split("test_paper"), brown)
    assert steps.labels.shape == (650, 15)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "flat"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_a_mirror(layout: str, channels: int) -> None:
    """As if the arrays had been turned before, in every layout; a fold holds both or none."""
    card = Card.model_validate(
        {"input": {"name": "x", "kind": "image", "layout": layout, "size": [4, 6], "scale": 0.5,
                   "color": "RGB" if channels == 3 else "GRAY"},
         "output": {"name": "y", "kind": "logits"}, "labels": ["a", "b"]}
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels)).astype(np.uint8)
    labels = np.array([0, 1, 1, 0, 1])
    plain, turned = (
        Samples.match(Dataset.from_arrays(x, labels).split("train"), card)
        for x in (images, images[:, :, ::-1])
    )
    both = plain.with_mirrored()
    assert len(both) == 10 and both.labels.tolist() == [*labels, *labels]
    found = np.concatenate([inputs["x"] for inputs, _ in both.batches(3)])
    expected = [np.concatenate([inputs["x"] for inputs, _ in each.batches(5)]) for each in (plain, turned)]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    assert not np.array_equal(*expected)
    few = both.take([1, 6])
    np.testing.assert_array_equal(next(few.batches(2))[0]["x"], np.stack([expected[0][1], expected[1][1]]))


def test_only_images_have_a_mirror() -> None:
    card = Card.model_validate(
        {
            "input": {"name": "x", "kind": "tensor"},
            "output": {"name": "y", "kind": "logits"},
            "labels": ["a", "b"],
        }
    )
    samples = Samples.match(
        Dataset.from_arrays(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])).split("train"), card
    )
    with pytest.raises(GraftError, match="mirrored"):
        samples.with_mirrored()


def test_numbers_that_count_no_columns_are_names_for_patches_too() -> None:
    data = Dataset.from_arrays(np.arange(4)[:, None], [8, 3, 5, 8])
    part = PrefixedData(data).split("train", {"": list("358")})
    assert (part.labels.tolist(), part.class_names) == ([2, 0, 1, 2], ("3", "5", "8"))
