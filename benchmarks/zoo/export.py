"""The command line that the exporting scripts share."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.zoo import FOLDER, Entry


def export_all(entries: Sequence[Entry], export: Callable[[Entry, Path], None]) -> None:
    """Export the entries that the command line names, or all, each with its card.

    Exits with 1 if an export failed; the others are written all the same.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="models; default: all")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    failed = []
    for entry in entries:
        if chosen.names and entry.name not in chosen.names:
            continue
        start = time.perf_counter()
        path = chosen.output / f"{entry.name}.onnx"
        try:
            export(entry, path)
        except Exception:
            traceback.print_exc()
            failed.append(entry.name)
            continue
        path.with_suffix(".yaml").write_text(entry.card(), encoding="utf-8")
        seconds = time.perf_counter() - start
        print(f"{entry.name}: {path.stat().st_size:,} bytes, {seconds:.1f} s", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
