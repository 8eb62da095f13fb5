"""One folder of files for all tests of runtimes."""

from __future__ import annotations

import pytest

from tests.runtimes.made import Workshop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A folder where files are made once."""
    return Workshop.of(tmp_path_factory.mktemp("shop"))
