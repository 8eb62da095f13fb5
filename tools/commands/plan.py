"""``graft plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.select.profiling import classes_of, stored_profile
from graft.rewriter.data.samples import Samples
from graft.rewriter.files import writing
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.pseudo_labels import describe_labels
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.command import Option, takes_options
from graft.tools.estimates import Estimate
from graft.tools.languages import load_classifier


class PlanBudget(options.BudgetOptions):
    """Budget: the share that is kept."""

    @model_validator(mode="after")
    def _some(self) -> PlanBudget:
        if self.keep is None and not self.keep_layer:
            raise ValueError("missing option '--keep' (or --keep-layer)")
        return self


class PlanMethod(options.MethodOptions):
    """Importance of channels, from the statistics of a profile."""

    profile: Annotated[Path, Option("Profile from 'graft profile'.", options.METHOD)]


class PlanOutput(options.OutputOptions):
    """Output of ``graft plan``."""

    output: Annotated[Path, Option("Plan to write.", options.OUTPUT, ("-o", "--output"))]


@takes_options(
    epilog="Example: graft plan resnet20.onnx --profile resnet20.profile --classes cat,dog "
    "--keep 0.5 -o pets.json"
)
def command(
    subject: options.ClassOptions,
    budget: PlanBudget,
    method: PlanMethod,
    data: options.CalibrationOptions,
    run: options.SeededRunOptions,
    output: PlanOutput,
) -> None:
    """Choose which channels of MODEL a module for a set of classes keeps.

    The plan is a JSON file: for each channel group the kept channels as ranges. Edit it, and prune by it
    with 'graft decompose MODEL --plan PLAN'.
    """
    output.claim(output.output)
    parent = load_classifier(subject, "plan")
    budget.layers.of(parent)  # says before the work what matches nothing
    names = options.class_names(subject.classes, parent.card)
    found = stored_profile(method.profile, parent, names)
    names = names or classes_of(found)
    device = run.device()
    samples: Samples | None = None
    if data.data:
        dataset = parents.open_data(parent, data, subject.classes, device, run.seed)
        samples, _ = data.samples(dataset, parent.card, run.seed)
    estimate = Estimate(parent, samples, device)
    choice = estimate.choose(method.method, 1, method.plan_time)
    decompose = Decompose(
        names,
        keep=budget.keep,
        unit=budget.keep_by,
        method=choice.method,
        together=True,
        round_to=budget.round_to,
        freeze=budget.freeze,
        keep_layers=budget.keep_layer,
    )
    estimate.announce(estimate.subject.plan(decompose), f"a plan by {choice.method}")
    report = decompose.planned(parent, Context(samples=samples, profile=found, device=device, seed=run.seed))
    plan = report.plan
    (kept, channels), cost = plan.counts(), CostModel(parent.groups).cost(plan.mask(parent.groups))
    result: dict[str, Any] = {
        "output": output.output,
        "classes": list(names),
        "channels_kept": kept,
        "channels": channels,
        "macs_ratio": cost.macs / max(1, parent.cost.macs),
        "parameters_ratio": cost.parameters / max(1, parent.cost.parameters),
        **choice.plain(),
        **show.layers(plan),
        "declined": list(map(str, report.declined)),
        "label_source": found.label_source,
        **({"label_classes": found.label_classes} if found.label_source != "data" else {}),
        **(describe_labels(samples, names) if samples else {}),
        **estimate.plain(),
        **output.dry(),
    }
    with output.target(output.output) as path, writing(path, output.force) as temporary:
        temporary.write_text(plan.to_json(), encoding="utf-8")
    show.declined(result["declined"])
    show.emit("plan", result, output.as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: keeps {result['channels_kept']} of {result['channels']} channels, "
        f"{show.percent(result['macs_ratio'], 1)} of the MACs, "
        f"{show.percent(result['parameters_ratio'], 1)} of the parameters"
    )
    show.print_layers(result)
    show.data_source(result, len(result["classes"]))
