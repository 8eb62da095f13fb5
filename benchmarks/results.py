"""Measure what docs/results.md reports, and print it as Markdown.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/results.py ../shared/bench/vision

Nothing is chosen here: budgets, methods and seeds are fixed; test images only report. Times are ratios
within one run. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bench import DEVICE, Bench, points, row

from graft.passes.base import Context
from graft.passes.compose import Compose, Modules
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Verify
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.select.budget import dead_channels
from graft.passes.select.observe import BATCH, Observe
from graft.passes.trunk import Source
from graft.rewriter.data.samples import Samples
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.measure.evaluation import Scored, latencies, score
from graft.rewriter.run.session import Device

ANIMALS = ("bird", "cat", "deer", "dog", "horse")


def selection(bench: Bench) -> None:
    """ResNet-20, ten modules at --keep 0.85: methods, compensation and one plan for all classes."""
    print("\n## ResNet-20: ten modules joined as branches, `--keep 0.85`, all 10,000 test images\n")
    print(f"Parent {bench.whole.summary()['top1']:.4f}. Loss is parent minus modules in points.")
    print("Channels fall one by one (`--round-to 1`), but in the first row.\n")
    row("method", "loss, `--compensate mean`", "loss, `--compensate fold`", "mean MACs", "composed top-1")
    row("---", "---", "---", "---", "---")
    found: dict[tuple[str, str], Scored] = {}
    blocks = "relevance, blocks (default)"
    for step in ("mean", "fold"):
        reports = bench.modules(Decompose(0.85, compensate=step))
        found[blocks, step] = bench.joined(reports)
    _selection_row(bench, blocks, found, reports)
    for method, seed in (
        *(("relevance", 0), ("contrast", 0), ("activity", 0), ("magnitude", 0)),
        *(("random", 0), ("random", 1)),
    ):
        name = f"{method}, seed {seed}" if method == "random" else method
        for step in ("mean", "fold"):
            decompose = Decompose(0.85, method=method, compensate=step, seed=seed, round_to=1)
            reports = bench.modules(decompose)
            found[name, step] = bench.joined(reports)
        _selection_row(bench, name, found, reports)
    name = "one plan for all classes"
    one = Decompose(0.85, together=True, round_to=1)
    whole = one.plan(bench.parent, bench.profile, bench.card.labels)
    for step in ("mean", "fold"):
        reports = bench.modules(Decompose(0.85, compensate=step), whole)
        found[name, step] = bench.joined(reports)
    _selection_row(bench, name, found, reports)
    print()
    for better, worse in (
        *(("activity", "magnitude"), ("activity", "random, seed 0"), ("activity", "random, seed 1")),
        *(("activity", name), ("relevance", name)),
    ):
        for step in ("mean", "fold"):
            pair = metrics.paired_difference(found[better, step].correct, found[worse, step].correct)
            lead = points((100 * pair[0], 100 * pair[1]))
            print(f"- {better} ahead of {worse}, {step}: {lead} points")


def _selection_row(
    bench: Bench, name: str, found: dict[tuple[str, str], Scored], reports: Sequence[DecomposeReport]
) -> None:
    ratio = statistics.mean(report.cost.macs for report in reports) / bench.parent.cost.macs
    fold = found[name, "fold"]
    row(
        name,
        points(bench.loss(found[name, "mean"])),
        points(bench.loss(fold)),
        f"{100 * ratio:.1f} %",
        f"{fold.summary()['top1']:.4f}",
    )


def trunks(bench: Bench) -> None:
    """ResNet-20 as trunks: all classes without a budget, and five animals."""
    print("\n## ResNet-20: trunks\n")
    sources = {bench.parent.sha256: Source(bench.parent, bench.profile)}
    reports = bench.modules(Decompose(0.85))
    whole = Compose("trunk", keep=1.0)(
        Modules([report.model for report in reports], sources), Context()
    ).model
    difference = float(np.abs(score(whole, bench.test, DEVICE).scores - bench.whole.scores).max())
    print(f"- all ten classes without budget: largest difference of a logit {difference:.2g}")
    chosen = [reports[bench.card.class_index(name)].model for name in ANIMALS]
    trunk = Compose("trunk")(Modules(chosen, sources), Context()).model
    card = trunk.require_card()
    found = score(trunk, Samples.match(bench.test.split, card), DEVICE)
    restricted = score(
        bench.parent.model, Samples.match(bench.test.split, bench.card, ANIMALS), DEVICE, ANIMALS
    )
    lost = metrics.paired_difference(restricted.correct, found.correct)
    print(
        f"- {', '.join(ANIMALS)} as one trunk at `--keep 0.85` "
        f"({100 * cost_of(trunk).macs / bench.parent.cost.macs:.1f} % of the MACs): "
        f"{found.summary()['top1']:.4f}, parent restricted to them {restricted.summary()['top1']:.4f}, "
        f"loss {points((100 * lost[0], 100 * lost[1]))}"
    )
    inputs = next(bench.test.take(np.arange(32)).batches(32))[0]
    timer = Device(("cpu",), threads=2)
    runs = [(timer.open(model), inputs) for model in (bench.parent.model, trunk)]
    times = [figures["median"] for figures in latencies(runs, 2)]
    print(f"- latency of that trunk over the parent's, batch 32, 2 threads: {times[1] / times[0]:.2f}")


def law(bench: Bench) -> None:
    """The cut graph against the masked parent on random plans."""
    print("\n## ResNet-20: the law on random plans\n")
    inputs = next(bench.test.take(np.arange(8)).batches(8))[0]
    groups = bench.parent.groups
    for share in (0.2, 0.5, 0.8):
        worst = 0.0
        for seed in range(20):
            random = np.random.default_rng([seed, round(100 * share)])
            kept = ~groups.cuttable() | (random.random(groups.count) < share)
            for channels in groups.lists():
                kept[channels[0]] = True
            plan = Plan.of(groups, kept, bench.parent.sha256)
            model = bench.parent.model.copy()
            Slice(plan)(model)
            worst = max(worst, Verify(inputs, DEVICE)(bench.parent.model, plan, model).difference)
        print(f"- 20 random plans that keep {share:.0%}: largest relative difference {worst:.1e}")
    cost = CostModel(groups)
    print(f"- {100 * cost.cuttable_parameters() / cost.parameters():.2f} % of the parameters can be cut")


def dense(bench: Bench) -> None:
    """Dense networks at 80 % of the parameters that are left without dead channels."""
    dead = dead_channels(bench.parent.groups, bench.profile)
    cost = CostModel(bench.parent.groups)
    alive = cost.parameters(~dead) / cost.parameters()
    keep = 0.8 * alive
    print(f"\n## {bench.name}: `--keep-by parameters --keep {keep:.4f}`, all 10,000 test images\n")
    print(
        f"{int(dead.sum())} of {sum(g.size for g in bench.parent.groups if g.cuttable.any())} units are "
        f"zero for every training sample; {100 * alive:.1f} % of the parameters are left without them, "
        f"and 80 % of these are kept. Parent {bench.whole.summary()['top1']:.4f}.\n"
    )
    row("method", "loss", "mean parameters")
    row("---", "---", "---")
    plan = Decompose(keep, "parameters", together=True).plan(bench.parent, bench.profile, bench.card.labels)
    for name, method, given in (
        *(("relevance", "relevance", None), ("contrast", "contrast", None)),
        *(("activity", "activity", None), ("random", "random", None)),
        ("one plan for all classes", "relevance", plan),
    ):
        reports = bench.modules(Decompose(keep, "parameters", method=method), given)
        ratio = statistics.mean(report.cost.parameters for report in reports) / bench.parent.cost.parameters
        row(name, points(bench.loss(bench.joined(reports))), f"{100 * ratio:.1f} %")


def profiling(bench: Bench) -> None:
    """Time of profiling over plain inference on the same samples, in turn."""
    plain = DEVICE.open(bench.parent.model)

    def infer() -> None:
        for inputs, _ in bench.train.batches(BATCH):
            plain.run(inputs)

    def profile() -> None:
        Observe(DEVICE)(bench.parent.model, bench.train, bench.parent.sha256, "")

    ratios = []
    for _ in range(5):
        ratios.append(_seconds(profile) / _seconds(infer))
    print(
        f"\n## Profiling\n\n- {bench.name}, {len(bench.train)} samples, batch {BATCH}: "
        f"{statistics.median(ratios):.2f} times plain onnxruntime inference "
        f"(median of 5, {min(ratios):.2f} to {max(ratios):.2f})"
    )


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Run everything, or the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["resnet", "dense", "profiling", "trunks"])
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0 unless named.")
    if chosen.only != "dense":
        resnet = Bench(chosen.folder, "resnet20_cifar10", "cifar10")
        sections = {"profiling": (profiling,), "trunks": (trunks,)}
        for section in sections.get(chosen.only, (profiling, law, trunks, selection)):
            section(resnet)
    if chosen.only in (None, "dense"):
        dense(Bench(chosen.folder, "dense_mnist_4", "mnist"))
        dense(Bench(chosen.folder, "dense_fmnist_4", "fmnist"))


if __name__ == "__main__":
    main()
