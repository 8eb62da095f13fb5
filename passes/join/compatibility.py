"""Compatibility of modules: combinations that are refused, and the work that a composite may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graft.passes.join.network import class_summary
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.provenance import Origin, ParentRecord, broken, metrics_of, origin_of


def check_classes(
    modules: Sequence[Model], origins: Sequence[Origin], rename: Sequence[Mapping[str, str]]
) -> None:
    """Raise unless there are modules, each of one parent, and no two of them for one class.

    Args:
        modules: that ``decompose`` or ``compose`` wrote.
        origins: of each module.
        rename: for each module, old name to new name of its classes.

    Raises:
        GraftError: ``nothing-to-join``, ``composite-of-several``, ``class-name`` or ``class-twice``.
    """
    if not modules:
        raise GraftError("nothing-to-join", "no modules were named", "name modules or a DIR of them")
    seen: dict[str, ParentRecord] = {}
    for module, origin, names in zip(modules, origins, rename, strict=True):
        if not set(origin.classes) <= set(module.require_card().labels):
            raise broken("graft.origin names classes that the module's card lacks")
        if len(origin.parents) > 1:
            raise GraftError(
                "composite-of-several",
                f"the composite of {', '.join(origin.classes[:3])} was joined from several parents already",
                "name the modules that it was joined from",
            )
        for name in (names.get(name, name) for name in origin.classes):
            if name == OTHER and OTHER not in origin.classes:
                raise GraftError("class-name", f"no class can be called {OTHER}", "choose another name")
            if name in seen:
                one, two = (display_name(record) for record in (seen[name], origin.parents[0]))
                raise GraftError(
                    "class-twice",
                    f"two modules are for class '{name}': one of {one}, one of {two}",
                    "leave one of them out, or call one otherwise: PREFIX=PATH for all classes of a module, "
                    f"or --rename A=B, such as --rename '{name}=NAME', for that of the last one",
                )
            seen[name] = origin.parents[0]


def check_kinds(first: Card, card: Card, same_parent: bool) -> None:
    """Raise unless samples for one can be samples for the other.

    Args:
        first: card of a module.
        card: card of another one.
        same_parent: they are of one parent, so that tokens mean the same.

    Raises:
        GraftError: ``inputs-differ``, ``outputs-differ`` or ``vocabularies-differ``.
    """
    pair = f"the modules of {class_summary(first)} and {class_summary(card)}"
    kinds = [sorted({each.kind for each in found.inputs}) for found in (first, card)]
    if kinds[0] != kinds[1]:
        raise GraftError(
            "inputs-differ",
            f"{pair} take different kinds of input: {' and '.join(kinds[0])}, {' and '.join(kinds[1])}",
            "join modules for the same kind of data",
        )
    if first.output.steps != card.output.steps:
        raise GraftError(
            "outputs-differ",
            f"{pair} do not both give one label a time step",
            "join modules whose outputs agree in steps",
        )
    for one, two in zip(first.inputs, card.inputs, strict=False):
        if "tokens" not in (one.kind, two.kind) or same_parent:
            continue
        if one.vocabulary is None or one.vocabulary != two.vocabulary:
            raise GraftError(
                "vocabularies-differ",
                f"{pair} read tokens by the vocabularies {one.vocabulary or 'unknown'} and "
                f"{two.vocabulary or 'unknown'} of their cards",
                "if the numbers mean the same words, say so: vocabulary: NAME in the input of both "
                "parents' cards",
            )


def batch_of(models: Sequence[Model]) -> int | None:
    """Return the fixed batch of one of ``models``, and so of all of them together; ``None``: it is free.

    Raises:
        GraftError: ``batches-differ``.
    """
    sizes = set()
    for model in models:
        axes = model.sample_axes()
        for name, (_, shape) in model.inputs().items():
            axis = axes[name]
            sizes |= {shape[axis]} if axis is not None and axis < len(shape) else set()
    found = sorted(size for size in sizes if isinstance(size, int))
    if len(found) > 1:
        raise GraftError(
            "batches-differ",
            f"one parent takes {found[0]} samples at once, another {found[-1]}",
            "export them with a free batch dimension",
        )
    return found[0] if found else None


def signature(module: Model, batch: bool = True) -> tuple[object, ...]:
    """Return what makes inputs the same: their cards, types and sizes; with ``batch`` its size, too."""
    card, inputs, axes = module.require_card(), module.inputs(), module.sample_axes()
    return tuple(
        (
            each.model_copy(update={"name": ""}),
            str(inputs[each.name][0]),
            tuple(
                size if isinstance(size, int) else None
                for axis, size in enumerate(inputs[each.name][1])
                if batch or axis != axes[each.name]
            ),
        )
        for each in card.inputs
    )


def display_name(record: ParentRecord, default: str = "") -> str:
    """Return the name of a parent, or the first digits of its hash."""
    return record.name or (f"parent {(default or record.graph_sha256)[:8]}")


def parents_macs(modules: Sequence[Model]) -> int:
    """Return the multiply-accumulates of the distinct parents of ``modules``, as these remember them."""
    found = {}
    for module in modules:
        kept = metrics_of(module).get("macs_ratio")
        if kept:
            found[origin_of(module).parents[0].graph_sha256] = round(cost_of(module).macs / kept)
    return sum(found.values())
