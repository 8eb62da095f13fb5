"""``graft compose``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graft.passes.compose import STRATEGIES, Compose, Source
from graft.passes.decompose import Parent
from graft.passes.verify import check
from graft.rewriter.calibration import Samples
from graft.rewriter.cost import cost_of
from graft.rewriter.dataset import Dataset
from graft.rewriter.errors import GraftError
from graft.rewriter.evaluation import score
from graft.rewriter.model import Model, refuse_overwrite
from graft.rewriter.origin import origin_of
from graft.rewriter.profile import OTHER
from graft.rewriter.session import Device
from graft.tools import options, parents, show
from graft.tools.directory import PARENT, PROFILE, load_module, module_files, parent_beside


@click.command(epilog="Example: graft compose modules/cat.onnx modules/dog.onnx -o pets.onnx")
@click.argument("modules", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.data(required=False)
@click.option(
    "--strategy",
    default="auto",
    type=click.Choice(STRATEGIES),
    show_default=True,
    help="trunk: one network for modules of one parent; branches: side by side.",
)
@click.option("--keep", type=options.Share(), help="Budget of a trunk. Default: the largest of its modules.")
@click.option("--other", is_flag=True, help="A trunk gets one more column, (other).")
@click.option("--parent", type=click.Path(path_type=Path), help="Default: beside the modules.")
@click.option("--profile", type=click.Path(path_type=Path), help="Default: beside the modules.")
@options.test_split
@click.option("--no-verify", is_flag=True, help="Do not compare a trunk with its masked parent.")
@options.running
@options.writing("The model to write.")
@options.common
def command(
    modules: tuple[Path, ...],
    data: Path | None,
    strategy: str,
    keep: float | None,
    other: bool,
    parent: Path | None,
    profile: Path | None,
    test_split: str,
    no_verify: bool,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Join MODULES, files or folders that 'graft decompose' wrote, into one classifier.

    Modules of one parent are planned anew as one set and share one trunk: together they cost no more
    than the parent. With --data the result is also measured on the test split.
    """
    refuse_overwrite(output, force)
    files = module_files(modules)
    loaded = [load_module(file) for file in files]
    sources = {} if strategy == "branches" else _sources(loaded, files, parent, profile)
    report = Compose(strategy, keep, other, None if no_verify else device)(loaded, sources)
    check(report.model)
    session = device.open(report.model)
    cost = cost_of(report.model)
    origin = origin_of(report.model)
    result: dict[str, Any] = {
        "output": output,
        "strategy": report.strategy,
        "strategy_reason": report.reason,
        "classes": list(origin.classes),
        "parents": [record.model_dump(mode="json", exclude={"labels"}) for record in origin.parents],
        "modules": [
            {"file": file, "classes": list(origin_of(m).classes)}
            for file, m in zip(files, loaded, strict=True)
        ],
        "macs": cost.macs,
        "parameters": cost.parameters,
        "providers": list(session.providers),
    }
    if data:
        card = report.model.require_card()
        labels = origin.parents[0].labels
        names = [name for name in card.labels if name != OTHER]
        chosen = None if OTHER in card.labels else names
        samples = Samples.match(Dataset.load(data).split(test_split), card, chosen, names=labels)
        result["top1"] = score(report.model, samples, device).summary()["top1"]
        result["samples"] = len(samples)
    if not dry_run:
        report.model.save(output, force)
        result["bytes"] = output.stat().st_size
    show.emit("compose", result, as_json, lambda: _show(result))


def _sources(
    modules: list[Model], files: list[Path], parent: Path | None, profile: Path | None
) -> dict[str, Source]:
    """The parent and profile that were named, or lie beside the modules, if they are theirs."""
    folder = parent_beside(files)
    parent = parent or (folder / PARENT if folder else None)
    profile = profile or (folder / PROFILE if folder else None)
    if parent is None or profile is None:
        return {}
    wanted = {record.graph_sha256 for module in modules for record in origin_of(module).parents}
    model = Model.load(parent)
    model.card = model.require_card(parent)
    if model.graph_sha256() not in wanted:
        if folder is None or parent != folder / PARENT:
            raise GraftError(
                "parent-of-another", f"{parent} is not the parent of these modules", "name their parent"
            )
        return {}
    ready = Parent(model)
    return {ready.sha256: Source(ready, parents.matching_profile(profile, ready))}


def _show(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: {len(result['classes'])} classes as {result['strategy']} "
        f"({result['strategy_reason']}), {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters"
    )
    if "top1" in result:
        show.note(f"top-1 {show.percent(result['top1'])} on {result['samples']} test samples")
