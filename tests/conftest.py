"""Settings of all tests. Hypothesis has no deadline, because a busy machine would fail a slow example."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.quick_python import serve_python

settings.register_profile("untimed", deadline=None)
# For make mutation: any failing example kills a mutant, and nobody reads it, so none is shrunk or stored.
settings.register_profile("mutants", deadline=None, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def quick_python() -> Iterator[Path]:
    """Path of a `python` that starts at once, for tests of programs in processes of their own."""
    with serve_python() as folder:
        yield folder / "python"
