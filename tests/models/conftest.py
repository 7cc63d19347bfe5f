"""Fixtures of the model tests."""

from collections.abc import Callable

import pytest

from datasets.schema import Batch
from tests.random_batches import random_batch


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """random_batch, for tests that take it by name."""
    return random_batch
