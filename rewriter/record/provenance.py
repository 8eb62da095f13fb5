"""Provenance of a module or composite: the record in its ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model

FORMAT = 1
FORMAT_KEY = "graft.format"
KIND_KEY = "graft.kind"
ORIGIN_KEY = "graft.origin"
METRICS_KEY = "graft.metrics"
MASKED = "masked"
"""Option in the record of a module that a published method made: weights are 0, not gone."""


class ParentRecord(BaseModel):
    """A parent, named by the hashes of its file and of its graph.

    Its name is that of its card, or of its file.
    """

    model_config = ConfigDict(frozen=True)

    graph_sha256: str
    file_sha256: str = ""
    labels: tuple[str, ...] = ()
    name: str | None = None
    license: str | None = None
    source: str | None = None


class Origin(BaseModel):
    """The parents of a module or composite, and the options it was made with; no time, host or path.

    Attributes:
        parents: the models it was made from.
        classes: its classes.
        options: of the command.
        plan: channels that :class:`graft.rewriter.groups.plan.Plan` keeps, by group.
        sizes: number of channels of each group in the parent.
        renamed: name of a class here to its name in the parent, where they differ.
        numbers: names of class numbers, where they do not count in the parent's order.
        profile_sha256: hash of the profile.
        versions: of the packages that wrote it.
    """

    model_config = ConfigDict(frozen=True)

    parents: tuple[ParentRecord, ...]
    classes: tuple[str, ...]
    options: dict[str, Any] = {}
    plan: dict[str, str] = {}
    sizes: dict[str, int] = {}
    renamed: dict[str, str] = {}
    numbers: tuple[str, ...] = ()
    profile_sha256: str = ""
    versions: dict[str, str] = {}


class Asked(BaseModel):
    """The options that a module was planned with, as far as a trunk is planned alike."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str
    compensate: str
    keep: float | None = None
    unit: str = "macs"
    seed: int = 0
    round_to: int | None = None
    mirror: bool = False
    freeze: tuple[str, ...] = ()
    keep_layers: tuple[tuple[str, float], ...] = ()
    vocabulary: str = "all"

    @classmethod
    def of(cls, origin: Origin) -> Asked:
        """Read the options in the record of a module.

        Raises:
            GraftError: ``module-broken``.
        """
        try:
            return cls.model_validate(origin.options)
        except ValidationError as error:
            raise broken("graft.origin of the module cannot be read") from error


def terms(parents: Sequence[ParentRecord]) -> dict[str, str | None]:
    """Return licence and source of a model that was made from ``parents``, as a card has them."""
    licenses = dict.fromkeys(record.license for record in parents if record.license)
    sources = dict.fromkeys(record.source for record in parents if record.source)
    return {"license": "; ".join(licenses) or None, "source": "; ".join(sources) or None}


def broken(message: str) -> GraftError:
    """Return the error for a module whose metadata makes no sense."""
    return GraftError("module-broken", message, "decompose the parent again")


def parent_record(model: Model) -> ParentRecord:
    """Return the record of ``model`` as a parent."""
    card = model.require_card()
    return ParentRecord(
        graph_sha256=model.graph_sha256(),
        file_sha256=model.file_sha256,
        labels=card.labels,
        name=card.name or model.file_name or None,
        license=card.license,
        source=card.source,
    )


def versions() -> dict[str, str]:
    """Return versions of the packages that shape a written model."""
    found = {}
    for name in ("onnx-graft", "onnx", "onnx-graphsurgeon", "onnxslim"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def stamp(model: Model, kind: str, origin: Origin, metrics: dict[str, Any] | None = None) -> None:
    """Write ``origin`` and ``metrics`` into the metadata of ``model``; other keys are kept.

    Args:
        model: is changed.
        kind: ``module`` or ``composite``.
        origin: the record.
        metrics: figures of the module.
    """
    model.metadata[FORMAT_KEY] = str(FORMAT)
    model.metadata[KIND_KEY] = kind
    model.metadata[ORIGIN_KEY] = json.dumps(origin.model_dump(mode="json"), sort_keys=True)
    model.metadata[METRICS_KEY] = json.dumps(metrics or {}, sort_keys=True)


def metrics_of(model: Model) -> dict[str, Any]:
    """Return the metrics that :func:`stamp` wrote; nothing where they cannot be read."""
    try:
        found = json.loads(model.metadata.get(METRICS_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def numbering(model: Model) -> tuple[str, ...] | None:
    """Return the names of class numbers for a module or composite: the labels of its only parent."""
    if ORIGIN_KEY not in model.metadata:
        return None
    origin = origin_of(model)
    if origin.numbers:
        return origin.numbers
    if len(origin.parents) != 1:
        return None
    new_name = {old: new for new, old in origin.renamed.items()}
    return tuple(new_name.get(name, name) for name in origin.parents[0].labels)


def patched_origin(
    model: Model, classes: Sequence[str], patch: Mapping[str, object], own: str = ""
) -> Origin:
    """Return the origin of a classifier that was made of ``model`` by one more patch.

    Args:
        model: what was patched, of Graft or of others.
        classes: of the result.
        patch: what was done, added to the patches before it.
        own: class that has nothing of the model any more, nor its former name; ``""``: none.
    """
    before = origin_of(model) if ORIGIN_KEY in model.metadata else None
    options = dict(before.options) if before else {}
    options["patches"] = [*options.get("patches", []), dict(patch)]
    renamed = before.renamed if before else {}
    return Origin(
        parents=parents_of(model),
        classes=tuple(classes),
        options=options,
        renamed={new: old for new, old in renamed.items() if new in classes and new != own},
        numbers=numbering(model) or model.require_card().labels,
        versions=versions(),
    )


def kind_of(model: Model) -> str | None:
    """Return ``module``, ``composite``, or ``None`` for a model that Graft did not write."""
    return model.metadata.get(KIND_KEY)


def origin_of(model: Model) -> Origin:
    """Return the record in ``model``.

    Raises:
        GraftError: there is none, or a newer Graft wrote it.
    """
    if ORIGIN_KEY not in model.metadata:
        raise GraftError(
            "not-a-module",
            "the model carries no graft.origin: Graft did not write it",
            "name a module that 'graft decompose' wrote",
        )
    found = model.metadata.get(FORMAT_KEY, "")
    if not (found.isascii() and found.isdigit()) or len(found) > 9 or int(found) > FORMAT:
        raise GraftError(
            "module-format",
            f"the module has format {found[:20] or 'unknown'}, this Graft reads up to {FORMAT}",
            "update Graft",
        )
    try:
        origin = Origin.model_validate_json(model.metadata[ORIGIN_KEY])
        if not origin.parents or not origin.classes:
            raise ValueError("no parents or classes")
        return origin
    except (ValidationError, ValueError) as error:
        raise broken("graft.origin of the module cannot be read") from error


def parents_of(model: Model) -> tuple[ParentRecord, ...]:
    """Return the parents of a module or composite; any other classifier is its own."""
    return origin_of(model).parents if ORIGIN_KEY in model.metadata else (parent_record(model),)
