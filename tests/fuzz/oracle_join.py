"""What compose, add and replace have to compute, from the outputs of the networks that they were given.

Columns of others stay, a newcomer's probability is what the newcomer gives it: see ``docs/reuse.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.fuzz.embedded import UnknownError
from tests.fuzz.mutant import OUT, Mutant
from tests.fuzz.oracle import blurred, card_of_model, compare, inputs_of, scores_of
from tests.fuzz.running import Array, WrongError, columns_of, run, run_result, scores_in


def check_added(mutant: Mutant, printed: str) -> str:
    """The parent's columns, then the newcomer's.

    Raises:
        WrongError: one differs.
        UnknownError: what it has to be cannot be told.
    """
    return _check_newcomer(mutant, None)


def check_replaced(mutant: Mutant, printed: str) -> str:
    """The columns of all others, and the newcomer's.

    Raises:
        WrongError: one differs.
        UnknownError: what it has to be cannot be told.
    """
    card = card_of_model()
    return _check_newcomer(mutant, card["labels"].index(mutant.option("--class")))


def _check_newcomer(mutant: Mutant, place: int | None) -> str:
    card = card_of_model()
    inputs, output, labels = inputs_of(card), card["output"], card["labels"]
    kind = output.get("kind", "logits")
    at = len(labels) if place is None else place
    pairs = []
    for given in (inputs, blurred(inputs)):
        scores = scores_of(Path("model.onnx"), given, output["name"], len(labels))
        others = scores if place is None else np.delete(scores, place, axis=-1)
        pairs.append(_joined(others, _log_odds(mutant, given), at, kind))
    (kept, new), (near, near_new) = pairs
    found = columns_of(Path(OUT), inputs, output["name"])  # after all that it was made of
    if found.shape[-1] != kept.shape[-1] + 1:
        raise WrongError(f"{found.shape[-1]} columns, expected {kept.shape[-1] + 1}")
    mine = np.delete(found, at, axis=-1)
    if kind == "probabilities":
        with np.errstate(all="ignore"):
            mine = mine / mine.sum(axis=-1, keepdims=True)
    compare(mine, kept, noise=np.abs(near - kept))
    if new is None or near_new is None:
        return "the parent"
    compare(found[..., at], new, noise=np.abs(near_new - new))
    return "the parent and the module"


def _joined(others: Array, odds: Array | None, at: int, kind: str) -> tuple[Array, Array | None]:
    """Columns of the others, as shares where they are probabilities, and the newcomer's."""
    with np.errstate(all="ignore"):
        if kind == "probabilities":
            shares = others / others.sum(axis=-1, keepdims=True)
            return shares, None if odds is None else 1 / (1 + np.exp(-odds))
        return others, None if odds is None else odds + np.logaddexp.reduce(others, axis=-1)


def _log_odds(mutant: Mutant, inputs: Mapping[str, Array]) -> Array | None:
    """The module's own log-odds; ``None`` where samples or typicality change them, or there is no module.

    Raises:
        UnknownError: onnxruntime refuses the module, or it is another one.
    """
    given = mutant.option("--with")
    if given is None:
        return None
    if "--data" in mutant.arguments or mutant.kind != "model":
        run(Path(given), dict(inputs))
        return None
    return module_odds(Path(given), inputs)


def module_odds(path: Path, inputs: Mapping[str, Array]) -> Array:
    """Log-odds of a module of one class against all others.

    Raises:
        UnknownError: it is another module, or says other things of its inputs than its parent's card.
    """
    card = _card_inside(path)
    names = card.get("inputs") or {card["input"]["name"]: card["input"]}
    given = {name: inputs[name] for name in names}
    values = scores_in(path, given, card["output"]["name"]).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise UnknownError(f"a module with scores of shape {values.shape}")
    with np.errstate(all="ignore"):
        if card["output"].get("kind", "logits") == "probabilities":
            values = np.log(values)
        return np.asarray(values[:, 0] - values[:, 1])


def check_composed(mutant: Mutant, printed: str) -> str:
    """Branches that are compared by odds: each column is a module's log-odds.

    Raises:
        WrongError: one differs.
        UnknownError: what it has to be cannot be told.
    """
    if mutant.option("--strategy") != "branches":
        raise UnknownError("a trunk is a cut of its own")
    paths = [Path("modules/ant.onnx"), Path("modules/bee.onnx")]
    cards, whole = [*map(_card_inside, paths)], card_of_model()
    if any(card.get("input") != cards[0].get("input") for card in cards):
        raise UnknownError("modules of different inputs")
    inputs = inputs_of(whole)
    pairs = []
    for given in (inputs, blurred(inputs)):
        odds = np.stack([module_odds(path, given) for path in paths], axis=-1)
        if cards[0]["output"].get("kind", "logits") == "probabilities":
            odds = np.exp(odds - np.logaddexp.reduce(odds, axis=-1, keepdims=True))
        pairs.append(odds)
    model = onnx.load(OUT)
    names = [entry.name for entry in model.graph.input]
    if len(names) != len(inputs):
        raise UnknownError(f"a composite of {len(names)} inputs")
    feed = inputs if set(names) == set(inputs) else dict(zip(names, inputs.values(), strict=True))
    (found,) = run_result(Path(OUT), feed).values()
    compare(found.astype(np.float64), pairs[0], noise=np.abs(pairs[1] - pairs[0]))
    return "the modules"


def _card_inside(path: Path) -> dict[str, Any]:
    """The card in a model's metadata."""
    held = [entry.value for entry in onnx.load(path).metadata_props if entry.key == "graft.card"]
    try:
        card = json.loads(held[-1])
    except (ValueError, IndexError):
        raise UnknownError("a module without a card inside") from None
    if not isinstance(card, dict):
        raise UnknownError("a module without a card inside")
    return card
