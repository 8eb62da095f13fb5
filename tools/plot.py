"""Pictures of results, as SVG or PNG; the same figures give the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.rewriter.errors import GraftError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png")
SIZE = (7.2, 4.6)
DPI = 150
BASELINES = ("tab:orange", "tab:green", "tab:purple", "tab:gray", "tab:brown", "tab:pink", "tab:olive")
STYLES = ("solid", "dashed", "dotted", "dashdot")
BARS = "bars: ± one standard error of the difference from the parent"
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "graft",  # names of shapes are drawn at random otherwise
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 10.0,
}


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: what the legend calls it.
        color: lines of one number have one colour; 0 stands out.
        style: lines of one number are dashed alike.
        points: x, y and the standard error of y, in percent, by x.
    """

    name: str
    color: int
    style: int
    points: tuple[tuple[float, float, float], ...]


def check_format(path: Path) -> None:
    """Check that a picture can be written to ``path``.

    Raises:
        GraftError: it ends in neither .svg nor .png.
    """
    if path.suffix.lower() not in FORMATS:
        raise GraftError(
            "plot-format", f"cannot draw {path}: it ends in neither .svg nor .png", "use --plot FILE.svg"
        )


def draw(path: Path, suffix: str, title: str, measure: str, parent: float, lines: Sequence[Line]) -> None:
    """Write accuracy against MACs to ``path``.

    Args:
        path: the file, with any name.
        suffix: one of :data:`FORMATS`: what to write.
        title: above the picture.
        measure: what the accuracy is called.
        parent: accuracy of the parent, in percent.
        lines: one for each method.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs that it builds its font cache
    import matplotlib
    from matplotlib.figure import Figure

    kind = suffix.lower().lstrip(".")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the picture does not depend on anybody's matplotlibrc
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, lines)
        axes.axhline(parent, color="black", linewidth=0.8, linestyle=(0, (5, 4)), zorder=1)
        axes.plot([100], [parent], "*", color="black", markersize=13, label="parent", zorder=6)
        axes.set(title=title, xlabel="MACs, % of the parent", ylabel=f"{measure}, %")
        figure.supxlabel(BARS, fontsize=8, color="dimgray")
        axes.set_xlim(0, 104)
        axes.grid(alpha=0.25)
        axes.legend(loc="lower right", framealpha=0.9)
        nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(path, format=kind, dpi=DPI, metadata=nothing)


def _lines(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        first = line.color == 0
        x, y, error = zip(*line.points, strict=True) if line.points else ((), (), ())
        axes.errorbar(
            x,
            y,
            yerr=error,
            label=line.name,
            color="tab:blue" if first else BASELINES[(line.color - 1) % len(BASELINES)],
            linestyle=STYLES[line.style % len(STYLES)],
            linewidth=2.2 if first else 1.2,
            marker="o",
            markersize=6 if first else 4,
            capsize=2,
            elinewidth=0.8,
            zorder=5 if first else 3,
        )
