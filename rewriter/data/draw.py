"""Training and test samples of data without splits: 80 % and 20 % of each class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.data.split import TEST, TRAIN, DrawnSplit, Split
from graft.rewriter.errors import GraftError

TEST_SHARE = 0.2


def draw_splits(whole: Callable[[], Split], seed: int) -> dict[str, Callable[[], Split]]:
    """Return what opens the splits ``train`` and ``test`` of samples that have none.

    The samples of a class are drawn by seed and name of the class only. A class of one or two samples
    has training samples only; where all have, there is no split ``test``.

    Args:
        whole: opens all samples as one split, in an order that does not depend on the file system.
        seed: 0 or more.

    Raises:
        GraftError: ``bad-request`` where the seed is negative, and what is wrong with the samples.
    """
    if seed < 0:
        raise GraftError("bad-request", f"expected a seed of 0 or more, found {seed}", "")
    opened = cache(whole)
    split = opened()
    tested = _test_mask(split, seed)
    drawn = DrawnSplit(int((~tested).sum()), int(tested.sum()), seed)
    places = {TRAIN: np.flatnonzero(~tested), TEST: np.flatnonzero(tested)}

    def part(name: str) -> Callable[[], Split]:
        return lambda: split.part(name, places[name], drawn)

    return {name: part(name) for name, found in places.items() if len(found)}


def _test_mask(split: Split, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    tested = np.zeros(len(split), bool)
    groups = split.labels if split.labels.ndim == 1 else np.zeros(len(split), np.int64)
    for number in np.unique(groups):
        places: Integers = np.flatnonzero(groups == number)
        named = split.class_names is not None and split.labels.ndim == 1 and number >= 0
        name = (split.class_names or ())[number] if named else str(number)
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        count = int(len(places) * TEST_SHARE + 0.5)
        tested[np.random.default_rng([seed, own]).permutation(places)[:count]] = True
    return tested
