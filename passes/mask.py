"""Make the module of a class by a published method: a mask over the parent, not a cut."""

from __future__ import annotations

from dataclasses import dataclass

from graft.passes.base import Context, Declined
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.cut.unused import unused_channels
from graft.passes.cut.verify import Pruned, Verify
from graft.passes.decompose import DecomposeReport
from graft.passes.parent import Parent
from graft.passes.published import MaskInputs, MaskMethod
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, cost_of
from graft.rewriter.measure.mask_metrics import kernels, zero_share
from graft.rewriter.record.provenance import MASKED, Origin, stamp, versions


@dataclass(frozen=True, kw_only=True)
class MaskedReport(DecomposeReport):
    """A module of the parent's shape; ``changed`` counts the channels that it lacks, where it was cut.

    Attributes:
        removed: edges, units or gates that the method removed (:class:`graft.passes.published.MaskReport`).
        zero_weights: share of the weights (not biases) of the module that are 0, before it was cut.
        zero_weights_parent: the same of its parent.
    """

    removed: int
    zero_weights: float
    zero_weights_parent: float


@dataclass(frozen=True)
class Mask:
    """Make the module of a class by a published method.

    Its weights are the parent's or zeros, or as the method says. It has the parent's inputs and outputs; of
    the outputs that of its class counts, and the others say what else the sample may be.

    Attributes:
        name: the class.
        method: the method.
        cut: then remove the channels that zeros leave without a part in the output.
        verify: compare the cut with the mask, see :class:`graft.passes.cut.verify.Verify`.
    """

    name: str
    method: MaskMethod
    cut: bool = False
    verify: bool = True

    def __call__(self, parent: Parent, context: Context) -> MaskedReport:
        """Make the module.

        Args:
            parent: the parent.
            context: labelled samples, in the order in which examples are taken, and the device.

        Returns:
            The module.

        Raises:
            GraftError: there are no samples, the method does not fit the parent, or the cut computes anything
                else than the mask.
        """
        samples = context.samples
        if samples is None:
            raise GraftError(
                "method-data",
                f"the method {self.method.name} takes labelled samples, and there are none",
                "give the data",
            )
        model = parent.model.copy()
        inputs = MaskInputs(
            parent.model,
            self.name,
            samples,
            context.device,
            lambda key, make: parent.once(samples, key, make),
        )
        masked = self.method.mask(model, inputs)
        if self.method.pair and masked.negative is not None:
            _keep_pair(model, self.name, masked.negative)
        zeros = zero_share(kernels(model))
        whole = Analysed.of(model)
        kept = whole.groups.everything()
        difference: float | None = None
        declined: tuple[Declined, ...] = (*parent.declined, *masked.declined)
        if self.cut:
            kept &= ~unused_channels(whole.groups)
        plan = Plan.of(whole.groups, whole.groups.close(kept), parent.sha256)
        cut = whole.copy()
        sliced = Slice(plan)(cut, context)
        if self.verify and sliced.changed:
            verified = Verify()(Pruned(whole, plan, cut.model), context)
            difference, declined = verified.difference, (*declined, *verified.declined)
        parent.declare(cut.model)
        return MaskedReport(
            changed=sliced.changed,
            declined=declined,
            model=cut.model,
            plan=plan,
            cost=self._stamp(parent, cut.model, plan, zeros),
            difference=difference,
            removed=masked.changed,
            zero_weights=zeros,
            zero_weights_parent=zero_share(kernels(parent.model)),
        )

    def _stamp(self, parent: Parent, model: Model, plan: Plan, zeros: float) -> Cost:
        """Write into the module what it was made from; return what it costs."""
        cost = cost_of(model)
        origin = Origin(
            parents=(parent.record,),
            classes=(self.name,),
            options={"method": self.method.name, MASKED: True, "cut": self.cut, **self.method.options()},
            plan=plan.ranges(),
            sizes=plan.sizes(),
            versions=versions(),
        )
        figures = {
            "macs": cost.macs,
            "macs_ratio": cost.macs / max(1, parent.cost.macs),
            "parameters": cost.parameters,
            "zero_weights_ratio": zeros,
        }
        stamp(model, "module", origin, figures)
        return cost


def _keep_pair(model: Model, name: str, negative: int) -> None:
    """Keep the output of a class and that of all others, in place."""
    other = model.require_card().labels[negative]
    Head((name, other), together=True)(model, Context())
    model.card = model.require_card().replace(labels=(name, OTHER))
