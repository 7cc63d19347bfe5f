"""A fraction of the training subjects: nested, seeded, and with every class."""

import itertools

import numpy as np
import pytest

from datasets.few_labels import take_fraction
from datasets.samples import Samples
from tests.samples import make_samples

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@pytest.fixture
def cohort() -> Samples:
    """600 samples of 300 subjects with a common label, a label that three subjects have, and unknown ones."""
    draw = np.random.default_rng(0)
    subject = np.repeat(np.arange(300), 2) + 1000
    labels = np.stack([draw.integers(0, 2, 600), np.isin(subject, [1017, 1140, 1201])], axis=1).astype(float)
    labels[draw.random(600) < 0.1, 0] = np.nan
    return make_samples(labels, subject_id=subject)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_larger_fraction_has_the_subjects_of_a_smaller_one(cohort: Samples, seed: int) -> None:
    parts = [take_fraction(cohort, fraction, seed) for fraction in FRACTIONS]
    subjects = [set(part.samples.subject_id.tolist()) for part in parts]
    assert all(small < large for small, large in itertools.pairwise(subjects))
    assert [len(each) for each in subjects] == [part.subjects for part in parts] == [3, 15, 30, 75, 150, 300]
    for part, own in zip(parts, subjects, strict=True):
        kept = np.isin(cohort.subject_id, list(own))  # both samples of each, in their order
        assert np.array_equal(part.samples.stay_id, cohort.stay_id[kept])
        assert all(set(labels[~np.isnan(labels)]) == {0, 1} for labels in part.samples.labels.T)


def test_the_seed_draws_the_subjects(cohort: Samples) -> None:
    first, again, other = (set(take_fraction(cohort, 0.25, seed).samples.subject_id) for seed in (0, 0, 1))
    assert first == again != other


def test_a_draw_with_every_class_is_that_of_the_hash_alone(cohort: Samples) -> None:
    unlabeled = make_samples(cohort.labels * np.nan, subject_id=cohort.subject_id)
    of_all, of_none = (set(take_fraction(part, 0.5, 0).samples.subject_id) for part in (cohort, unlabeled))
    assert of_all == of_none
    assert set(take_fraction(unlabeled, 0.01, 0).samples.subject_id) != set(
        take_fraction(cohort, 0.01, 0).samples.subject_id
    )


def test_a_subject_is_drawn_whoever_else_is_there(cohort: Samples) -> None:
    """So paired samples and all samples, or two tasks, have their labels of the same patients."""
    half = make_samples(cohort.labels[:300] * np.nan, subject_id=cohort.subject_id[:300])
    drawn = set(take_fraction(cohort, 0.5, 0).samples.subject_id)
    assert len(drawn & set(take_fraction(half, 0.5, 0).samples.subject_id)) > 65  # of 75; by chance 38


def test_more_subjects_than_asked_are_kept_if_the_classes_need_them() -> None:
    """Each subject of an ordinal task with ten classes has a class of its own."""
    ordinal = make_samples(np.arange(10.0)[:, None])
    part = take_fraction(ordinal, 0.1, 0)
    assert (part.subjects, part.of) == (10, 10)
    assert take_fraction(make_samples(np.full((10, 1), np.nan)), 0.01, 0).subjects == 1
