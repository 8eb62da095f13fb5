"""All passes follow one protocol: configuration only, data in the context, no report dropped."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import Any, get_type_hints

import numpy as np
import pytest

import graft.passes
from graft.passes.base import Context, Declined, Report
from graft.passes.compare.fitting import READ
from graft.passes.compare.joint_head import JointHead
from graft.passes.compare.reject import Reject
from graft.passes.compensate.fold import Fold
from graft.passes.compensate.refit import Refit
from graft.passes.compose import Compose, Modules
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Verify
from graft.passes.decompose import Decompose
from graft.passes.join.adapt import Adapt, raw_input
from graft.passes.join.convert import Convert
from graft.passes.join.deduplicate import Deduplicate
from graft.passes.join.merge import Meet
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.join.push_gather import PushGather
from graft.passes.join.side_by_side import SideBySide
from graft.passes.modularize import Modularize
from graft.passes.normalize.simplify import Normalize
from graft.passes.parent import Parent
from graft.passes.remove import Remove
from graft.passes.replace import Replace
from graft.passes.select.budget import Budget
from graft.passes.trunk import Trunk
from graft.rewriter.card.card import InputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device
from tests import small
from tests.passes.compare.test_joint_head import modules, split
from tests.passes.test_replace import module, parent
from tests.small import CPU

DATA = (Samples, Split, Profile, Model, Device)


def passes() -> list[type]:
    """Every public class of the package that is called with a subject and a context."""
    found = []
    for entry in pkgutil.walk_packages(graft.passes.__path__, "graft.passes."):
        for name, each in vars(import_module(entry.name)).items():
            own = inspect.isclass(each) and each.__module__ == entry.name and not name.startswith("_")
            call = vars(each).get("__call__") if own else None
            if call is not None and not getattr(each, "_is_protocol", False):
                found.append(each)
    return found


def test_passes_are_found() -> None:
    names = {each.__name__ for each in passes()}
    assert {"Compose", "Decompose", "Replace", "Remove", "Normalize", "Slice", "Adapt", "Reject"} <= names
    assert len(names) > 20


@pytest.mark.parametrize("kind", passes(), ids=lambda kind: kind.__name__)
def test_a_pass_holds_configuration_only_and_returns_a_report(kind: type) -> None:
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    hints = get_type_hints(kind)
    for field in fields(kind):
        words = str(hints[field.name])
        assert not any(f"{each.__module__}.{each.__name__}" in words for each in DATA), field.name
    signature = inspect.signature(kind.__call__)
    assert list(signature.parameters)[2:] == ["context"]
    given = get_type_hints(kind.__call__)
    assert given["context"] is Context and issubclass(given["return"], Report)


# -------------------------------------------------------------------- in place


def picked() -> Model:
    """Two equal branches, and columns of a concatenation of which some are picked."""
    net = small.Net(6)
    weight = net.weight("w", 6, 3)
    parts = [net.node("MatMul", name, "x", weight) for name in ("one", "two")]
    net.node("Gather", "y", net.node("Concat", "all", *parts, axis=1), net.ints("columns", 0, 2), axis=1)
    model = Model.from_proto(net.proto(y=[2]), small.card("ab"))
    model.refresh_shapes()
    return model


def image() -> Model:
    card = InputCard.model_validate(
        {"name": "x", "kind": "image", "layout": "NCHW", "color": "RGB", "size": [6, 6], "scale": 0.5}
    )
    net = small.Net(3, 6, 6)
    net.node("Flatten", "y", "x")
    return Model.from_proto(
        net.proto(y=[108]), small.card([str(n) for n in range(108)]).replace(inputs=(card,))
    )


def foldable() -> Model:
    net = small.Net(6)
    net.gemm("y", net.node("Identity", "same", net.node("Relu", "relu", net.gemm("dense", "x", 8, 6))), 4, 8)
    return small.model(net)


IN_PLACE: dict[str, tuple[Callable[[Model, Context], Report], Callable[[], Model]]] = {
    "Adapt": (Adapt(raw_input([image().require_card().inputs[0]])), image),
    "Convert": (Convert(18), picked),
    "Deduplicate": (Deduplicate(), picked),
    "Head": (Head(("a",)), lambda: small.model(small.dense_net())),
    "Normalize": (Normalize(), foldable),
    "PushGather": (PushGather(), picked),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_passes_in_place_change_their_subject_alone(name: str) -> None:
    """Copies stay as they are, equal subjects become equal, and the report counts what was changed."""
    run, make = IN_PLACE[name]
    models = make(), make()
    copy = models[0].copy()
    before = copy.proto().SerializeToString(deterministic=True)
    reports = [run(model, Context(device=CPU)) for model in models]
    assert reports[0] == reports[1] and reports[0].changed > 0
    one, two = (model.proto().SerializeToString(deterministic=True) for model in models)
    assert one == two != before
    assert copy.proto().SerializeToString(deterministic=True) == before


# -------------------------------------------------------------------- no report is dropped


@pytest.fixture
def declining(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Declined]:
    """Let all passes of a class decline something."""

    def let(kind: Any) -> Declined:
        call, declined = kind.__call__, Declined(f"somewhere in {kind.__name__}", "a reason")

        def wrapped(self: Any, subject: Any, context: Context) -> Any:
            report = call(self, subject, context)
            return replace(report, declined=(*report.declined, declined))

        monkeypatch.setattr(kind, "__call__", wrapped)
        return declined

    return let


def taught() -> tuple[Parent, Context]:
    """A parent, and what its modules are made from."""
    found = parent(0)
    samples = small.samples(small.inputs([6], 80), of=found.card)
    return found, small.context(small.profile(found.model, samples, found.sha256), samples)


@pytest.mark.parametrize("kind", [Head, Budget, Fold, Slice, Verify, Refit])
def test_what_is_declined_on_the_way_to_a_module_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    (found, context), declined = taught(), declining(kind)
    report = Decompose(["a"], 0.5, compensate="refit", verify=True)(found, context)
    assert declined in report.declined


@pytest.mark.parametrize("kind", [Decompose, Convert])
def test_what_is_declined_on_the_way_to_several_modules_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    (found, context), declined = taught(), declining(kind)
    report = Modularize((("a",), ("b",)), Decompose((), 0.5))(found, context)
    assert [declined in module.declined for module in report.modules] == [True, True]
    assert report.declined.count(declined) == 2


@pytest.mark.parametrize(
    "kind", [Meet, Convert, Deduplicate, SideBySide, JointHead, Reject, Trunk, Fold, Head, Slice]
)
def test_what_is_declined_on_the_way_to_a_composite_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    found, sources = modules()
    declined = declining(kind)
    compose = Compose(strategy="trunk", keep=0.7, other=True)
    report = compose(Modules(found, sources), Context(data=split(800, 2), device=CPU))
    assert declined in report.declined
    assert READ not in {tensor.name for tensor in report.model.graph.outputs}


@pytest.mark.parametrize("kind", [Meet, Convert, Deduplicate, PushGather])
def test_what_is_declined_on_the_way_to_a_patch_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    base, newcomer = parent(0).source, Newcomer(module(parent(1), "b"), "b", "b")
    declined = declining(kind)
    assert declined in Replace()(Patch(base, newcomer, "b"), Context(device=CPU)).declined


@pytest.mark.parametrize("kind", [Head, PushGather, Deduplicate])
def test_what_is_declined_while_classes_are_removed_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    base, declined = parent(0).source, declining(kind)
    report = Remove(["b"])(base, Context(device=CPU))
    assert declined in report.declined and np.isfinite(report.changed) and report.changed == 1
