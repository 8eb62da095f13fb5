"""Measure what docs/translation.md reports: languages cut out of the bundled translator, joined, replaced.

    python -m benchmarks.translation --json translation.json

BLEU is corpus BLEU-4 of sacrebleu, words as they are, of greedy answers to the 600 held-out English sentences
of ``models/translate_sample.npz``; its standard error, and that of differences, is by 100 draws of sentences.
Modules are refitted on the training pairs. Needs the extra ``text``, and no other data. Takes about twenty
minutes on two cores.
"""  # fmt: skip

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.common import DEVICE, Pair, Run, start
from graft.passes.base import Context
from graft.passes.cut.language import Restrict
from graft.passes.decompose import Decompose
from graft.passes.join.languages import JoinLanguages
from graft.passes.languages import Languages
from graft.passes.parent import Parent
from graft.passes.published.icse23_units import central_tendency, removed_units
from graft.passes.select.observe import Observe
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.decoded import Decoded, decoded
from graft.rewriter.measure.translation import bleu
from graft.rewriter.record.provenance import numbering

MODELS = Path(__file__).parents[1] / "models"
UNITS = "node_gru__1"
"""The units of encoder and decoder: the second starts from the states of the first, so they go together."""
KEPT = (0.95, 0.9, 0.8, 0.65, 0.5)
WAYS = {
    "no compensation": {"compensate": "none"},
    "`fold`": {"compensate": "fold"},
    "`refit`, units by `relevance` (default)": {},
    "`refit`, units by `magnitude`": {"method": "magnitude"},
    "`refit`, units by `contrast`": {"method": "contrast"},
    "`refit`, units by `random`": {"method": "random"},
}
DRAWS = 100
CAP = 0.05
"""Share of the units that the published rule removes at most."""


class Translator:
    """The bundled model with its sentences."""

    def __init__(self) -> None:
        self.parent = Parent.load(MODELS / "translate_torch.onnx")
        self.data = Dataset.load(MODELS / "translate_sample.npz")
        self.train = Samples.match(self.data.split("train"), self.parent.card)
        self.languages = self.parent.card.classes
        self.whole = self.answers(self.parent.source)

    @staticmethod
    @functools.cache
    def once() -> Translator:
        """Return it, read once."""
        return Translator()

    def answers(self, model: Model) -> dict[str, Decoded]:
        """Return what a model writes for the test sentences, by language."""
        names = numbering(model)
        samples = Samples.match(self.data.split("test"), model.require_card(), names=names)
        return {each.language: each for each in decoded(model, samples, DEVICE)}

    def modules(self, languages: Sequence[str], plan: Plan | None = None, **options: Any) -> list[Model]:
        """Cut a module for each language; options of ``Decompose``."""
        made = Decompose((), fixed_plan=plan, keep=1.0 if plan is None else None, **options)
        context = Context(samples=self.train, device=DEVICE)
        profile = self.profile
        report = Languages(tuple((each,) for each in languages), made)(
            self.parent, replace(context, profile=profile)
        )
        return [each.model for each in report.modules]

    @functools.cached_property
    def profile(self) -> Any:
        """Of the parent, which modules pass on."""
        return Observe(())(self.parent, Context(samples=self.train, device=DEVICE)).profile

    def figures(self, model: Model, language: str) -> dict[str, Any]:
        """Return BLEU, its difference from the parent's, and the cost over the parent's."""
        found, cost, whole = self.answers(model)[language], cost_of(model), cost_of(self.parent.source)
        return {
            "bleu": bleu(found.answers, found.references),
            "difference": drawn(found, self.whole[language]),
            "parameters": cost.parameters / whole.parameters,
        }


def drawn(one: Decoded, other: Decoded) -> Pair:
    """Return BLEU of ``one`` less that of ``other``, same sentences, and its standard error."""
    random, sentences = np.random.default_rng(0), len(one.answers)

    def less(rows: Sequence[int]) -> float:
        both = [
            bleu([of.answers[row] for row in rows], [of.references[row] for row in rows])
            for of in (one, other)
        ]
        return both[0] - both[1]

    draws = [less(random.integers(0, sentences, sentences).tolist()) for _ in range(DRAWS)]
    return less(range(sentences)), float(np.std(draws, ddof=1))


def _text(pair: Pair) -> str:
    return f"{pair[0]:+.2f} ± {pair[1]:.2f}"


def parent(run: Run) -> None:
    """BLEU, chrF and exact answers of the parent."""
    of = Translator.once()
    run.output.section("The translator")
    run.output.header("language", "BLEU-4", "chrF", "exactly right")
    for name, found in of.whole.items():
        figures = found.figures()
        run.output.row(name, f"{figures['bleu']:.2f}", f"{figures['chrf']:.2f}", f"{figures['exact']:.1%}")


def words(run: Run) -> None:
    """Only the words of other languages go."""
    of = Translator.once()
    run.output.section("Without the words of the other languages")
    run.output.header("language", "parameters", "BLEU-4", "difference")

    def one(name: str) -> dict[str, Any]:
        return of.figures(of.modules([name], compensate="none")[0], name)

    for name in of.languages:
        found = run.output.measured(f"words {name}", partial(one, name))
        run.output.row(
            name, f"{found['parameters']:.1%}", f"{found['bleu']:.2f}", _text(tuple(found["difference"]))
        )


def units(run: Run) -> None:
    """Units go, too, and what stays is refitted."""
    of = Translator.once()
    run.output.section("And units of encoder and decoder, refitted")
    run.output.header("units that stay", "parameters", *of.languages)

    def one(share: float, name: str) -> dict[str, Any]:
        return of.figures(of.modules([name], keep_layers={UNITS: share})[0], name)

    for share in run.some(KEPT):
        found = [
            run.output.measured(f"units {share} {name}", partial(one, share, name)) for name in of.languages
        ]
        parameters = np.mean([each["parameters"] for each in found])
        run.output.row(
            f"{share:.0%}", f"{parameters:.1%}", *(_text(tuple(each["difference"])) for each in found)
        )


def ways(run: Run) -> None:
    """Half of the units, by other methods and compensations."""
    of = Translator.once()
    run.output.section("Half of the units, other ways: French")
    run.output.header("way", "difference")

    def one(options: dict[str, Any]) -> dict[str, Any]:
        return of.figures(of.modules(["French"], keep_layers={UNITS: 0.5}, **options)[0], "French")

    for name, options in run.some(WAYS.items()):
        found = run.output.measured(f"ways {name}", partial(one, options))
        run.output.row(name, _text(tuple(found["difference"])))


def published(run: Run) -> None:
    """The rule of Imtiaz et al. at 5 %: the units that are less strongly on than for the other languages."""
    of = Translator.once()
    run.output.section("The published rule at 5 % of the units, not refitted")
    run.output.header("language", "units that go", "parameters", "difference")
    for name in of.languages:
        found = run.output.measured(f"published {name}", partial(_published, of, name))
        run.output.row(
            name, found["removed"], f"{found['parameters']:.1%}", _text(tuple(found["difference"]))
        )


def _published(of: Translator, name: str) -> dict[str, Any]:
    others = [each for each in of.languages if each != name]
    own, rest = (_states(of, of.train.speaking(each)) for each in ([name], others))
    removed = removed_units(central_tendency(own) - central_tendency(rest), CAP, nearly=True)
    groups = of.parent.groups
    kept = groups.everything()
    units = next(group for group in groups if group.name == UNITS)
    kept[units.channels[removed]] = False
    plan = Plan.of(groups, groups.close(kept), of.parent.sha256)
    made = of.modules([name], plan, compensate="none")[0]
    return {"removed": len(removed), **of.figures(made, name)}


def _states(of: Translator, samples: Samples) -> np.ndarray:
    """Return the states of the decoder at the steps that are written: (steps, units)."""
    proto = of.parent.model.proto()
    node = [each for each in proto.graph.node if each.op_type == "GRU"][-1]
    proto.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = []
    for inputs, labels in samples.batches(256):
        (states,) = session.run([node.output[0]], inputs)
        found.append(states[:, 0].swapaxes(0, 1)[labels != IGNORED])
    return np.concatenate(found)


def joined(run: Run) -> None:
    """Two languages of two modules; one language of another model."""
    of = Translator.once()
    run.output.section("Joined: French and Italian of two modules; German replaced")
    run.output.header("model", "parameters", "language", "difference")

    def one() -> dict[str, Any]:
        both = of.modules(["French", "Italian"], compensate="none")
        model = JoinLanguages()(both, Context()).model
        return {name: of.figures(model, name) for name in ("French", "Italian")}

    def other() -> dict[str, Any]:
        context = Context(samples=of.train, device=DEVICE)
        left = Restrict(("French", "Italian"))(of.parent.source, context).model
        german = of.modules(["German"], keep_layers={UNITS: 0.8})[0]
        model = JoinLanguages()([left, german], Context()).model
        return {name: of.figures(model, name) for name in of.languages}

    for title, measure in (
        ("French and Italian joined", one),
        ("German by a module of 80 % of the units", other),
    ):
        for name, found in run.output.measured(f"joined {title}", measure).items():
            run.output.row(title, f"{found['parameters']:.1%}", name, _text(tuple(found["difference"])))


SECTIONS = {each.__name__: each for each in (parent, words, units, published, ways, joined)}

if __name__ == "__main__":
    start(__doc__, SECTIONS, data=False)
