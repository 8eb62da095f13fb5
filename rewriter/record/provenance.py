"""Where a module or composite comes from: the record in its ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


class ParentRecord(BaseModel):
    """A parent, named by the hashes of its file and of its graph."""

    model_config = ConfigDict(frozen=True)

    graph_sha256: str
    file_sha256: str = ""
    labels: tuple[str, ...] = ()
    name: str | None = None
    license: str | None = None
    source: str | None = None


class Origin(BaseModel):
    """What a module or composite was made from, and how; names no time, host or path.

    ``plan`` and ``sizes``: what :class:`graft.rewriter.groups.plan.Plan` keeps of each group, and of how
    many.
    ``renamed``: what classes that are called otherwise here are called in their parent.
    ``numbers``: what class numbers without names mean, where that is not the parent's order.
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

    @classmethod
    def of(cls, origin: Origin) -> Asked:
        """Those of ``origin``.

        Raises:
            GraftError: ``module-broken``.
        """
        try:
            return cls.model_validate(origin.options)
        except ValidationError as error:
            raise broken("graft.origin of the module cannot be read") from error


def terms(parents: Sequence[ParentRecord]) -> dict[str, str | None]:
    """Licence and source of what was made from ``parents``, as a card says them."""
    licenses = dict.fromkeys(record.license for record in parents if record.license)
    sources = dict.fromkeys(record.source for record in parents if record.source)
    return {"license": "; ".join(licenses) or None, "source": "; ".join(sources) or None}


def broken(message: str) -> GraftError:
    """What to say of a module whose metadata makes no sense."""
    return GraftError("module-broken", message, "decompose the parent again")


def parent_record(model: Model) -> ParentRecord:
    """The record of ``model`` as a parent."""
    card = model.require_card()
    return ParentRecord(
        graph_sha256=model.graph_sha256(),
        file_sha256=model.file_sha256,
        labels=card.labels,
        name=card.name,
        license=card.license,
        source=card.source,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that shape a written model."""
    found = {}
    for name in ("onnx-graft", "onnx", "onnx-graphsurgeon", "onnxslim"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def stamp(model: Model, kind: str, origin: Origin, metrics: dict[str, Any] | None = None) -> None:
    """Write ``origin`` and ``metrics`` into the metadata of ``model``; other keys are kept."""
    model.metadata[FORMAT_KEY] = str(FORMAT)
    model.metadata[KIND_KEY] = kind
    model.metadata[ORIGIN_KEY] = json.dumps(origin.model_dump(mode="json"), sort_keys=True)
    model.metadata[METRICS_KEY] = json.dumps(metrics or {}, sort_keys=True)


def metrics_of(model: Model) -> dict[str, Any]:
    """What :func:`stamp` wrote as metrics; nothing where that cannot be read."""
    try:
        found = json.loads(model.metadata.get(METRICS_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def numbering(model: Model) -> tuple[str, ...] | None:
    """What class numbers without names mean for a module or composite: its parent's labels, if it has one."""
    if ORIGIN_KEY not in model.metadata:
        return None
    origin = origin_of(model)
    if origin.numbers:
        return origin.numbers
    if len(origin.parents) != 1:
        return None
    called = {old: new for new, old in origin.renamed.items()}
    return tuple(called.get(name, name) for name in origin.parents[0].labels)


def kind_of(model: Model) -> str | None:
    """``module``, ``composite``, or ``None`` for a model that Graft did not write."""
    return model.metadata.get(KIND_KEY)


def origin_of(model: Model) -> Origin:
    """The record in ``model``.

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
    """The parents of a module or composite; any other classifier is its own."""
    return origin_of(model).parents if ORIGIN_KEY in model.metadata else (parent_record(model),)
