"""Statistics of features: they equal numpy's figures, and hostile metadata is refused in one line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import DIRECTIONS, KEY, LEAST_SPREAD, RIDGE, Mahalanobis
from graft.rewriter.record.profile import Profile
from tests import small

Array = NDArray[Any]
NAMES = ("a", "b", "c")


def features(seed: int, size: int, counts: tuple[int, ...] = (20, 30, 11)) -> list[Array]:
    """Samples (n, size) of each class: their own centres and covariances, as a ReLU leaves them or not."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(size, size)) / np.sqrt(size)
    drawn = [random.normal(size=(count, size)) @ (mix * random.uniform(0.3, 2, size)) for count in counts]
    centers = [2 * random.normal(size=size) for _ in counts]
    if seed % 2 == 0:
        return [values + center for values, center in zip(drawn, centers, strict=True)]
    return [np.maximum(values + np.abs(center), 0) for values, center in zip(drawn, centers, strict=True)]


def profile(samples: list[Array], names: tuple[str, ...] = NAMES, products: bool = True) -> Profile:
    """What a profile holds of these samples."""
    tables = {"sum": {"t": np.stack([values.sum(axis=0) for values in samples])}}
    if products:
        tables["products"] = {"t": np.stack([(values.T @ values).ravel() for values in samples])}
    counts = np.array([len(values) for values in samples])
    return Profile("p", "d", names, counts, counts, tables)


def measured(
    samples: list[Array], stays: Array | None = None, classes: tuple[str, ...] = NAMES
) -> Mahalanobis:
    keeps = np.ones(samples[0].shape[1], bool) if stays is None else stays
    found = Mahalanobis.fit(profile(samples), "t", keeps, classes)
    assert found is not None
    return found


def scatter(samples: list[Array]) -> list[Array]:
    """Covariance of each class, about its own mean, over n."""
    return [np.cov(values.T, bias=True).reshape(values.shape[1], -1) for values in samples]


def textbook(samples: list[Array]) -> Array:
    """The inverse of the covariance within classes, each class weighing the same, with a ridge.

    Beyond the directions of most variance one number stands for the inverse of the mean variance.
    """
    within = np.mean(scatter(samples), axis=0)
    size = len(within)
    within = within + RIDGE * np.trace(within) / size * np.eye(size)
    if size <= DIRECTIONS:
        return np.linalg.inv(within)
    values, vectors = np.linalg.eigh(within)
    inverse = np.full(size, 1 / values[:-DIRECTIONS].mean())
    inverse[-DIRECTIONS:] = 1 / values[-DIRECTIONS:]
    return vectors @ np.diag(inverse) @ vectors.T


def mahalanobis(samples: list[Array], points: Array) -> Array:
    """Squares of distances (points, classes)."""
    inverse = textbook(samples)
    apart = [points - values.mean(axis=0) for values in samples]
    return np.stack([np.einsum("ni,ij,nj->n", each, inverse, each) for each in apart], axis=1)


sizes = st.sampled_from([1, 2, 7, DIRECTIONS, DIRECTIONS + 1, 90])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), sizes)
def test_distances_are_mahalanobis_distances(seed: int, size: int) -> None:
    samples = features(seed, size)
    points = features(seed + 1, size)[0]
    known = measured(samples)
    assert known.centers.shape == (3, size) and known.directions.shape == (size, min(size, DIRECTIONS))
    assert (known.across[0] > 0) == (size > DIRECTIONS)
    wanted = mahalanobis(samples, points)
    own = [mahalanobis(samples, values)[:, column] for column, values in enumerate(samples)]
    np.testing.assert_allclose(known.expected, [values.mean() for values in own], rtol=1e-3)
    inverse = textbook(samples)
    relative = [inverse @ covariance for covariance in scatter(samples)]
    spread = np.sqrt([2 * np.trace(each @ each) for each in relative])
    spread = np.maximum(spread, LEAST_SPREAD * spread.mean())
    np.testing.assert_allclose(known.spread, spread, rtol=1e-3)
    found = known.distances(points)
    np.testing.assert_allclose(found, (wanted - known.expected) / known.spread, rtol=2e-3, atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), sizes, st.data())
def test_samples_of_a_class_are_usual_for_it_on_average(seed: int, size: int, data: st.DataObject) -> None:
    """The mean of d over a class equals ``expected``: its standardised distances average 0."""
    samples = features(seed, size)
    stays = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    stays[data.draw(st.integers(0, size - 1))] = True
    known = measured(samples, stays)
    for column, values in enumerate(samples):
        distances = known.distances(values[:, stays])[:, column]
        assert abs(distances.mean()) < 1e-3
        assert distances.std() > 1e-3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([5, 80]))
def test_features_that_fell_are_as_if_they_had_never_been(seed: int, size: int) -> None:
    samples = features(seed, size)
    stays = np.random.default_rng(seed).random(size) < 0.7
    stays[0] = True
    left = measured([values[:, stays] for values in samples])
    cut = measured(samples, stays)
    points = features(seed + 1, size)[1][:, stays]
    np.testing.assert_allclose(cut.distances(points), left.distances(points), rtol=1e-3, atol=1e-3)


def test_gaussian_samples_spread_as_said() -> None:
    """For normal features ``spread`` is the standard deviation of d: standardised distances have 1."""
    random = np.random.default_rng(0)
    samples = [random.normal(size=(20000, 8)) @ random.normal(size=(8, 8)) for _ in NAMES]
    known = measured(samples)
    for column, values in enumerate(samples):
        np.testing.assert_allclose(known.distances(values)[:, column].std(), 1, rtol=0.05)


def test_classes_in_the_order_asked_for_share_the_covariance_of_all() -> None:
    samples = features(3, 6)
    whole, some = measured(samples), measured(samples, classes=("c", "a"))
    assert some.classes == ("c", "a")
    np.testing.assert_array_equal(some.directions, whole.directions)
    points = features(4, 6)[0]
    np.testing.assert_allclose(some.distances(points), whole.distances(points)[:, [2, 0]], rtol=1e-5)


def test_what_a_profile_has_to_hold() -> None:
    samples = features(0, 4)
    stays = np.ones(4, bool)
    assert Mahalanobis.fit(profile(samples, products=False), "t", stays, ["a"]) is None
    assert Mahalanobis.fit(profile(samples), "u", stays, ["a"]) is None
    assert Mahalanobis.fit(profile(samples), "t", np.ones(5, bool), ["a"]) is None
    assert Mahalanobis.fit(profile(samples), "t", stays, ["a", "z"]) is None
    unseen = profile([*samples[:2], samples[2][:0]])
    assert Mahalanobis.fit(unseen, "t", stays, ["a", "c"]) is None
    # a class without samples, and all others together, have no part in the covariance
    found = Mahalanobis.fit(unseen, "t", stays, ["a"])
    assert found is not None
    rest = profile(samples, ("a", "b", OTHER))
    assert Mahalanobis.fit(rest, "t", stays, ["a", OTHER]) is None
    again = Mahalanobis.fit(rest, "t", stays, ["a"])
    assert again is not None
    np.testing.assert_array_equal(again.directions, found.directions)
    np.testing.assert_array_equal(again.expected, found.expected)


def test_directions_have_one_sign_on_any_machine() -> None:
    known = measured(features(5, 12))
    largest = np.abs(known.directions).argmax(axis=0)
    assert (known.directions[largest, np.arange(12)] > 0).all()


def test_features_that_never_vary() -> None:
    """Constant features: every sample is usual, all else is far away, and nothing is infinite."""
    samples = [np.full((5, 3), value) for value in (0.0, 1.0, 2.0)]
    known = measured(samples)
    for column, values in enumerate(samples):
        np.testing.assert_allclose(known.distances(values)[:, column], 0, atol=1e-3)
    found = known.distances(samples[0])
    assert np.isfinite(found).all() and found[0, 1] > 1


def test_a_class_of_one_sample_is_not_beyond_reach() -> None:
    """Its spread cannot be told from its samples; 0 puts every input millions of deviations away."""
    random = np.random.default_rng(0)
    samples = [random.normal(size=(20, 4)), random.normal(size=(20, 4)) + 3, random.normal(size=(1, 4)) - 3]
    near = samples[2] + 0.1
    assert abs(measured(samples).distances(near)[0, 2]) < 100


# -------------------------------------------------------------------- through a model


def module(keep: float = 1.0) -> tuple[small.Net, Model, Array, Array]:
    """A module of two classes of a small net, its samples and their labels."""
    net = small.residual_net()
    parent = Parent(small.model(net))
    x = small.inputs([2, 6, 6], 60)
    data = small.samples(x)
    observed = small.profile(parent.model, data, parent.sha256)
    return (
        net,
        Decompose(["c", "a"], keep=keep, together=True)(parent, small.context(observed)).model,
        x,
        data.labels,
    )


def test_a_module_remembers_the_last_features_of_its_parent() -> None:
    net, cut, x, labels = module()
    known = Mahalanobis.of(cut)
    assert known is not None and known.classes == ("c", "a")
    values = small.activations(net, x, "hidden")["hidden"]
    groups = [values[labels == number] for number in range(4)]
    np.testing.assert_allclose(
        known.centers, [groups[2].mean(axis=0), groups[0].mean(axis=0)], rtol=1e-4, atol=1e-5
    )
    wanted = mahalanobis(groups, values)[:, [2, 0]]
    np.testing.assert_allclose(
        known.distances(values), (wanted - known.expected) / known.spread, rtol=1e-2, atol=1e-2
    )
    own = [known.distances(groups[number])[:, column].mean() for column, number in enumerate((2, 0))]
    np.testing.assert_allclose(own, 0, atol=1e-3)


def test_a_cut_module_remembers_what_is_left() -> None:
    net, cut, x, labels = module(0.5)
    known = Mahalanobis.of(cut)
    assert known is not None
    tensor = cut.graph.tensors()[known.tensor]
    assert tensor.shape[-1] == known.centers.shape[1] <= 7
    means = small.activations(net, x, "hidden")["hidden"][labels == 2].mean(axis=0)
    assert all(np.isclose(means, center, rtol=1e-3, atol=1e-5).any() for center in known.centers[0])


def test_what_is_attached_is_read_back(tmp_path: Any) -> None:
    known = measured(features(1, 70))
    model = Model.from_proto(small.dense_net().proto(y=[4]), small.card())
    assert Mahalanobis.of(model) is None
    known.attach(model)
    model.save(tmp_path / "m.onnx")
    again = Mahalanobis.of(Model.load(tmp_path / "m.onnx"))
    assert again is not None
    assert (again.tensor, again.classes) == (known.tensor, known.classes)
    for name in ("centers", "directions", "across", "expected", "spread"):
        one, two = getattr(known, name), getattr(again, name)
        assert one.dtype == two.dtype == np.float32
        np.testing.assert_array_equal(one, two)
    points = features(2, 70)[0]
    np.testing.assert_array_equal(again.distances(points), known.distances(points))
    other = Model.from_proto(small.dense_net().proto(y=[4]))
    again.attach(other)
    assert other.metadata[KEY] == model.metadata[KEY]


# -------------------------------------------------------------------- hostile metadata


def attached() -> str:
    model = Model.from_proto(small.dense_net().proto(y=[4]))
    measured(features(1, 5)).attach(model)
    return model.metadata[KEY]


def told(text: str) -> GraftError:
    model = Model.from_proto(small.dense_net().proto(y=[4]))
    model.metadata[KEY] = text
    with pytest.raises(GraftError) as caught:
        Mahalanobis.of(model)
    assert caught.value.hint and "\n" not in str(caught.value)
    return caught.value


def test_the_metadata_that_hostile_cases_start_from_is_sound() -> None:
    model = Model.from_proto(small.dense_net().proto(y=[4]))
    model.metadata[KEY] = attached()
    assert Mahalanobis.of(model) is not None


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", '"text"', "{}", '{"tensor": "t"}', "\x00"])
def test_metadata_that_is_no_record(text: str) -> None:
    assert told(text).code == "module-broken"


def test_metadata_that_is_nested_without_end() -> None:
    assert told("[" * 100_000).code == "module-broken"


@pytest.mark.parametrize(
    "changes",
    [
        {"safetensors": "!!!"},
        {"safetensors": "é"},
        {"safetensors": 5},
        {"safetensors": None},
        {"safetensors": ""},
        {"safetensors": base64.b64encode(b"\xff" * 64).decode()},
        {"safetensors": base64.b64encode(b"\x08" + b"\0" * 7 + b"{}      ").decode()},
        {"classes": None},
        {"classes": 3},
        {"classes": ["a", "b"]},
        {"classes": []},
        {"classes": ["a", "b", "c", "d"]},
    ],
)
def test_metadata_with_broken_values(changes: dict[str, Any]) -> None:
    assert told(json.dumps({**json.loads(attached()), **changes})).code == "module-broken"


def changed(change: Callable[[dict[str, Array]], None]) -> str:
    content = json.loads(attached())
    tensors = dict(load(base64.b64decode(content["safetensors"])))
    change(tensors)
    whole = {name: np.array(values, order="C") for name, values in tensors.items()}
    return json.dumps({**content, "safetensors": base64.b64encode(save(whole)).decode()})


@pytest.mark.parametrize("name", ["centers", "directions", "across", "expected", "spread"])
def test_tensors_that_are_missing_short_or_not_finite(name: str) -> None:
    assert told(changed(lambda tensors: tensors.pop(name))).code == "module-broken"
    for value in (np.nan, np.inf, -np.inf):

        def poison(tensors: dict[str, Array], value: float = value) -> None:
            tensors[name] = tensors[name].copy()
            tensors[name].flat[-1] = value

        assert told(changed(poison)).code == "module-broken"

    def shorten(tensors: dict[str, Array]) -> None:
        tensors[name] = tensors[name][:-1]

    assert told(changed(shorten)).code == "module-broken"
    assert told(changed(lambda tensors: tensors.update(more=tensors[name]))).code == "module-broken"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("centers", (15,)),
        ("centers", (3, 5, 1)),
        ("across", ()),
        ("across", (1, 1)),
        ("directions", (6, 5)),
        *(
            (name, shape)
            for name, shape in (
                ("directions", (5,)),
                ("directions", (5, 5, 1)),
                ("expected", (3, 1)),
                ("spread", (3, 2)),
            )
        ),
    ],
)
def test_tensors_of_wrong_shapes(name: str, shape: tuple[int, ...]) -> None:
    def reshape(tensors: dict[str, Array]) -> None:
        tensors[name] = np.ones(shape, np.float32)

    assert told(changed(reshape)).code == "module-broken"


@pytest.mark.parametrize(("name", "value"), [("spread", 0), ("spread", -1), ("directions", 0)])
def test_numbers_that_make_distances_infinite_or_turn_them_round(name: str, value: float) -> None:
    def fill(tensors: dict[str, Array]) -> None:
        tensors[name] = np.full_like(tensors[name], value)

    assert told(changed(fill)).code == "module-broken"
