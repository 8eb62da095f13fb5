"""Samples of other networks' classes as new unconcerned examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.select.continuous import Continuous
from graft.passes.trunk import Source
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from tests import small
from tests.passes.compare.test_joint_head import FIRST, SECOND, split
from tests.passes.test_replace import parent
from tests.small import CPU


def test_others_count_as_if_they_had_been_profiled() -> None:
    of, data = parent(0), split(400, 1)
    samples = Samples.match(data, of.card, names=FIRST + SECOND)
    profile = small.profile(of.model, samples, of.sha256)
    context = small.context(profile, data=data)
    learned = Continuous(frozenset({"e", "f"}))(of, context).profile
    assert learned.classes == (*FIRST, OTHER) and learned.counts.tolist() == [50, 50, 50, 50, 100]
    foreign = np.isin(data.labels, [4, 5])
    everything = Samples(data, np.arange(400)[(data.labels < 4) | foreign], np.zeros(300, np.int64), of.card)
    both = small.profile(of.model, everything, of.sha256, classes=())
    for statistic, tables in profile.tables.items():
        for tensor, table in tables.items():
            found = learned.tables[statistic][tensor]
            np.testing.assert_array_equal(found[:4], table)
            np.testing.assert_allclose(
                found.sum(axis=0), both.tables[statistic][tensor][0], rtol=1e-4, atol=1e-3
            )
    again = learned.with_others(small.profile(of.model, samples, of.sha256, classes=()))
    assert again.classes == learned.classes and again.counts.tolist() == [50, 50, 50, 50, 300]
    with pytest.raises(GraftError):
        learned.with_others(replace(profile, parent="another"))


def test_trunks_are_planned_with_what_they_will_meet() -> None:
    data, found, sources = split(800, 1), [], {}
    for seed, labels in ((0, FIRST), (1, SECOND)):
        of = parent(seed, labels)
        samples = Samples.match(data, of.card, names=FIRST + SECOND)
        profile = small.profile(of.model, samples, of.sha256)
        found.append(
            Decompose(labels[:1], 0.6, method="contrast", round_to=1)(of, small.context(profile)).model
        )
        sources[of.sha256] = Source(of, profile)
    plain = Compose(scores="softmax")(Modules(found, sources), Context(device=CPU))
    learned = Compose(scores="softmax", continuous=True)(
        Modules(found, sources), Context(data=data, device=CPU)
    )
    assert learned.strategy == "trunk" and learned.model.require_card().labels == ("a", "e")
    x = small.inputs((6,))
    outputs = [next(iter(small.run(each.model, x).values())) for each in (plain, learned)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4
    for modules, parents, given in ((found, {}, data), (found, sources, None), (found[:1], sources, data)):
        with pytest.raises(GraftError) as error:
            Compose(continuous=True)(Modules(modules, parents), Context(data=given, device=CPU))
        assert error.value.code == "continuous-data"
    named = replace(data, class_names=("a", *"pqrstuv"))
    with pytest.raises(GraftError, match="no samples of e"):
        Compose(continuous=True)(Modules(found, sources), Context(data=named, device=CPU))
