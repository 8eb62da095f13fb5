"""Export the whole zoo: every script in the environment of its framework.

    python -m benchmarks.zoo --torch PYTHON --keras PYTHON --flax PYTHON --sklearn PYTHON [-o .zoo]

A framework without an interpreter is left out. ``--store`` copies the models that the tests use.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from benchmarks.zoo import FOLDER
from benchmarks.zoo.entries import STORED

FRAMEWORKS = ("torch", "keras", "flax", "sklearn")
ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "zoo"


def main() -> None:
    """Run the scripts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    for framework in FRAMEWORKS:
        parser.add_argument(f"--{framework}", metavar="PYTHON", help=f"an interpreter with {framework}")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    parser.add_argument("--store", action="store_true", help=f"copy what the tests use to {TESTS.name}")
    chosen = parser.parse_args()
    failed = []
    for framework in FRAMEWORKS:
        python = getattr(chosen, framework)
        if python is not None:
            command = [python, "-m", f"benchmarks.zoo.{framework}_models", "-o", str(chosen.output.resolve())]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                failed.append(framework)
    if chosen.store:
        TESTS.mkdir(parents=True, exist_ok=True)
        for name in STORED:
            for suffix in (".onnx", ".yaml"):
                shutil.copy(chosen.output / f"{name}{suffix}", TESTS / f"{name}{suffix}")
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
