"""Published methods that make masks: modules of the parent's shape, with zeros among its weights.

Those of other distributions are found by the entry points of the group ``graft.methods`` (docs/published.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from graft.passes.published.fse20 import CmC, CmRie, TiHp, TiI, TiPn, TiSne
from graft.passes.published.icse22 import Bi, Bln, CiTiMc
from graft.passes.published.icse23 import Rolled, RolledGates, Unrolled, UnrolledGates
from graft.passes.published.method import (
    CODE,
    PAPER,
    VARIANTS,
    MaskInputs,
    MaskMethod,
    MaskReport,
    NamedMethod,
)
from graft.rewriter.plug_ins import plug_ins

MASKS: tuple[MaskMethod, ...] = (
    *(TiI(), TiPn(), TiHp(), TiSne(), CmC(), CmRie()),
    *(CiTiMc(), Bln(), Bi()),
    *(Rolled(), RolledGates(), Unrolled(), UnrolledGates()),
)

ENTRY_POINTS = "graft.methods"
"""Where other distributions name methods of their own, of both kinds."""


@cache
def foreign_methods() -> tuple[NamedMethod, ...]:
    """Return the methods of other distributions, of both kinds."""
    return tuple(plug_ins(ENTRY_POINTS, NamedMethod, "name"))


@cache
def masks() -> Mapping[str, MaskMethod]:
    """Return all that make masks by name; one of another distribution takes the place of Graft's."""
    foreign = (method for method in foreign_methods() if isinstance(method, MaskMethod))
    return MappingProxyType({method.name: method for method in (*MASKS, *foreign)})


__all__ = [
    "CODE",
    "ENTRY_POINTS",
    "MASKS",
    "PAPER",
    "VARIANTS",
    "MaskInputs",
    "MaskMethod",
    "MaskReport",
    "NamedMethod",
    "foreign_methods",
    "masks",
]
