"""Rerun the tables of the papers that Graft goes back to, and write docs/papers.md.

    python -m benchmarks.papers [--only fse20:1] [--json FILE]

Every figure is printed beside what Graft gives, with the reason where these differ; a table that cannot be
rerun says why. ``--only TEXT`` takes the tables whose ``paper:table`` contains TEXT, and writes no document.
``--json FILE`` writes a list of rows: paper, table, row, printed, here, reason; accuracies are fractions.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.papers import document, fse20, icse22, icse23

TABLES = (*fse20.TABLES, *icse22.TABLES, *icse23.TABLES)


def main() -> None:
    """Read the command line, rerun, print and write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.papers", description=__doc__, formatter_class=form, allow_abbrev=False
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="tables whose paper:table contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to this file")
    options = parser.parse_args()
    tables = [table for table in TABLES if options.only in table.key]
    if not tables:
        print(
            f"error: no table {options.only}; there are {', '.join(t.key for t in TABLES)}", file=sys.stderr
        )
        raise SystemExit(2)
    found = [(table, table.rows()) for table in tables]
    text = document.text(found)
    print(text)
    if options.json:
        rows = [row.plain() for _, rows in found for row in rows]
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if not options.only:
        document.PAGE.write_text(text, "utf-8")


main()
