"""Models, cards, data, channel groups, runs and measurements: what every pass works on.

The names in ``__all__`` are the public API; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft.rewriter.card.card import OTHER, Card
    from graft.rewriter.card.input_card import InputCard
    from graft.rewriter.card.output_card import OutputCard
    from graft.rewriter.data.dataset import Dataset
    from graft.rewriter.data.samples import Samples
    from graft.rewriter.data.split import Split
    from graft.rewriter.errors import GraftError
    from graft.rewriter.graph.model import Model
    from graft.rewriter.groups.analysed import Analysed
    from graft.rewriter.groups.groups import ChannelGroups
    from graft.rewriter.groups.plan import Plan
    from graft.rewriter.measure.baseline import Candidate, Evaluation
    from graft.rewriter.measure.cost import Cost, CostModel, cost_of
    from graft.rewriter.measure.draft.card_draft import draft_card
    from graft.rewriter.measure.draft.subject import CardDraft
    from graft.rewriter.measure.evaluation import Scored, score
    from graft.rewriter.measure.inspection import inspection
    from graft.rewriter.measure.latency import LatencyTable
    from graft.rewriter.measure.prediction import Predictions, predict
    from graft.rewriter.measure.pseudo_labels import with_predictions
    from graft.rewriter.record.folder import ModuleFolder, load_module, read_index
    from graft.rewriter.record.profile import Profile
    from graft.rewriter.record.provenance import Origin, origin_of
    from graft.rewriter.run.session import Device, Session

__all__ = [
    "OTHER",
    "Analysed",
    "Candidate",
    "Card",
    "CardDraft",
    "ChannelGroups",
    "Cost",
    "CostModel",
    "Dataset",
    "Device",
    "Evaluation",
    "GraftError",
    "InputCard",
    "LatencyTable",
    "Model",
    "ModuleFolder",
    "Origin",
    "OutputCard",
    "Plan",
    "Predictions",
    "Profile",
    "Samples",
    "Scored",
    "Session",
    "Split",
    "cost_of",
    "draft_card",
    "inspection",
    "load_module",
    "origin_of",
    "predict",
    "read_index",
    "score",
    "with_predictions",
]

_MODULES = {
    "card.card": ("Card", "OTHER"),
    "card.input_card": ("InputCard",),
    "card.output_card": ("OutputCard",),
    "data.dataset": ("Dataset",),
    "data.samples": ("Samples",),
    "data.split": ("Split",),
    "errors": ("GraftError",),
    "graph.model": ("Model",),
    "groups.analysed": ("Analysed",),
    "groups.groups": ("ChannelGroups",),
    "groups.plan": ("Plan",),
    "measure.baseline": ("Candidate", "Evaluation"),
    "measure.draft.card_draft": ("draft_card",),
    "measure.draft.subject": ("CardDraft",),
    "measure.cost": ("Cost", "CostModel", "cost_of"),
    "measure.evaluation": ("Scored", "score"),
    "measure.inspection": ("inspection",),
    "measure.latency": ("LatencyTable",),
    "measure.prediction": ("Predictions", "predict"),
    "measure.pseudo_labels": ("with_predictions",),
    "record.folder": ("ModuleFolder", "load_module", "read_index"),
    "record.profile": ("Profile",),
    "record.provenance": ("Origin", "origin_of"),
    "run.session": ("Device", "Session"),
}


if not TYPE_CHECKING:  # type checkers see the imports above, and names that are missing

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
