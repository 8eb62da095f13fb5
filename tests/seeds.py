"""The seed of random graphs: a new one each run, printed, so that what fails can be run again.

``python -m pytest --graph-seed N``, or the environment variable :data:`VARIABLE`, repeats a run.
"""

from __future__ import annotations

import os
import random

VARIABLE = "GRAFT_GRAPH_SEED"


def graph_seed() -> int:
    """The seed of this run; the same in every process of it."""
    return int(os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(2**31))))
