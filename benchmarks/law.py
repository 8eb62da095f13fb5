"""Prove the law on a fixed, large number of random graphs: cut graph and masked parent compute the same.

    python -m benchmarks.law [--graphs 2000] [--seed 0] [--json law.json]

The suite draws some graphs with a new seed at each run; this draws many, with a seed that is fixed and
printed. The masked parent is that of the tests, which knows nothing of channel groups and operator classes.
Needs the extra ``test``, no models and no data. Takes about 10 minutes on two cores; ends with an
AssertionError where a graph fails.
"""  # fmt: skip

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from benchmarks.common import Run, start
from tests import law
from tests.passes import test_languages
from tests.passes.cut import test_vocabulary
from tests.passes.published import test_unrolled
from tests.rewriter.operators import test_recurrent


def networks(run: Run) -> None:
    """Convolutional and dense networks, and networks over tokens: three random plans each."""
    seed = begin(run, "random networks")
    found = law.holds_for_random_graphs(graphs(run), seed)
    run.output.note(f"the law holds on {found} graphs, three plans each")


def shifted(run: Run) -> None:
    """Cuts of the wrong channels, which the law has to notice; they cost more time."""
    seed = begin(run, "shifted cuts of random networks")
    found = law.fails_for_shifted_cuts(max(1, graphs(run) // 10), seed)
    run.output.note(f"cuts of the wrong channels are noticed on {found} graphs")


def removed(run: Run) -> None:
    """Networks with branches that lose all of their channels: three random plans each."""
    seed = begin(run, "random networks with branches that are removed")
    found = law.holds_when_lists_are_removed(max(1, graphs(run) // 5), seed)
    run.output.note(f"the law holds; {found} lists of channels were removed as a whole")


def recurrent(run: Run) -> None:
    """Recurrent networks of all operators, directions, outputs and activations: one random plan each."""
    seed, check = begin(run, "random recurrent networks"), test_recurrent.test_cut_equals_masked
    found = 0

    @seeded(seed)
    @settings(deadline=None, database=None, max_examples=graphs(run), suppress_health_check=list(HealthCheck))
    @given(test_recurrent.OPEN, st.floats(0.2, 0.9))
    def holds(number: int, share: float) -> None:
        nonlocal found
        check.hypothesis.inner_test(number, share)
        found += 1

    holds()
    run.output.note(f"the law holds on {found} graphs")


def words(run: Run) -> None:
    """Rows of embeddings that are removed: every word reads its own row, or that of unknown words."""
    again(run, "words", test_vocabulary.test_the_cut_equals_the_masked_table, test_vocabulary.DRAWN)


def translators(run: Run) -> None:
    """States of encoder-decoders: one random plan each."""
    test = test_languages.test_states_of_both_layers_are_removed_together
    again(run, "encoder-decoders", test, test_languages.DRAWN)


def unrolled(run: Run) -> None:
    """One cut for every time step: random masks of units at every step, one or two layers."""
    seed, check = (
        begin(run, "unrolled recurrent networks"),
        test_unrolled.test_the_cut_equals_the_masked_layer,
    )
    draw, found = np.random.default_rng(seed), 0
    for _ in range(graphs(run)):
        op, more = test_unrolled.CASES[draw.integers(len(test_unrolled.CASES))]
        layers, many = int(draw.integers(1, 3)), bool(draw.integers(2))
        number, share, opset = (
            int(draw.integers(10_000)),
            draw.uniform(0.1, 1),
            int(draw.choice([13, 17, 21])),
        )
        check.hypothesis.inner_test(op, more, layers, many, number, share, opset)
        found += 1
    run.output.note(f"the law holds on {found} graphs")


def again(run: Run, title: str, test: Any, drawn: Mapping[str, Any]) -> None:
    """Draw more examples of a test that holds for all of them.

    Args:
        run: how many.
        title: of the section.
        test: takes what is drawn.
        drawn: from what, by name.
    """
    seed, found = begin(run, title), 0

    @seeded(seed)
    @settings(deadline=None, database=None, max_examples=graphs(run), suppress_health_check=list(HealthCheck))
    @given(**drawn)
    def holds(**values: Any) -> None:
        nonlocal found
        test.hypothesis.inner_test(**values)
        found += 1

    holds()
    run.output.note(f"the law holds on {found} graphs")


def begin(run: Run, title: str) -> int:
    """Begin a section; return the seed, which is printed."""
    seed = int(run.options.seed)
    run.output.section(f"{title}, seed {seed}")
    return seed


def graphs(run: Run) -> int:
    """Return the number of graphs to draw."""
    return run.few or int(run.options.graphs)


SECTIONS = {
    each.__name__: each for each in (networks, shifted, removed, recurrent, words, translators, unrolled)
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--graphs", type=int, default=2000, help="graphs; a tenth of them for shifted cuts")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")


if __name__ == "__main__":
    start(__doc__, SECTIONS, options, data=False)
