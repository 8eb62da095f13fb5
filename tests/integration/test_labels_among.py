"""Samples without labels that are all of the classes asked for: predictions among these classes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.pseudo_labels import predicted_labels, with_predictions
from graft.rewriter.record.folder import PROFILE
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device
from tests.integration import kit
from tests.integration.contract.kit import found, refused
from tests.integration.kit import Array, Graft, Place

PAIR = np.array([0, 2])
ASKED = ("--classes", "cow,ant", "--labels-among", "asked")
BOTH = ["ant", "cow"]
SAID = "labels: the parent's predictions among the 2 classes asked for; among all, {} would be others"


@dataclass(frozen=True)
class Photos:
    """Samples that the network mostly gives to two classes: bare, and with labels among these two.

    Attributes:
        place: the model; ``bare.npz``, and ``pair.npz`` with the right labels beside it.
        free: by split, decisions among all classes.
        labels: by split, decisions among the two.
    """

    place: Place
    free: dict[str, Array]
    labels: dict[str, Array]

    def outside(self, split: str) -> float:
        """The share of decisions that are of other classes."""
        return float(np.mean(~np.isin(self.free[split], PAIR)))


@pytest.fixture
def photos(small: Place) -> Photos:
    bare, free, labels = {}, {}, {}
    with np.load(small.data) as data:
        for split in ("train", "test"):
            x = data[f"x_{split}"]
            own = np.isin(kit.run_model(small.model, x)["scores"].argmax(axis=1), PAIR)
            bare[f"x_{split}"] = x[own | (np.cumsum(~own) % 4 == 0)]
            scores = kit.run_model(small.model, bare[f"x_{split}"])["scores"]
            free[split] = scores.argmax(axis=1)
            labels[split] = PAIR[scores[:, PAIR].argmax(axis=1)]
    np.savez(small / "bare.npz", **bare)
    np.savez(small / "pair.npz", **bare, **{f"y_{split}": each for split, each in labels.items()})
    made = Photos(small, free, labels)
    assert 0.1 < made.outside("train") < 0.5
    return made


def test_labels_are_the_highest_of_the_scores_asked_for(photos: Photos) -> None:
    model = Model.load(photos.place.model)
    data = Dataset.load(photos.place / "bare.npz")
    split = with_predictions(data, model, Device(), among=["cow", "ant"]).split("train")
    np.testing.assert_array_equal(split.labels, photos.labels["train"])
    assert (split.predicted, split.label_classes) == (True, ("ant", "cow"))
    assert split.predicted_outside == pytest.approx(photos.outside("train"))
    every = predicted_labels(data.split("train"), model, Device(), among=kit.LABELS[::-1])
    np.testing.assert_array_equal(every.labels, photos.free["train"])
    assert (every.label_classes, every.predicted_outside) == (None, None)
    with pytest.raises(GraftError, match="fewer than two"):
        predicted_labels(data.split("train"), model, Device(), among=["ant"])


def test_decompose_gives_the_module_of_these_labels(graft: Graft, photos: Photos) -> None:
    here = photos.place
    line = ("decompose", here.model, "--together", "--keep", "0.7", "-o")
    first = found(graft(*line, here / "a", "--data", here / "pair.npz", *ASKED, "--json"), "decompose")
    told = graft(*line, here / "b", "--data", here / "bare.npz", *ASKED, "--json")
    second = found(told, "decompose")
    assert (first["label_source"], "label_classes" in first) == ("data", False)
    assert "other classes" not in told.err
    assert (second["label_source"], second["label_classes"]) == ("predictions", BOTH)
    assert (second["test_label_source"], second["test_label_classes"]) == ("predictions", BOTH)
    assert second["predicted_outside"] == pytest.approx(photos.outside("train"))
    assert second["test_samples"] == len(photos.labels["test"])
    assert second["composed_top1"] == first["composed_top1"]
    index = json.loads((here / "b/graft.json").read_text())
    assert index["label_classes"] == BOTH
    graphs = [onnx.load(here / each / second["modules"][0]["file"]) for each in "ab"]
    assert graphs[0].graph.SerializeToString() == graphs[1].graph.SerializeToString()
    origin = json.loads({each.key: each.value for each in graphs[1].metadata_props}["graft.origin"])
    assert origin["options"]["label_classes"] == BOTH
    (plan,) = (here / "b/plans").iterdir()
    assert Plan.load(plan).label_classes == tuple(BOTH)
    assert Profile.load(here / "b" / PROFILE).label_classes == tuple(BOTH)
    text = graft(*line, here / "c", "--data", here / "bare.npz", *ASKED).out
    assert SAID.format(f"{100 * photos.outside('train'):.1f} %") in text
    assert "--labels-among=asked" in text
    told = graft("evaluate", here / "c", "--data", here / "bare.npz", *ASKED[2:], "--json")
    assert found(told, "evaluate")["top1"] == second["composed_top1"]


def test_predictions_among_all_classes_say_how_many_are_lost(graft: Graft, photos: Photos) -> None:
    here = photos.place
    line = ("decompose", here.model, "--together", "--keep", "0.7", "--data", here / "bare.npz", "-o")
    result = found(graft(*line, here / "a", *ASKED[:2], "--json"), "decompose")
    assert result["label_classes"] is None
    assert result["predicted_outside"] == pytest.approx(photos.outside("train"))
    share = f"{100 * photos.outside('train'):.1f} %"
    assert f"{share} of them other classes than those asked for; where all samples are of these: " in (
        graft(*line, here / "b", *ASKED[:2]).out
    )
    assert "--labels-among" not in graft(*line[:2], *line[3:], here / "c", "--classes", "cow").out
    assert "other classes" not in graft(*line, here / "d").out
    with np.load(here / "bare.npz") as data:
        np.savez(here / "none.npz", x_train=data["x_train"][photos.free["train"] != 2])
    line = ("decompose", here.model, "--together", "--keep", "0.7", "--data", here / "none.npz", "-o")
    message = refused(graft(*line, here / "e", *ASKED[:2], "--json"), "class-empty")
    assert message.endswith("--labels-among asked")


def test_data_of_other_classes_is_warned_of(graft: Graft, photos: Photos) -> None:
    here = photos.place
    with np.load(here / "bare.npz") as data:
        own = np.isin(photos.free["train"], PAIR)
        kept = np.flatnonzero(~own | (np.cumsum(own) <= (~own).sum() - 1))
        np.savez(here / "others.npz", x_train=data["x_train"][kept])
    line = ("profile", here.model, "--data", here / "others.npz", *ASKED, "-o", here / "p")
    told = graft(*line)
    assert told.code == 0
    assert "leave out --labels-among if the data holds other classes" in told.err
    one = ("profile", here.model, "--data", here / "bare.npz", "--labels-among", "asked", "-o", here / "q")
    assert "fewer than two" in refused(graft(*one, "--classes", "ant", "--json"), "bad-request")


def test_profile_plan_and_curve_say_it(graft: Graft, photos: Photos) -> None:
    here = photos.place
    data = ("--data", here / "bare.npz", *ASKED)
    result = found(graft("profile", here.model, *data, "-o", here / "p", "--json"), "profile")
    counts = [int((photos.labels["train"] == number).sum()) for number in PAIR]
    assert result["classes"] == dict(zip([*BOTH, "(other)"], [*counts, 0], strict=True))
    assert result["label_classes"] == BOTH
    line = ("plan", here.model, "--profile", here / "p", "--keep", "0.7", "-o", here / "plan", "--force")
    for more in (ASKED[:2], data):
        result = found(graft(*line, *more, "--json"), "plan")
        assert (result["label_source"], result["label_classes"]) == ("predictions", BOTH)
        assert "among the 2 classes asked for" in graft(*line, *more).out
    assert json.loads((here / "plan").read_text())["label_classes"] == BOTH
    few = ("--budgets", "0.7", "--methods", "magnitude", "--force", "-o", here / "curve.json")
    result = found(graft("curve", here.model, *data, *few, "--json"), "curve")
    assert (result["label_classes"], result["test_label_classes"]) == (BOTH, BOTH)
    assert result["samples"] == len(photos.labels["test"])
    assert json.loads((here / "curve.json").read_text())["predicted_outside"] == result["predicted_outside"]
    cut = ("decompose", here.model, "--together", "--keep", "0.7", "--profile", here / "p", *data[:4])
    assert "profile again with the same" in graft(*cut, "-o", here / "m").err
    assert "profile again" not in graft(*cut, *ASKED[2:], "-o", here / "n").err


def test_compose_and_evaluate_predict_among_the_classes_of_the_modules(graft: Graft, photos: Photos) -> None:
    here = photos.place
    cut = ("decompose", here.model, "--data", here.data, "--keep", "0.7", *ASKED[:2], "-o", here / "m")
    assert graft(*cut).code == 0
    line = ("compose", here / "m", "-o", here / "all.onnx", "--force", *ASKED[2:], "--data")
    first, second = (
        found(graft(*line, here / f"{name}.npz", "--json"), "compose") for name in ("pair", "bare")
    )
    assert (second["top1"], second["samples"]) == (first["top1"], len(photos.labels["test"]))
    assert (second["label_classes"], second["test_label_classes"]) == (BOTH, BOTH)
    assert SAID.format(f"{100 * photos.outside('train'):.1f} %") in graft(*line, here / "bare.npz").out
    prefixed = found(
        graft(
            *("compose", f"k={here / 'm'}", "-o", here / "k.onnx", *line[5:], f"k={here / 'bare.npz'}"),
            "--json",
        ),
        "compose",
    )
    assert (prefixed["top1"], prefixed["label_classes"]) == (first["top1"], ["k:ant", "k:cow"])
    line = ("evaluate", here / "all.onnx", "--baseline", here.model, "--json", *ASKED[2:], "--data")
    first, second = (found(graft(*line, here / f"{name}.npz"), "evaluate") for name in ("pair", "bare"))
    assert (second["top1"], second["samples"]) == (first["top1"], first["samples"])
    assert (second["baseline"]["top1"], second["label_classes"]) == (1, BOTH)
    assert second["predicted_outside"] == pytest.approx(photos.outside("test"))


def test_the_class_of_padding_stays_possible(photos: Photos, graft: Graft) -> None:
    here = photos.place
    line = ("profile", here.model, "--data", here / "bare.npz", *ASKED, "--ignore-label", "dog", "--json")
    result = found(graft(*line, "-o", here / "p"), "profile")
    x = np.load(here / "bare.npz")["x_train"]
    three = np.array([0, 2, 3])
    expected = three[kit.run_model(here.model, x)["scores"][:, three].argmax(axis=1)]
    assert result["label_classes"] == ["ant", "cow", "dog"]
    assert [result["classes"][name] for name in BOTH] == [int((expected == n).sum()) for n in PAIR]


def test_several_data_sets_say_what_holds_for_all_of_them() -> None:
    def part(count: int, among: tuple[str, ...] | None, share: float | None, predicted: bool = True) -> Split:
        labels = np.zeros(count, np.int64)
        return Split(
            *("train", labels, kit.LABELS, lambda places, card: {}),
            predicted=predicted,
            label_classes=among,
            predicted_outside=share,
        )

    joined = Split.join([part(10, ("ant",), 0.5), part(30, ("cow",), 0.1), part(50, None, None, False)])
    assert (joined.predicted, joined.label_classes) == (True, ("ant", "cow"))
    assert joined.predicted_outside == pytest.approx(0.2)
    joined = Split.join([part(10, ("ant",), 0.5), part(30, None, None)])
    assert (joined.predicted, joined.label_classes, joined.predicted_outside) == (True, None, None)
