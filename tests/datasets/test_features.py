"""Batches of features: every row once an epoch, in an order that only seed and epoch decide."""

import pytest
import torch

from datasets.features import FeatureBatches


def make_batches(rows: int = 10, size: int = 4, **settings) -> FeatureBatches:
    number = torch.arange(rows)[:, None]
    return FeatureBatches(number * 1.0, number * 2.0, size, **settings)


def order(batches: FeatureBatches, epoch: int, start: int = 0) -> list[int]:
    return [row for batch in batches.epoch(epoch, start) for row in batch.row.tolist()]


def test_evaluation_keeps_the_order_of_the_samples() -> None:
    assert order(make_batches(), 0) == order(make_batches(), 5) == list(range(10))


def test_features_and_labels_are_those_of_their_row() -> None:
    for batch in make_batches(train=True).epoch(3):
        assert torch.equal(batch.features[:, 0], batch.row * 1.0)
        assert torch.equal(batch.labels[:, 0], batch.row * 2.0)


def test_training_sees_every_row_once_in_an_order_of_seed_and_epoch() -> None:
    batches = make_batches(train=True, seed=7)
    assert sorted(order(batches, 0)) == list(range(10))
    assert order(batches, 2) == order(make_batches(train=True, seed=7), 2)
    assert len({tuple(order(make_batches(train=True, seed=s), e)) for s in (7, 8) for e in (0, 1)}) == 4


def test_an_epoch_resumes_at_a_step() -> None:
    batches = make_batches(train=True)
    assert order(batches, 1, start=2) == order(batches, 1)[8:]


@pytest.mark.parametrize(("rows", "steps"), [(8, 2), (9, 3), (1, 1)])
def test_the_length_is_the_number_of_steps(rows: int, steps: int) -> None:
    batches = make_batches(rows)
    assert len(batches) == len(list(batches.epoch(0))) == steps


@pytest.mark.parametrize("train", [False, True])
def test_ranks_share_each_batch_without_gap_or_overlap(train: bool) -> None:
    batches = make_batches(train=train).epoch(1)
    ranks = [make_batches(train=train, rank=rank, world=3).epoch(1) for rank in range(3)]
    for batch, *shares in zip(batches, *ranks, strict=True):
        assert torch.equal(batch.row, torch.cat([share.row for share in shares]))
