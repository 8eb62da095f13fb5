"""What long commands say before they start, and the method that is taken where the default takes too long."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.passes.decompose import Decompose
from graft.passes.estimate import Subject
from graft.passes.identify.ablation import SWITCHED, Ablation
from graft.passes.parent import Parent
from graft.rewriter.measure.speed import BATCH, SIZE, Speed, Workload
from graft.rewriter.run.session import Device
from graft.tools import estimates
from graft.tools.options import seconds
from tests import small
from tests.integration.kit import Graft, Place, listing

SNAIL = Speed(macs=1.0, reads=1e9, flops=1e12, nodes=1e9)
"""So slow that a network of a few thousand multiply-accumulates takes hours."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every machine is a snail; the multiply-accumulates that were timed."""
    timed: list[int] = []

    def measured(model: Any, macs: int, samples: Any, device: Any) -> Speed:
        timed.append(macs)
        return SNAIL

    monkeypatch.setattr(estimates, "SLOW", SNAIL)
    monkeypatch.setattr(estimates, "measured", measured)
    return timed


def call(place: Place, *more: object, out: str = "out") -> tuple[object, ...]:
    line = ("decompose", place.model, "--data", place.data, "--classes", "ant,bee", "--together")
    return (*line, "--keep", "0.7", "-o", place / out, *more)


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "graft.json").read_text())
    return found


def test_where_the_default_takes_too_long_relevance_does(graft: Graft, small: Place, slow: list[int]) -> None:
    found = graft(*call(small))
    line = next(line for line in found.err.splitlines() if "ablation" in line)
    assert found.code == 0 and "more than --plan-time 10m: relevance chooses the channels" in line
    assert slow == [6 * 12 + 12 * 4]
    written = index(small / "out")
    runs = Ablation().runs(Parent.load(small.model).groups)
    assert written["method"] == "relevance"
    assert (
        written["method_reason"]
        == f"ablation takes {runs} runs of one sample a plan, more than --plan-time allows"
    )
    named = graft(*call(small, "--method", "relevance", out="named"))
    modules = {name: content for name, content in listing(small / "out").items() if name != "graft.json"}
    assert modules == {n: c for n, c in listing(small / "named").items() if n != "graft.json"}
    assert index(small / "named")["method_reason"] == "asked for" and "plan-time" not in named.err


def test_the_line_holds_the_command_that_insists(graft: Graft, small: Place, slow: list[int]) -> None:
    line = next(each for each in graft(*call(small)).err.splitlines() if "to insist: " in each)
    program, *words = shlex.split(line.split("to insist: ")[1])
    assert program == "graft" and words == [*map(str, call(small)), "--method", "ablation"]
    found = graft(*words, "--force")
    assert found.code == 0 and "to insist" not in found.err and index(small / "out")["method"] == "ablation"
    assert "about " in found.err and "planned by ablation" in found.err


@pytest.mark.parametrize(
    ("more", "method", "reason"),
    [
        ((), "ablation", "default"),
        (("--plan-time", "none"), "ablation", "default"),
        (("--plan-time", "0"), "relevance", "plan-time"),
        (("--plan-time", "0", "--method", "ablation"), "ablation", "asked for"),
        (("--plan-time", "0", "--method", "contrast"), "contrast", "asked for"),
    ],
)
def test_plan_time_decides_the_default_alone(
    more: tuple[str, ...], method: str, reason: str, graft: Graft, small: Place
) -> None:
    found = graft(*call(small, *more, "--json"))
    assert found.json["method"] == method and reason in found.json["method_reason"]
    assert ("to insist" in found.err) == (reason == "plan-time")
    assert 0 <= found.json["estimate_seconds"] < 10 and found.json["seconds"] >= 0
    assert not {"seconds", "estimate_seconds"} & index(small / "out").keys()


def test_short_work_is_not_timed_and_not_announced(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "measured", None)
    found = graft(*call(small))
    assert found.code == 0 and "about" not in found.err
    again = graft(*call(small, out="again"))
    assert again.code == 0 and listing(small / "out") == listing(small / "again")


def test_long_work_is_announced_on_standard_error_unless_quiet(
    graft: Graft, small: Place, slow: list[int]
) -> None:
    found = graft(*call(small, "--method", "ablation", "--json"))
    line = next(line for line in found.err.splitlines() if " about " in line)
    assert line.startswith("graft: about ") and "1 module from 240 samples, planned by ablation" in line
    assert found.json["estimate_seconds"] > 1000
    quiet = graft(*call(small, "-q", out="quiet"))
    assert quiet.code == 0 and not quiet.err


def test_a_search_by_default_that_takes_too_long_is_left_out(
    graft: Graft, small: Place, slow: list[int]
) -> None:
    of = ("decompose", small.model, "--data", small.data, "--classes", "ant,bee", "--together")
    given = (*of, "--method", "relevance", "-o")
    found = graft(*given, small / "half")
    line = next(line for line in found.err.splitlines() if "searching the budget" in line)
    assert found.code == 0 and "more than --plan-time 10m: every module keeps 50% of the cost" in line
    assert index(small / "half")["budget_reason"] == "a search takes more than --plan-time allows"
    same = graft(*given, small / "same", "--keep", "0.5")
    assert same.code == 0 and "budget_reason" not in index(small / "same")
    module = index(small / "half")["modules"][0]["file"]
    assert (small / "half" / module).read_bytes() == (small / "same" / module).read_bytes()
    insisted = graft(*shlex.split(line.split("to insist: graft ")[1]), "--force")
    assert insisted.code == 0 and "searching the budget" not in insisted.err
    free = graft(*given, small / "free", "--plan-time", "none")
    assert free.code == 0 and "budget_reason" not in index(small / "free")
    assert (small / "free" / module).read_bytes() == (small / "half" / module).read_bytes()


def test_plan_and_curve_choose_alike(graft: Graft, small: Place, slow: list[int]) -> None:
    of = (small.model, "--data", small.data, "--classes", "ant,bee")
    assert graft("profile", small.model, "--data", small.data, "-o", small / "p").code == 0
    plan = graft("plan", *of, "--profile", small / "p", "--keep", "0.7", "-o", small / "plan", "--json")
    assert plan.json["method"] == "relevance" and "--method ablation" in plan.err
    curve = graft("curve", *of, "--budgets", "0.7", "-o", small / "c.json", "--json")
    assert curve.json["method"] == "relevance" and "--methods ablation" in curve.err
    points = {point["method"] for point in json.loads((small / "c.json").read_text())["points"]}
    assert points == {"relevance", "activity", "magnitude", "random", "one-plan"}
    insisted = graft(
        "curve", *of, "--budgets", "0.7", "--methods", "ablation", "-o", small / "d.json", "--json"
    )
    assert insisted.json["method"] == "ablation" and "to insist" not in insisted.err


def test_one_plan_that_takes_many_passes_is_too_dear_by_default(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four minutes, but more than 30 passes over the samples; who gives a time gets that."""
    parent = Parent.load(small.model)
    one = Ablation().workload(parent.groups).macs
    monkeypatch.setattr(estimates, "SLOW", SNAIL)
    speed = replace(SNAIL, macs=one / 240)
    monkeypatch.setattr(estimates, "measured", lambda *_: speed)
    few = ("--samples-per-class", "1")
    dear = graft(*call(small, *few))
    assert "about 4 min, more than 30 passes over the samples: relevance" in dear.err
    asked = graft(*call(small, *few, "--plan-time", "10m", out="asked"))
    assert asked.code == 0 and index(small / "asked")["method"] == "ablation"
    many = graft(*call(small, out="many"))
    assert many.code == 0 and index(small / "many")["method"] == "ablation"


def test_commands_that_run_networks_say_so(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "a_sample", lambda *_: 0.5)
    found = graft("evaluate", small.model, "--data", small.data, "--baseline", small.model, "--json")
    assert found.json["estimate_seconds"] == 240.0 and "about 4 min: 2 models on 240 samples" in found.err
    assert graft(*call(small)).code == 0
    joined = graft("compose", small / "out", "--data", small.data, "-o", small / "all.onnx", "--json")
    assert joined.json["estimate_seconds"] >= 240.0 and "about 4 min: 1 network" in joined.err
    added = graft(
        *("add", joined.json["output"], "--class", "cow", "--data", small.data, "-o", small / "added.onnx")
    )
    assert added.code == 0 and "about 4 min: MODEL on 240 training samples" in added.err
    line = ("remove", small.model, "--class", "ant", "--data", small.data)
    removed = graft(*line, "-o", small / "removed.onnx", "--json")
    assert removed.json["estimate_seconds"] > 60.0 and "min: 2 models on" in removed.err


def test_commands_that_time_their_first_runs_say_so(
    graft: Graft, small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classifying, and trying the ways to read an input."""
    assert "about" not in graft("predict", small.model, small.data).err
    monkeypatch.setattr(estimates, "SAID", 0.0)
    assert "about 0 s: 240 samples" in graft("predict", small.model, small.data).err
    found = graft("card", small.model, "--data", small.data)
    assert re.search(r"about \d+ s: \d{3,} runs of a sample", found.err)
    assert "about" not in graft("card", small.model, "--data", small.data, "-q").err


@pytest.mark.parametrize(
    ("given", "found"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("0", 0), ("none", np.inf)]
)
def test_times_are_read(given: str, found: float) -> None:
    assert seconds(given) == found


@pytest.mark.parametrize("given", ["-1", "soon", "", "nan", "m"])
def test_what_is_no_time_is_refused(given: str, graft: Graft, small: Place) -> None:
    found = graft(*call(small, f"--plan-time={given}"))
    assert found.code == 2 and "expected a time such as 90, 10m or none" in found.err


def test_the_work_of_ablation_is_that_of_the_network_behind_each_channel() -> None:
    parent = Parent(small.model(small.dense_net()))
    counted = Ablation(images=3).workload(parent.groups)
    (group,) = [group for group in parent.groups if group.cuttable.any()]
    behind = group.size * 4  # the last layer alone
    assert counted.macs == pytest.approx(SWITCHED * 3 * group.size * behind)


def test_a_set_of_modules_is_the_work_of_each() -> None:
    parent = Parent(small.model(small.residual_net()))
    data = small.samples(small.inputs(small.residual_net().shape))
    subject = Subject.of(parent, data)
    one = subject.modules(Decompose(["a"], 0.5, compensate="refit"), 1, search=False)
    assert subject.modules(Decompose(["a"], 0.5, compensate="refit"), 3, search=False) == one * 3
    assert one.macs > len(data) * parent.cost.macs  # the parent, and what is left of it
    without = subject.modules(Decompose(["a"], 0.5, compensate="none"), 1, search=False)
    assert without.macs == without.flops == 0 and one.flops > 0
    searched = subject.modules(Decompose(["a"], compensate="refit"), 1, search=True)
    assert searched.macs > 20 * one.macs


def clock_of(spans: list[float]) -> Callable[[], float]:
    """A clock by which what is timed takes so long, one after the other."""
    ticks = iter(np.cumsum([0.0, *(each for span in spans for each in (span, 0))]).tolist())
    return lambda: float(next(ticks))


def test_a_network_that_is_slow_is_timed_on_one_sample() -> None:
    model = small.model(small.dense_net())
    data = small.samples(small.inputs(small.dense_net().shape))
    spans = [0.6, 1.6, 0.7, 0.5]  # a product, reading, and one sample, twice
    found = Speed.measured(model, 1000, data, Device(), clock=clock_of(spans))
    assert found.macs == pytest.approx(1000 / 0.5) and found.reads == pytest.approx(BATCH / 1.6)


def test_speed_is_the_median_of_a_few_batches() -> None:
    model = small.model(small.dense_net())
    data = small.samples(small.inputs(small.dense_net().shape))
    # three products, reading, a sample and a batch that warm up, four batches
    spans = [0.2, 0.1, 0.4, 2.0, 0.3, 0.4, 0.1, 0.1, 0.1, 0.3]
    found = Speed.measured(model, 1000, data, Device(), clock=clock_of(spans))
    assert found.flops == pytest.approx(2 * SIZE**3 / 0.2)
    assert found.reads == pytest.approx(BATCH / 2)
    assert found.macs == pytest.approx(1000 * BATCH / 0.1)
    work = Workload(macs=found.macs, reads=found.reads, flops=found.flops, nodes=found.nodes)
    assert found.seconds(work) == pytest.approx(4) and found.seconds(work * 2 + work) == pytest.approx(12)


def test_work_is_counted_where_shapes_are_unknown(small: Place) -> None:
    subject = Subject.of(Parent.load(small.model), None)
    known = subject.profile(None, 10).macs
    vars(subject.groups.channel_map)["shapes"] = {}
    assert not subject.groups.shapes and 0 < subject.profile(None, 10).macs <= known
