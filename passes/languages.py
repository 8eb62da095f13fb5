"""Decompose an encoder-decoder into a module for each of its languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from graft.passes.base import Context, all_declined
from graft.passes.cut.language import words_of
from graft.passes.decompose import Decompose
from graft.passes.join.convert import Convert
from graft.passes.modularize import Measured, Modularize, ModularizeReport
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.errors import GraftError


@dataclass(frozen=True)
class Languages:
    """Cut a module for each set of languages, and measure it on held-out sentences.

    A module writes the words of the calibration set's targets in its languages. Exactly removed are all
    other words, from the output and from the embedding that reads what was written; then the channels that
    the budget says, chosen and refitted on sentences in these languages alone.

    Attributes:
        sets: the languages of each module.
        decompose: the options of every cut; its classes are not used.
        max_drop: see :class:`graft.passes.modularize.Modularize`; points of the share of words that are
            right behind the reference's.
        convert: the versions of the modules.
        progress: called with 1 after each module.
    """

    sets: tuple[tuple[str, ...], ...]
    decompose: Decompose
    max_drop: float | None = None
    convert: Convert = field(default_factory=Convert)
    progress: Callable[[int], None] | None = field(default=None, compare=False)

    def __call__(self, parent: Parent, context: Context) -> ModularizeReport:
        """Cut and measure.

        Args:
            parent: with a card that has a decoder.
            context: samples in all of the languages; held-out ones, which each module is measured on in its
                own; the profile of the parent, which the report passes on; device and seed.

        Returns:
            The modules.

        Raises:
            GraftError: there are no samples in a language, or a module cannot be cut.
        """
        if context.samples is None or context.profile is None:
            raise GraftError(
                "data-missing", "to cut out a language takes sentences in it", "name --data DATA"
            )
        reports, measured = [], list[tuple[Measured, int]]()
        for languages in self.sets:
            own = self._own(parent, context, context.samples, languages)
            words = words_of(own.samples or context.samples, languages)
            decompose = replace(self.decompose, together=True, rest=False, languages=languages)
            modularize = Modularize((words,), decompose, self.max_drop, self.convert, None, self.progress)
            reports.append(modularize(parent, own))
            if reports[-1].measured and own.held_out:
                measured.append((reports[-1].measured, int((own.held_out.labels != IGNORED).sum())))
        first = reports[0]
        return replace(
            first,
            changed=len(reports),
            declined=all_declined(reports),
            profile=context.profile,
            classes=self.sets,
            modules=tuple(module for each in reports for module in each.modules),
            searches=tuple(search for each in reports for search in each.searches),
            measured=_pooled(measured) if len(measured) == len(reports) else None,
        )

    @staticmethod
    def _own(parent: Parent, context: Context, samples: Samples, languages: Sequence[str]) -> Context:
        """Return the context with sentences in some languages alone, and the profile of these."""
        spoken = samples.speaking(languages)
        profile = Observe(words_of(spoken, tuple(languages)))(
            parent, replace(context, samples=spoken)
        ).profile
        held_out = context.held_out and context.held_out.speaking(languages)
        return replace(context, samples=spoken, held_out=held_out, profile=profile)


def _pooled(measured: Sequence[tuple[Measured, int]]) -> Measured:
    """Return the share of all words that are right, each by the module of its language.

    Args:
        measured: for each module the shares, and the number of words.
    """
    words = sum(count for _, count in measured)
    return Measured(
        parent=sum(each.parent * count for each, count in measured) / words,
        composed=sum(each.composed * count for each, count in measured) / words,
        samples=sum(each.samples for each, _ in measured),
    )
