"""Outputs that cannot be written are refused before the work."""

from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files.refusal import refuse_overwrite, refuse_unwritable


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300, "x" * 300 + "/a", "x/" * 3000])
def test_names_that_are_too_long(name: str, tmp_path: Path) -> None:
    for refuse in (
        lambda path: refuse_unwritable(path, path.parent),
        lambda path: refuse_overwrite(path, True),
    ):
        with pytest.raises(GraftError) as caught:
            refuse(tmp_path / name)
        assert caught.value.code == "output-unwritable"
