"""``graft inspect``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from graft.passes.normalize.simplify import Normalize
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.operators import Pinning, operator_of
from graft.rewriter.record.provenance import ORIGIN_KEY, Origin, origin_of
from graft.tools import console as show
from graft.tools import options


@click.command(epilog="Example: graft inspect resnet20.onnx")
@click.argument("file", type=click.Path(path_type=Path))
@options.card
@click.option(
    "--input-shape",
    multiple=True,
    metavar="NAME:1,3,224,224",
    help="Shape of an input whose dimensions (beside the batch) are free; repeatable.",
)
@options.common
def command(file: Path, card: Path | None, input_shape: tuple[str, ...], as_json: bool) -> None:
    """What can be cut in FILE, what cannot and why; where a module comes from.

    A group is a set of channels that share one numbering: one layer, or all layers of a residual
    stream. A group is named after the first node that makes it.
    """
    model = Model.load(file, card)
    origin = origin_of(model) if ORIGIN_KEY in model.metadata else None
    ends = _ends(model.inputs()), _ends(model.outputs())
    Normalize()(model)
    groups = ChannelGroups(model, _shapes(model, input_shape))
    cost = CostModel(groups)
    parameters = cost.parameters()
    result: dict[str, Any] = {
        "classes": list(model.card.labels) if model.card else [],
        "origin": origin.model_dump(mode="json", exclude={"plan"}) if origin else None,
        "inputs": ends[0],
        "outputs": ends[1],
        "opset": model.opset,
        "ir_version": model.ir_version,
        "macs": cost.macs(),
        "parameters": parameters,
        "operators": dict(Counter(node.op for node in groups.nodes).most_common()),
        "operators_without_rule": sorted(
            {node.op for node in groups.nodes if isinstance(operator_of(node), Pinning)}
        ),
        "groups": _groups(groups, cost, origin),
        "cuttable_parameters_ratio": cost.cuttable_parameters() / max(1, parameters),
        "cuttable_macs_ratio": cost.cuttable_macs() / max(1, cost.macs()),
    }
    show.emit("inspect", result, as_json, lambda: _show(file, result))


def _shapes(model: Model, given: tuple[str, ...]) -> dict[str, list[int]]:
    """The shapes of ``--input-shape``, which have to fit the model."""
    shapes = dict(map(_shape, given))
    for name, shape in shapes.items():
        known = model.inputs().get(name, (None, None))[1]
        fits = known is not None and len(known) == len(shape)
        if (
            known is None
            or not fits
            or any(isinstance(fixed, int) and fixed != size for fixed, size in zip(known, shape, strict=True))
        ):
            raise GraftError(
                "shape-unfit",
                f"the model has no input {name} that takes the shape {shape}",
                f"its inputs are {', '.join(f'{n} {list(s)}' for n, (_, s) in model.inputs().items())}",
            )
    return shapes


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.rpartition(":")
    try:
        shape = [int(size) for size in sizes.replace("x", ",").split(",")]
        if not name or min(shape) < 1:
            raise ValueError
    except ValueError as error:
        raise GraftError(
            "shape-unreadable",
            f"expected a shape such as input:1,3,224,224, found {text}",
            "give the name of the input and its sizes",
        ) from error
    return name, shape


def _ends(ends: dict[str, tuple[Any, tuple[int | str | None, ...]]]) -> list[dict[str, Any]]:
    return [{"name": n, "type": str(t), "shape": list(s)} for n, (t, s) in ends.items()]


def _groups(groups: ChannelGroups, cost: CostModel, origin: Origin | None) -> list[dict[str, Any]]:
    """The groups; those of a module with their size in the parent."""
    parameters = cost.parameters_by_group()
    sizes = origin.sizes if origin else {}
    return [
        {
            "name": group.name,
            "size": sizes.get(group.name, group.size),
            "kept": group.size,
            "cuttable": int(group.cuttable.sum()),
            "parameters": parameters[group.name],
            "reason": group.reason or None,
        }
        for group in groups
    ]


def _show(file: Path, result: dict[str, Any]) -> None:
    show.note(
        f"{file}: opset {result['opset']}, {show.count(result['macs'])} MACs "
        f"({show.percent(result['cuttable_macs_ratio'], 1)} can be cut), "
        f"{show.count(result['parameters'])} parameters "
        f"({show.percent(result['cuttable_parameters_ratio'], 1)} can be cut)"
    )
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
    show.table("channel groups", ["group", "channels", "cuttable", "parameters", "why not"], rows)
