"""All passes follow one protocol: configuration only, data in the context, no report dropped."""

from __future__ import annotations

import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import Any, get_type_hints

import numpy as np
import pytest

import graft.passes
from graft.passes.base import Context, Declined, Report
from graft.passes.budget_search import BudgetSearch
from graft.passes.compare import Comparison
from graft.passes.compare.calibrate import Calibrate, Calibrated
from graft.passes.compare.fitting import READ
from graft.passes.compare.joint_head import Joint, JointHead
from graft.passes.compare.reject import Reject
from graft.passes.compare.score import Logits
from graft.passes.compensate.fold import Fold
from graft.passes.compensate.refit import Refit
from graft.passes.compose import Compose
from graft.passes.curve import Curve
from graft.passes.cut.head import Head
from graft.passes.cut.language import Language, Restrict, words_of
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Pruned, Verify
from graft.passes.cut.vocabulary import Vocabulary
from graft.passes.decompose import Decompose
from graft.passes.join.adapt import Adapt, raw_input
from graft.passes.join.convert import Convert
from graft.passes.join.deduplicate import Deduplicate
from graft.passes.join.languages import JoinLanguages
from graft.passes.join.merge import Meet
from graft.passes.join.network import Network
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.join.push_gather import PushGather
from graft.passes.join.side_by_side import SideBySide
from graft.passes.languages import Languages
from graft.passes.mask import Mask
from graft.passes.modularize import Modularize
from graft.passes.networks import Modules
from graft.passes.new_class import NewClass
from graft.passes.normalize.free_batch import FreeBatch
from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.passes.normalize.recurrent_loops import RaiseLoops
from graft.passes.normalize.simplify import Normalize
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.passes.remove import Remove
from graft.passes.replace import Replace
from graft.passes.select.budget import Budget, Candidates
from graft.passes.select.continuous import Continuous
from graft.passes.select.latency_budget import LatencyBudget, Timeable
from graft.passes.select.observe import Observe
from graft.passes.trunk import Siblings, Trunk
from graft.rewriter.card.card import InputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device
from tests import small, translator
from tests.passes.compare.test_joint_head import FIRST, SECOND, modules, split
from tests.passes.cut.test_vocabulary import text, tokens
from tests.passes.normalize.test_free_batch import lstm as lstm_of_batch
from tests.passes.normalize.test_recurrent_loops import looped, lstm
from tests.passes.select.test_latency_budget import Biased
from tests.passes.select.test_latency_budget import Case as LatencyCase
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


def dense() -> Model:
    return small.model(small.dense_net())


def rejecting() -> Model:
    return readable(Logits(), rejects=True)


def readable(comparison: Comparison, rejects: bool = False) -> Model:
    """Two networks side by side, with the output that a fit reads."""
    context = Context(data=split(800, 2), device=CPU)
    return SideBySide(FIRST + SECOND, comparison, rejects)(networks(), context).model


def networks() -> list[Network]:
    return [Network(model.copy(), False, [number]) for number, model in enumerate(modules()[0])]


def fitting() -> Context:
    """Samples of all eight classes."""
    data, card = split(800, 2), rejecting().require_card()
    return Context(
        data=data, samples=Samples.match(data, card.replace(labels=FIRST + SECOND)), device=CPU, seed=1
    )


@functools.cache
def known() -> Context:
    """Samples of ``parent(0)``, others that are held out, and the profile."""
    of = parent(0)
    samples, held_out = (Samples.match(split(400, n), of.card, names=FIRST + SECOND) for n in (1, 2))
    profile = small.profile(of.model, samples, of.sha256)
    return small.context(profile, samples, seed=1, held_out=held_out, data=split(400, 1))


def headed() -> Analysed:
    return Analysed.of(parent(0).model.copy())


def planned(*removed: int) -> Plan:
    return small.plan(headed().model, dense=removed)


def pruned(*removed: int) -> Pruned:
    cut = headed()
    Slice(planned(*removed))(cut, small.context())
    return Pruned(headed(), planned(*removed), cut.model)


def layerless() -> Pruned:
    """Nothing that could be refitted."""
    net = small.Net(6)
    net.node("Relu", "y", "x")
    card = parent(0).card.replace(labels=tuple("abcdef"))
    whole, cut = (Analysed.of(Model.from_proto(net.proto(y=[6]), card)) for _ in range(2))
    return Pruned(whole, small.plan(whole.model), cut.model)


def timeable() -> Timeable:
    case = LatencyCase()
    table: Any = Biased(case.cost.macs(), 1.0)
    return Timeable(case.candidates, case.analysed, table)


def weighed() -> Candidates:
    case = LatencyCase()
    return replace(case.candidates, cost=case.cost, whole=case.cost.macs())


def patch() -> Patch:
    return Patch(parent(0).source, Newcomer(module(parent(1), "b"), "b", "b"), "b")


def siblings() -> Siblings:
    found, sources = modules()
    modules_of_one = Modules(found[:1], sources)
    return Siblings(modules_of_one.origins, next(iter(sources.values())), True)


@dataclass(frozen=True)
class Case:
    """A pass, and what it is called with.

    Attributes:
        run: the pass.
        make: makes the subject; subjects are equal.
        context: makes the context.
        changes: the models of a subject that the pass changes; ``None``: it makes a model or a figure.
        idle: a pass and a subject without anything to change; ``None``: what the pass has changed already.
    """

    run: Any
    make: Callable[[], Any]
    context: Callable[[], Context] = small.context
    changes: Callable[[Any], Sequence[Model]] | None = None
    idle: tuple[Any, Callable[[], Any]] | None = None


def itself(model: Model) -> list[Model]:
    return [model]


def its_model(subject: Analysed | Pruned) -> list[Model]:
    return [subject.model]


def sentences() -> Context:
    """Sentences of both languages, and the profile of them."""
    model = translator.model()
    samples = translator.samples(model)
    context = Context(samples=samples, held_out=samples, device=CPU)
    return replace(context, profile=Observe(())(Parent(model), context).profile)


def narrowed() -> Model:
    """An encoder-decoder that writes one of its languages, and still reads the words of both."""
    model = translator.model()
    model.graph.tensors()["words.target"].values = np.ones((400, 64), np.float32)
    model.graph.tensors()["decoder.w"].values = np.ones((1, 24, 64), np.float32)
    Head(words_of(translator.samples(model).speaking(("Red",)), ("Red",)), together=True)(model, Context())
    return model


def translators() -> list[Model]:
    """One encoder-decoder for each of two languages."""
    return [
        Restrict((name,))(translator.model(seed), sentences()).model
        for seed, name in enumerate(("Red", "Blue"))
    ]


CASES: dict[str, Case] = {
    # in place
    "Adapt": Case(Adapt(raw_input([image().require_card().inputs[0]])), image, changes=itself),
    "Convert": Case(Convert(18), picked, changes=itself),
    "Deduplicate": Case(Deduplicate(), picked, changes=itself),
    "Fold": Case(
        Fold(planned(0, 3), ("a", "b")), headed, known, its_model, (Fold(planned(), ("a", "b")), headed)
    ),
    "FreeBatch": Case(FreeBatch(), lambda: lstm_of_batch(1), changes=itself, idle=(FreeBatch(), dense)),
    "Head": Case(Head(("a",)), dense, changes=itself, idle=(Head(small.LABELS), dense)),
    "Language": Case(Language(("Red",)), narrowed, changes=itself),
    "Meet": Case(Meet(None, opset=18), lambda: [picked(), dense()], changes=list),
    "Normalize": Case(Normalize(), foldable, changes=itself),
    "PushGather": Case(PushGather(), picked, changes=itself),
    "RaiseLoops": Case(RaiseLoops(), lambda: Model.from_proto(looped(lstm, "Loop")), changes=itself),
    "RecurrentLayout": Case(
        RecurrentLayout(), lambda: Model.from_proto(looped(lstm, "Scan")), changes=itself
    ),
    "Refit": Case(
        Refit(("a", "b"), True), lambda: pruned(0, 3), known, its_model, (Refit(("a", "b"), True), layerless)
    ),
    "Vocabulary": Case(
        Vocabulary(),
        tokens,
        lambda: Context(samples=text(tokens(), np.array([1, 4]))),
        changes=itself,
        idle=(Vocabulary(), dense),
    ),
    "Slice": Case(Slice(planned(0, 3)), headed, changes=its_model, idle=(Slice(planned()), headed)),
    # in place: composites that always lose the output that was read
    "Calibrate": Case(Calibrate((0,) * 4 + (1,) * 4), lambda: readable(Calibrated()), fitting, itself),
    "JointHead": Case(JointHead(10_000), lambda: readable(Joint()), fitting, itself),
    "Reject": Case(Reject(), rejecting, fitting, itself),
    # the subject stays
    "Budget": Case(Budget(0.5, round_to=1), weighed),
    "BudgetSearch": Case(BudgetSearch(5.0, Decompose(["a"], method="contrast")), lambda: parent(0), known),
    "Compose": Case(Compose(keep=0.7, other=True), lambda: Modules(*modules()), fitting),
    "Continuous": Case(Continuous(frozenset("ef")), lambda: parent(0), known),
    "Curve": Case(
        Curve(Decompose(["a", "b"], together=True), (0.5,), ("random", "one-plan")), lambda: parent(0), known
    ),
    "Decompose": Case(Decompose(["a"], 0.5, compensate="refit", verify=True), lambda: parent(0), known),
    "JoinLanguages": Case(JoinLanguages(), translators),
    "Languages": Case(
        Languages((("Red",),), Decompose([], 0.5)),
        lambda: Parent(translator.model(steps=translator.STEPS)),
        sentences,
    ),
    "LatencyBudget": Case(LatencyBudget(0.5, round_to=1), timeable),
    "Mask": Case(Mask("a", masks()["fse20:ti-hp"], cut=True), lambda: parent(0), known),
    "Modularize": Case(Modularize((("a",), ("b", "c")), Decompose([], 0.5)), lambda: parent(0), known),
    "NewClass": Case(NewClass("a", replaces=True), lambda: parent(0).source, known),
    "Observe": Case(Observe(), lambda: parent(0), known),
    "Restrict": Case(Restrict(("Red",)), translator.model, sentences),
    "Remove": Case(Remove(["b"]), lambda: parent(0).source),
    "Replace": Case(Replace(), patch, fitting),
    "SideBySide": Case(SideBySide(FIRST + SECOND, Joint()), networks, fitting),
    "Trunk": Case(Trunk(Joint(), 0.7), siblings, fitting),
    "Verify": Case(Verify(), lambda: pruned(0, 3), known),
}
FITS = ("Calibrate", "JointHead", "Reject")
"""They change a composite once: it loses the output that they read, whether the fit is used or not."""
ALWAYS = ("Adapt",)
"""Every call brings another input."""
IN_PLACE = [name for name, case in CASES.items() if case.changes]


def state(value: Any) -> Any:
    """Everything of subjects and reports that can be compared, models as their bytes."""
    if isinstance(value, Model):
        return value.proto().SerializeToString(deterministic=True)
    if isinstance(value, Parent):
        return state((value.source, value.model))
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, ChannelGroups):
        return value.count
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: state(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: state(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [state(each) for each in value]
    return type(value) if type(value).__eq__ is object.__eq__ else value


def models_of(value: Any) -> list[Model]:
    """All models of a subject."""
    if isinstance(value, Model):
        return [value]
    if isinstance(value, Parent):
        return [value.source, value.model]
    parts: list[Any] = []
    if is_dataclass(value):
        parts = [getattr(value, each.name) for each in fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    return [model for each in parts for model in models_of(each)]


def test_every_pass_has_a_case() -> None:
    assert CASES.keys() == {each.__name__ for each in passes()}
    assert all(type(case.run).__name__ == name for name, case in CASES.items())


@pytest.mark.parametrize("name", CASES)
def test_two_calls_are_equal_and_leave_other_models_alone(name: str) -> None:
    """Equal subjects lead to equal bytes and reports; only what a pass may change is changed."""
    case, context = CASES[name], CASES[name].context()
    subjects = case.make(), case.make()
    mine = case.changes(subjects[0]) if case.changes else []
    copies = [model.copy() for model in models_of(subjects[0])]
    others = [model for model in models_of(subjects[0]) if all(model is not each for each in mine)]
    before, changeable = state([*copies, *others]), state(list(mine))
    assert state(subjects[0]) == state(subjects[1])
    whole = state(subjects[0])
    reports = [case.run(subject, context) for subject in subjects]
    assert state(reports[0]) == state(reports[1])
    assert state(subjects[0]) == state(subjects[1])
    assert state([*copies, *others]) == before
    if case.changes:
        assert reports[0].changed > 0 and state(list(mine)) != changeable
    else:
        assert state(subjects[0]) == whole


@pytest.mark.parametrize("name", [name for name in IN_PLACE if name not in FITS])
def test_nothing_is_counted_where_nothing_is_changed(name: str) -> None:
    """No change means equal bytes, and the other way round."""
    case, context = CASES[name], CASES[name].context()
    run, make = case.idle or (case.run, case.make)
    subject = make()
    if case.idle is None:
        run(subject, context)
    before = state(subject)
    changed = run(subject, context).changed
    assert (changed == 0) == (state(subject) == before)
    assert changed == 0 or name in ALWAYS


# -------------------------------------------------------------------- no report is dropped


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
    assert report.declined.count(declined) == 1


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
    assert declined in report.declined and report.changed == 1
