"""Which end of a command is right: one clear line, or a result; everything else is a fault."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.child import PEAK, Ended
from tests.fuzz.mutant import OUT, Mutant

CLEAN, SUCCESS = "clean error", "success"
UNEXPECTED, CRASH, HANG, MEMORY = "unexpected", "crash", "hang", "memory"
FILES, ESCAPED, WRONG = "files", "escaped", "wrong cut"
FAULTS = (UNEXPECTED, CRASH, HANG, MEMORY, FILES, ESCAPED, WRONG)
LONGEST = 900
"""Characters of a line on standard error: a message of 500, what to do, and the prefix."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SECRET = b"the-content-of-a-file-outside-" * 30

Listing = Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What one mutant led to.

    Attributes:
        kind: ``clean error``, ``success``, or the fault.
        reason: of a fault.
    """

    kind: str
    reason: str = ""

    @property
    def fault(self) -> bool:
        """True where it is one."""
        return self.kind in FAULTS


def listing(folder: Path) -> Listing:
    """Everything below a folder: type and content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            mode = path.lstat().st_mode
            told = stat.filemode(mode)
            if stat.S_ISREG(mode):
                told = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(mode):
                told = f"-> {os.readlink(path)}"
            found[path.relative_to(folder).as_posix()] = told
    return found


def judge(mutant: Mutant, ended: Ended, folder: Path, before: Listing) -> Verdict:
    """Judge how a command ended, without what it computed.

    Args:
        mutant: what it was given.
        ended: how it ended.
        folder: of the mutant: ``work``, ``tmp`` and ``outside.bin``.
        before: of ``work``, before it ran.
    """
    for check in (_end, _streams):
        found = check(mutant, ended)
        if found is not None:
            return found
    found = _outside(folder) or _left(mutant, ended, folder, before)
    return found or Verdict(CLEAN if ended.code == 2 else SUCCESS)


def _end(mutant: Mutant, ended: Ended) -> Verdict | None:
    if ended.hung:
        return Verdict(HANG, f"{ended.seconds:.1f} s")
    if ended.grown or ended.peak > PEAK:
        return Verdict(MEMORY, f"{ended.peak / 2**30:.1f} GiB")
    if ended.code < 0:
        return Verdict(CRASH, f"signal {-ended.code}")
    checks = mutant.command == "card" or "--min-top1" in mutant.arguments
    if ended.code not in ({0, 1, 2} if checks else {0, 2}):
        return Verdict(UNEXPECTED, f"exit code {ended.code}")
    return None


def _streams(mutant: Mutant, ended: Ended) -> Verdict | None:
    lines = [line for line in ended.err.splitlines() if line.strip()]
    own = ("graft: ", "  ") if mutant.command == "card" else ("graft: ",)  # drafts are listed
    foreign = [line for line in lines if not line.startswith(own)]
    if foreign:
        return Verdict(UNEXPECTED, f"foreign on stderr: {foreign[0]}")
    if "error: unexpected " in ended.err or "Traceback" in ended.err:
        return Verdict(UNEXPECTED, lines[-1])
    errors = [line for line in lines if line.startswith("graft: error: ")]
    if len(errors) != (ended.code == 2):
        return Verdict(UNEXPECTED, f"{len(errors)} error lines with exit code {ended.code}")
    if any(len(line) > LONGEST for line in lines):
        return Verdict(UNEXPECTED, f"a line of {max(map(len, lines))} characters")
    if CONTROL.search(ended.err) or CONTROL.search(ended.out):
        return Verdict(UNEXPECTED, "control characters reach the terminal")
    if "--json" in mutant.arguments and "--help" not in mutant.arguments and mutant.kind != "options":
        try:
            json.loads(ended.out, parse_constant=lambda name: 1 / 0)
        except (ValueError, ZeroDivisionError) as error:
            return Verdict(UNEXPECTED, f"--json printed none: {error!r}")
    return None


def _outside(folder: Path) -> Verdict | None:
    """Nothing but the output folder was touched, and nothing of outside got in."""
    if (folder / "outside.bin").read_bytes() != SECRET:
        return Verdict(ESCAPED, "a file outside was changed")
    if any(folder.rglob("pwned*")):
        return Verdict(ESCAPED, "code of a file was run")
    made = folder / "work" / OUT
    for path in made.rglob("*") if made.is_dir() else [made]:
        if path.is_file() and not path.is_symlink() and SECRET[:64] in path.read_bytes():
            return Verdict(ESCAPED, "the content of a file outside got into the output")
    return None


def _left(mutant: Mutant, ended: Ended, folder: Path, before: Listing) -> Verdict | None:
    """An error leaves everything as it was; a success leaves what it read."""
    after = listing(folder / "work")
    temporary = listing(folder / "tmp")
    if temporary:
        return Verdict(FILES, f"temporary files are left: {sorted(temporary)[0]}")
    gone = sorted(name for name in before if after.get(name) != before[name])
    new = sorted(after.keys() - before.keys())
    if ended.code == 2 and (gone or new):
        return Verdict(FILES, f"an error changed {(gone or new)[0]}")
    if mutant.kind == "options" or "--force" in mutant.arguments:
        return None
    if gone:
        return Verdict(FILES, f"{gone[0]} was changed")
    made = (OUT, f"{OUT}.svg") if mutant.command == "curve" else (OUT,)
    strange = [name for name in new if name.partition("/")[0] not in made]
    return Verdict(FILES, f"{strange[0]} was written") if strange else None
