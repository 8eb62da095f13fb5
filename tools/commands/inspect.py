"""``graft inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.passes.select.uncuttable import nothing_to_cut
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.inspection import inspection
from graft.rewriter.record.provenance import ORIGIN_KEY, origin_of
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Argument, Option, takes_options


class InspectOptions(options.ShapeOptions):
    """A file, its card, and sizes that its graph leaves open."""

    file: Annotated[Path, Argument("FILE", "A classifier, a module or a composite, an ONNX file.")]
    card: Annotated[
        Path | None, Option("Card of the model. Default: NAME.yaml beside it.", options.MODEL)
    ] = None


@takes_options(epilog="Example: graft inspect resnet20.onnx")
def command(subject: InspectOptions, output: options.PrintOptions) -> None:
    """List channel groups of FILE: what can be pruned, what cannot, and why; and the origin of a module.

    A group is a set of channels that share one numbering: one layer, or all layers of a residual
    stream. A group is named after the first node that makes it.
    """
    file = subject.file
    model = Model.load(file, subject.card)
    origin = origin_of(model) if ORIGIN_KEY in model.metadata else None
    ends = _ends(model.inputs()), _ends(model.outputs())
    report = Normalize()(model, Context())
    shapes = subject.shapes()
    model.sizes = {**model.sizes, **model.sizes_at(shapes)}
    groups = ChannelGroups(model, shapes)
    result: dict[str, Any] = {
        "classes": list(model.card.labels) if model.card else [],
        "origin": origin.model_dump(mode="json", exclude={"plan"}) if origin else None,
        "inputs": ends[0],
        "outputs": ends[1],
        "opset": model.opset,
        "ir_version": model.ir_version,
        **inspection(groups, origin.sizes if origin else None),
        "declined": list(map(str, report.declined)),
    }
    show.declined(result["declined"])
    show.emit("inspect", result, output.as_json, lambda: _show(file, result, nothing_to_cut(groups)))


def _ends(ends: dict[str, tuple[Any, tuple[int | str | None, ...]]]) -> list[dict[str, Any]]:
    return [{"name": n, "type": str(t), "shape": list(s)} for n, (t, s) in ends.items()]


def _show(file: Path, result: dict[str, Any], uncut: str) -> None:
    open_axes = result["macs_at_1_for"]
    at_one = f" at 1 for {', '.join(open_axes)}, which --input-shape gives" if open_axes else ""
    show.note(
        f"{file}: opset {result['opset']}, {show.count(result['macs'])} MACs{at_one} "
        f"({show.percent(result['cuttable_macs_ratio'], 1)} can be pruned), "
        f"{show.count(result['parameters'])} parameters "
        f"({show.percent(result['cuttable_parameters_ratio'], 1)} can be pruned)"
    )
    if result["unknown_operators"]:
        show.note(f"no rule for the MACs of {', '.join(result['unknown_operators'])}")
    if result["operators_without_rule"] and uncut:
        show.note(uncut)
    show.note("operators: " + ", ".join(f"{name} {n}" for name, n in result["operators"].items()))
    if result["classes"]:
        names = result["classes"]
        show.note(f"classes: {', '.join(names[:10])}" + (f" ... ({len(names)})" if len(names) > 10 else ""))
    if result["origin"]:
        origin = result["origin"]
        parents = ", ".join(parent["name"] or parent["graph_sha256"][:12] for parent in origin["parents"])
        show.note(f"made from {parents} for {', '.join(origin['classes'][:10])}: {origin['options']}")
    rows = [
        [
            group["name"],
            f"{group['kept']} of {group['size']}",
            str(group["cuttable"]),
            show.count(group["parameters"]),
            group["reason"] or "",
        ]
        for group in result["groups"]
    ]
    show.table("channel groups", ["group", "channels", "prunable", "parameters", "why not"], rows)
