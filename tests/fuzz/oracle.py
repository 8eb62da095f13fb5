"""What a command's result has to be, computed by onnxruntime and numpy from the files that it was given.

Nothing of Graft is used but the command itself: its own verification may be wrong in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from tests.fuzz.bases import TEST
from tests.fuzz.embedded import UnknownError, embedded
from tests.fuzz.mutant import OUT, Mutant
from tests.fuzz.running import Array, WrongError, columns_of, scores_in

TOLERANCE = 1e-3
SAMPLES = 8


def card_of_model() -> dict[str, Any]:
    """The card beside the model.

    Raises:
        UnknownError: it lists no labels.
    """
    card = yaml.safe_load(Path("model.yaml").read_text())
    if not isinstance(card, dict) or not isinstance(card.get("labels"), list):
        raise UnknownError("the card has no list of labels")
    return card


def inputs_of(card: dict[str, Any], split: str = "train", count: int = SAMPLES) -> dict[str, Array]:
    """The first samples, as the card says that the model takes them; of a mutated file, those of the base."""
    inputs = card.get("inputs") or {card["input"]["name"]: card["input"]}
    with np.load("data.npz") as data:
        found = {}
        for name, said in inputs.items():
            key = f"x_{split}.{name}" if f"x_{split}.{name}" in data.files else f"x_{split}"
            values = data[key][:count]
            found[name] = _prepared(values, said) if said.get("kind") == "image" else values
    return found


def _prepared(images: Array, said: dict[str, Any]) -> Array:
    """Images of the size that the card names, as the model takes them."""
    mean, std = (np.array(said.get(key, default), np.float32) for key, default in (("mean", 0), ("std", 1)))
    values = (images * np.float32(said.get("scale", 1)) - mean) / std
    layout = said.get("layout", "NCHW")
    if layout == "NCHW":
        values = values[:, None] if values.ndim == 3 else np.moveaxis(values, -1, 1)
    elif layout == "flat":
        values = values.reshape(len(values), -1)
    return values.astype(np.float32)


def scores_of(model: onnx.ModelProto | Path, inputs: dict[str, Array], name: str, classes: int) -> Array:
    """The parent's scores, (samples, classes), as float64."""
    values = scores_in(model, inputs, name)
    if values.ndim > 2 and values.shape[1] == classes and values.size == len(values) * classes:
        values = values.reshape(len(values), classes)
    if values.ndim < 2 or values.shape[-1] != classes:
        raise UnknownError(f"scores of shape {values.shape}")
    return values.astype(np.float64)


# ------------------------------------------------------------------- modules


def check_modules(mutant: Mutant, printed: str) -> str:
    """Compare every column of every module with the parent's.

    Raises:
        WrongError: one differs.
        UnknownError: what it has to be cannot be told.
    """
    if mutant.option("--compensate") not in ("none", None) and mutant.option("--keep") != "1.0":
        raise UnknownError("compensated")
    card = card_of_model()
    inputs = inputs_of(card)
    index = json.loads(Path(OUT, "graft.json").read_text())
    parent = onnx.load("model.onnx")
    done = []
    for entry in index["modules"]:
        path = Path(OUT, entry["file"])
        module = onnx.load(path)
        whole, how = parent, "the parent"
        if mutant.option("--keep") != "1.0":
            whole, how = embedded(parent, module), "the masked parent"
        _compare_module(mutant, card, (whole, path), inputs, entry["classes"])
        done.append(how)
    return f"{len(done)} with {done[0]}"


def _compare_module(
    mutant: Mutant,
    card: dict[str, Any],
    models: tuple[onnx.ModelProto, Path],
    inputs: dict[str, Array],
    classes: Sequence[str],
) -> None:
    labels, output = card["labels"], card["output"]
    scores = scores_of(models[0], inputs, output["name"], len(labels))
    moved = scores_of(models[0], blurred(inputs), output["name"], len(labels))
    single = len(classes) == 1 and "--together" not in mutant.arguments
    wanted = [labels.index(name) for name in classes]
    expected, near = (
        restricted(each, wanted, single, output.get("kind", "logits")) for each in (scores, moved)
    )
    found = columns_of(models[1], inputs, output["name"])
    compare(found, expected, noise=np.abs(near - expected))


def blurred(inputs: dict[str, Array]) -> dict[str, Array]:
    """The same samples, off by rounding: how much that changes is how exact a comparison can be."""
    return {
        name: values * np.float32(1 + 1e-6) if values.dtype == np.float32 else values
        for name, values in inputs.items()
    }


def restricted(scores: Array, wanted: list[int], single: bool, kind: str) -> Array:
    """Columns of a module, from all scores of its parent.

    Args:
        scores: (samples, classes), logits or probabilities.
        wanted: numbers of the classes.
        single: one class against all others.
        kind: ``logits`` or ``probabilities``.
    """
    others = [index for index in range(scores.shape[-1]) if index not in wanted]
    if kind == "probabilities":
        columns = scores[..., wanted]
        if single:
            return np.concatenate([columns, scores[..., others].sum(axis=-1, keepdims=True)], axis=-1)
        with np.errstate(all="ignore"):
            shares: Array = columns / columns.sum(axis=-1, keepdims=True)
        return shares
    if not single:
        picked: Array = scores[..., wanted]
        return picked
    with np.errstate(all="ignore"):
        rest = np.logaddexp.reduce(scores[..., others], axis=-1, keepdims=True)
    return np.concatenate([scores[..., wanted], rest], axis=-1)


def compare(found: Array, expected: Array, noise: Array | float = 0.0) -> None:
    """Compare scores, relative to the largest and to what rounding changes.

    Raises:
        WrongError: they differ.
        UnknownError: they are not finite, so that no difference is defined.
    """
    if found.shape != expected.shape:
        raise WrongError(f"shape {found.shape}, expected {expected.shape}")
    if not np.isfinite(expected).all() or not np.isfinite(noise).all():
        raise UnknownError("the parent's scores are not finite")
    if not np.isfinite(found).all():
        raise WrongError("scores that are not finite")
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    allowed = TOLERANCE * scale + 100 * float(np.max(noise, initial=0))
    difference = float(np.abs(found - expected).max(initial=0))
    if difference > allowed:
        raise WrongError(f"differs by {difference:.3g}, scores up to {scale:.3g}")


# ------------------------------------------------------------------- other commands


def check_removed(mutant: Mutant, printed: str) -> str:
    """All other columns are the parent's.

    Raises:
        WrongError: one differs.
        UnknownError: what it has to be cannot be told.
    """
    card = card_of_model()
    inputs, labels, output = inputs_of(card), card["labels"], card["output"]
    wanted = [at for at, label in enumerate(labels) if label != mutant.option("--class")]
    scores = scores_of(Path("model.onnx"), inputs, output["name"], len(labels))
    moved = scores_of(Path("model.onnx"), blurred(inputs), output["name"], len(labels))
    kind = output.get("kind", "logits")
    expected, near = (restricted(each, wanted, False, kind) for each in (scores, moved))
    found = columns_of(Path(OUT), inputs, output["name"])
    compare(found, expected, noise=np.abs(near - expected))
    return "the parent"


def check_predicted(mutant: Mutant, printed: str) -> str:
    """The labels are those of the parent's highest scores.

    Raises:
        WrongError: one is another.
        UnknownError: what it has to be cannot be told.
    """
    card = card_of_model()
    sample = mutant.arguments[2] == "sample.npy"
    inputs, labels = inputs_of(card, "test"), card["labels"]
    if sample:
        inputs = {name: values[:1] for name, values in inputs_of(card, "train").items()}
    scores = scores_of(Path("model.onnx"), inputs, card["output"]["name"], len(labels))
    predictions = json.loads(printed)["predictions"][: len(scores)]
    for values, said in zip(scores, predictions, strict=True):
        mine = values[labels.index(said["label"])]
        if not np.isfinite(values).all():
            raise UnknownError("the parent's scores are not finite")
        if mine < values.max() - 1e-4 * max(1.0, float(np.abs(values).max())):
            raise WrongError(f"label {said['label']} has not the highest score")
    return "the parent"


def check_evaluated(mutant: Mutant, printed: str) -> str:
    """The accuracy is that of the parent's highest scores.

    Raises:
        WrongError: it is another one.
        UnknownError: what it has to be cannot be told.
    """
    card = card_of_model()
    inputs = inputs_of(card, "test", TEST)
    scores = scores_of(Path("model.onnx"), inputs, card["output"]["name"], len(card["labels"]))
    with np.load("data.npz") as data:
        wanted = data["y_test"]
    if len(scores) != len(wanted) or not np.isfinite(scores).all():
        raise UnknownError("scores that are not finite, or of some samples only")
    mine, best = scores[np.arange(len(wanted)), wanted], scores.max(axis=1)
    near = np.sort(scores, axis=1)[:, -2:]
    close = int((near[:, 1] - near[:, 0] < 1e-4 * np.maximum(1, np.abs(best))).sum())
    expected, found = float((mine == best).mean()), json.loads(printed)["top1"]
    if abs(found - expected) > close / len(wanted) + 1e-9:
        raise WrongError(f"accuracy {found}, expected {expected}")
    return "the parent"
