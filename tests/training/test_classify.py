"""What the training of a classifier says before it begins."""

import numpy as np
import pytest

from tests.samples import make_samples
from training.classify import warn_of_single_stays


@pytest.mark.parametrize(("batch_size", "warns"), [(16, True), (24, False), (256, False)])
def test_batches_below_a_stay_are_warned_of(
    batch_size: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stays = np.repeat([1, 2, 3], [8, 24, 40])
    warn_of_single_stays(make_samples(np.zeros((72, 1)), stays, stays), batch_size)
    said = "--batch_size 16: a stay has 24 samples on average" in caplog.text
    assert said is warns and ("--batch_size of 192 has some 8 stays" in caplog.text) is warns
