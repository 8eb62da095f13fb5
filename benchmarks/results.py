"""Measure what docs/results.md reports of single networks: methods, trunks, the law, time of profiling.

    python -m benchmarks.results [--json results.json] [--only selection]

Budgets, methods and seeds are fixed. Times are ratios within one run. Takes about 20 minutes on two cores.
"""  # fmt: skip

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.common import (
    DENSE,
    DEVICE,
    RESNET,
    Bench,
    Run,
    compose,
    difference,
    percent,
    points,
    start,
    time_ratio,
    top1,
)
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Pruned, Verify
from graft.passes.decompose import DecomposeReport
from graft.passes.select.budget import dead_channels
from graft.passes.select.observe import BATCH, Observe
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.measure.evaluation import Scored

ANIMALS = ("bird", "cat", "deer", "dog", "horse")
KEEP = 0.85
STEPS = ("mean", "fold")
ONE_PLAN = "one plan for all classes"
Found = dict[tuple[str, str], Scored]


def selection(run: Run) -> None:
    """ResNet-20, ten modules at --keep 0.85: methods, compensation and one plan for all classes."""
    bench = run.bench(RESNET)
    run.output.section(f"ResNet-20 ({percent(top1(bench.whole))}): ten modules as branches, `--keep {KEEP}`")
    run.output.note("channels are pruned one by one (`--round-to 1`), but in the first row")
    run.output.header(
        *("method", "difference, `--compensate mean`", "difference, `--compensate fold`"),
        *("mean MACs", "composed top-1 (fold)"),
    )
    found: Found = {}
    rows: list[tuple[str, dict[str, object]]] = [
        ("relevance, blocks (default)", {}),
        *(
            (name, {"method": name, "round_to": 1})
            for name in ("relevance", "contrast", "activity", "magnitude")
        ),
        *((f"random, seed {seed}", {"method": "random", "round_to": 1, "seed": seed}) for seed in (0, 1)),
    ]
    for name, options in run.some(rows):
        _selection_row(run, bench, name, found, options)
    if run.few is None:
        whole = bench.plan(bench.card.labels, keep=KEEP, together=True, round_to=1)
        _selection_row(run, bench, ONE_PLAN, found, {}, whole)
        _leads(run, found)


def _selection_row(
    run: Run, bench: Bench, name: str, found: Found, options: dict[str, object], plan: Plan | None = None
) -> None:
    reports: Sequence[DecomposeReport] = ()
    for step in STEPS:
        reports = bench.modules(plan, keep=KEEP, compensate=step, **options)
        found[name, step] = bench.joined(reports)
    share = statistics.mean(report.cost.macs for report in reports) / bench.parent.cost.macs
    cells = [points(bench.difference(found[name, step])) for step in STEPS]
    run.output.row(name, *cells, percent(share, 1), percent(top1(found[name, "fold"])))


def _leads(run: Run, found: Found) -> None:
    for one, other in (
        *(("activity", "magnitude"), ("activity", "random, seed 0"), ("activity", "random, seed 1")),
        *(("activity", ONE_PLAN), ("relevance", ONE_PLAN)),
    ):
        for step in STEPS:
            lead = points(difference(found[one, step], found[other, step]))
            run.output.note(f"{one} against {other}, {step}: {lead} points")


def trunks(run: Run) -> None:
    """ResNet-20 as trunks: all classes without a budget, and five animals."""
    bench = run.bench(RESNET)
    run.output.section("ResNet-20: trunks")
    modules = [report.model for report in bench.modules(keep=KEEP)]
    whole = compose(modules, bench.source(), strategy="trunk", keep=1.0).model
    largest = float(np.abs(bench.score(whole).scores - bench.whole.scores).max())
    run.output.note(f"all ten classes without budget: largest difference of a logit {largest:.2g}")
    chosen = [modules[bench.card.class_index(name)] for name in ANIMALS]
    trunk = compose(chosen, bench.source(), strategy="trunk").model
    found, restricted = bench.score(trunk), bench.score(bench.parent.model, ANIMALS)
    run.output.note(
        f"{', '.join(ANIMALS)} as one trunk at `--keep {KEEP}` "
        f"({percent(cost_of(trunk).macs / bench.parent.cost.macs, 1)} of the MACs): {percent(top1(found))}, "
        f"parent restricted to them {percent(top1(restricted))}, "
        f"difference {points(difference(found, restricted))}"
    )
    ratio = time_ratio(trunk, bench.parent.model, bench.test)
    run.output.note(f"latency of that trunk over the parent's, batch 32, 2 threads: {ratio:.2f}")


def law(run: Run) -> None:
    """The cut graph against the masked parent on random plans."""
    bench = run.bench(RESNET)
    run.output.section("ResNet-20: the law on random plans")
    inputs = next(bench.test.take(np.arange(8)).batches(8))[0]
    groups, seeds = bench.parent.groups, run.some(range(20))
    for share in (0.2, 0.5, 0.8):
        worst = 0.0
        for seed in seeds:
            random = np.random.default_rng([seed, round(100 * share)])
            kept = ~groups.cuttable() | (random.random(groups.count) < share)
            for channels in groups.lists():
                kept[channels[0]] = True
            plan = Plan.of(groups, kept, bench.parent.sha256)
            cut = bench.parent.analysed.copy()
            Slice(plan)(cut, bench.context)
            pruned = Pruned(bench.parent.analysed, plan, cut.model, inputs)
            worst = max(worst, Verify()(pruned, bench.context).difference or 0.0)
        run.output.note(f"{len(seeds)} random plans that keep {share:.0%}: largest error {worst:.1e}")
    cost = CostModel(groups)
    share = cost.cuttable_parameters() / cost.parameters()
    run.output.note(f"{percent(share)} of the parameters can be cut")


def dense(run: Run) -> None:
    """Dense networks at 80 % of the parameters that are left without dead channels."""
    for name in DENSE:
        _dense(run, run.bench(name))


def _dense(run: Run, bench: Bench) -> None:
    dead = dead_channels(bench.parent.groups, bench.profile)
    cost = CostModel(bench.parent.groups)
    alive = cost.parameters(~dead) / cost.parameters()
    keep = 0.8 * alive
    run.output.section(
        f"{bench.name} ({percent(top1(bench.whole))}): `--keep-by parameters --keep {keep:.4f}`"
    )
    units = sum(group.size for group in bench.parent.groups if group.cuttable.any())
    run.output.note(
        f"{int(dead.sum())} of {units} units are zero for every training sample; {percent(alive, 1)} of the "
        "parameters are left without them, and 80 % of these are kept"
    )
    run.output.header("method", "difference", "mean parameters")
    options = {"keep": keep, "unit": "parameters"}
    plan = bench.plan(bench.card.labels, together=True, **options)
    methods = [(each, each, None) for each in ("relevance", "contrast", "activity", "random")]
    for name, method, given in run.some([*methods, (ONE_PLAN, "relevance", plan)]):
        reports = bench.modules(given, method=method, **options)
        share = statistics.mean(report.cost.parameters for report in reports) / bench.parent.cost.parameters
        run.output.row(name, points(bench.difference(bench.joined(reports))), percent(share, 1))


def profiling(run: Run) -> None:
    """Time of profiling over plain inference on the same samples, in turn."""
    bench = run.bench(RESNET)
    plain = DEVICE.open(bench.parent.model)

    def infer() -> None:
        for inputs, _ in bench.train.batches(BATCH):
            plain.run(inputs)

    def profile() -> None:
        Observe()(bench.parent, bench.context)

    ratios = [_seconds(profile) / _seconds(infer) for _ in range(5)]
    run.output.section("Time of profiling")
    run.output.note(
        f"{bench.name}, {len(bench.train)} samples, batch {BATCH}: {statistics.median(ratios):.2f} times "
        f"plain onnxruntime inference (median of 5, {min(ratios):.2f} to {max(ratios):.2f})"
    )


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


SECTIONS = {each.__name__: each for each in (profiling, law, trunks, selection, dense)}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
