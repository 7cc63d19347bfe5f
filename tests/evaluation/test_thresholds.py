"""Thresholds are those of slow loops over validation, and rates and gaps those of their groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datasets.store import Store
from evaluation.bootstrap import Resamples
from evaluation.predictions import LabelledScores, write_predictions
from evaluation.thresholds import (
    RATES,
    Group,
    Rule,
    Thresholds,
    choose_threshold,
    main,
    make_groups,
    make_table,
    parse_rules,
    rate_table,
    store_of,
)
from tests.samples import make_samples
from tests.stores import write_store

RULES = parse_rules("youden,sensitivity=0.8,alerts=0.25")


def slow_rates(truth: np.ndarray, alert: np.ndarray) -> dict[str, float]:
    """Every rate by counting pairs, NaN for 0 / 0."""
    pairs = [(bool(y), bool(a)) for y, a in zip(truth, alert, strict=True) if y == y]

    def share(of: list[bool]) -> float:
        return sum(of) / len(of) if of else float("nan")

    return {
        "sensitivity": share([a for y, a in pairs if y]),
        "specificity": share([not a for y, a in pairs if not y]),
        "ppv": share([y for y, a in pairs if a]),
        "npv": share([not y for y, a in pairs if not a]),
        "alert_rate": share([a for _, a in pairs]),
    }


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=30))
def test_a_threshold_is_the_best_of_all(rows: list[tuple[int, int]]) -> None:
    truth, probability = np.array([y for y, _ in rows]), np.array([p for _, p in rows]) / 6
    if len(set(truth)) < 2:
        return
    candidates = sorted(set(probability), reverse=True)
    of = {t: slow_rates(truth, probability >= t) for t in candidates}
    for rule in RULES:
        found = choose_threshold(rule, truth, probability)
        if rule.name == "youden":
            best = max(of[t]["sensitivity"] + of[t]["specificity"] for t in candidates)
            assert of[found]["sensitivity"] + of[found]["specificity"] == pytest.approx(best)
        elif rule.name == "sensitivity":
            assert found == max(t for t in candidates if of[t]["sensitivity"] >= 0.8)
        elif few := [t for t in candidates if of[t]["alert_rate"] <= 0.25]:
            assert found == min(few)
        else:
            assert found > candidates[0] and not (probability >= found).any()


@pytest.mark.parametrize(
    "text", ["", "best", "youden=1", "sensitivity", "sensitivity=1", "alerts=-0.1", "alerts=x", "alerts=nan"]
)
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--rules"):
        parse_rules(text)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="--resamples must be 1 or more, not 0"):
        Thresholds(Path("x"), resamples=0)
    with pytest.raises(ValueError, match="--smallest must be 1 subject or more, not 0"):
        Thresholds(Path("x"), smallest=0)
    with pytest.raises(ValueError, match="--subgroups size: size must be one of age"):
        Thresholds(Path("x"), subgroups="size")


def test_the_rates_of_every_resample_are_those_of_its_samples() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, (60, 2)).astype(float)
    truth[:7, 1] = np.nan
    subject, probability = draw.integers(0, 25, 60), draw.random((60, 2)).round(1)
    scores = LabelledScores(("a", "b"), np.arange(60), subject, subject > 3, truth, probability)
    groups = make_groups(pd.DataFrame({"sex": np.where(subject % 2, "F", "M")}), subject)
    assert [(g.variable, g.name) for g in groups] == [("", "all"), ("sex", "F"), ("sex", "M")]
    thresholds, resamples = np.array([[0.3, 0.7], [0.5, 0.2]]), Resamples.of(subject, 6, 1)
    table = rate_table(scores, thresholds, groups, resamples)

    def check(values: dict[str, np.ndarray], index: np.ndarray, first: tuple[int, ...]) -> None:
        for label, rule, group in np.ndindex(2, 2, 3):
            own = index[np.isin(index, groups[group].samples)]
            want = slow_rates(truth[own, label], probability[own, label] >= thresholds[label, rule])
            for name in RATES:
                got = values[name][(*first, label, rule, group)]
                assert got == pytest.approx(want[name], nan_ok=True)

    check(table.values, np.arange(60), ())
    for number in range(6):
        times = resamples.counts(range(number, number + 1))[0][resamples.subject]
        check(table.resampled, np.repeat(np.arange(60), times), (number,))
    assert table.n[0].tolist() == [len(group.samples) for group in groups]
    assert table.n[1].tolist() == [(~np.isnan(truth[group.samples, 1])).sum() for group in groups]
    assert table.positives[1].tolist() == [np.nansum(truth[g.samples, 1]) for g in groups]
    women = groups[1].samples
    assert table.subjects[1, 0, 1] == len(set(subject[women][truth[women, 0] == 1]))
    assert table.subjects[0, 2, 1] == len(set(subject[women][(truth[women] == 0).any(axis=1)]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 200 stays."""
    return write_store(tmp_path_factory.mktemp("thresholds") / "store", stays=200, images=80)


@pytest.fixture
def run(store: Path, tmp_path: Path) -> Path:
    """A run with predictions of two labels for stays of that store; one has one class on validation."""
    folder, draw = tmp_path / "run", np.random.default_rng(0)
    folder.mkdir()
    stays = Store.open_without_samples(store).stays(["stay_id", "subject_id"])
    for split, part in (("val", stays[:60]), ("test", stays[60:])):
        truth = draw.integers(0, 2, (len(part), 3)).astype(float)
        truth[:, 2] = 0 if split == "val" else truth[:, 2]
        guess = (0.4 * truth + 0.6 * draw.random(truth.shape)).clip(0, 1)
        samples = make_samples(truth, part["stay_id"].to_numpy(), part["subject_id"].to_numpy())
        write_predictions(folder / f"predictions_{split}.csv", samples, ("a", "b", "c"), guess)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"store": str(store)}}))
    (folder / "environment.yaml").write_text(yaml.safe_dump({"data": "synthetic data"}))
    return folder


def rates_of(table: pd.DataFrame, **which: str) -> pd.DataFrame:
    return table[(table[list(which)] == pd.Series(which)).all(axis=1)].set_index("metric")


def test_the_table_has_every_group_with_its_rates_and_the_gaps_with_the_worst(run: Path, store: Path) -> None:
    config = Thresholds(run, "youden,alerts=0.2", "sex,sex+race", 30, resamples=60)
    table = make_table(config)
    assert set(table["label"]) == {"a", "b", "macro"}
    assert table.attrs["notes"] == ["no threshold, as they have one class in the validation split: c"]
    val, test = (pd.read_csv(run / f"predictions_{split}.csv") for split in ("val", "test"))
    own = val[val["label"] == "a"]
    threshold = choose_threshold(Rule("youden"), own["truth"].to_numpy(), own["probability"].to_numpy())
    stays = Store.open_without_samples(store).stays().set_index("stay_id")
    rows = test[test["label"] == "a"]
    sex = stays.loc[rows["stay_id"], "sex"].to_numpy()
    found = {}
    for name in ("F", "M"):
        part = rows[sex == name]
        want = slow_rates(part["truth"].to_numpy(), part["probability"].to_numpy() >= threshold)
        found[name] = rates_of(table, label="a", rule="youden", variable="sex", group=name)
        assert found[name]["value"].to_dict() == pytest.approx(want)
        assert (found[name]["threshold"] == threshold).all() and (found[name]["subjects"] == len(part)).all()
        assert (
            (found[name]["low"] <= found[name]["value"]) & (found[name]["value"] <= found[name]["high"])
        ).all()
    gaps = rates_of(table, label="a", rule="youden", variable="sex", group="")
    sensitivity = {name: rows.loc["sensitivity", "value"] for name, rows in found.items()}
    worst, best = sorted(sensitivity, key=lambda name: sensitivity[name])
    assert gaps.loc["tpr_gap", "value"] == pytest.approx(sensitivity[best] - sensitivity[worst])
    assert gaps.loc["tpr_gap", "note"] == f"worst: {worst}, best: {best}"
    assert gaps.loc["tpr_gap", "low"] <= gaps.loc["tpr_gap", "value"] <= gaps.loc["tpr_gap", "high"]
    mean = rates_of(table, label="macro", rule="youden", variable="sex", group="F")
    parts = [rates_of(table, label=label, rule="youden", variable="sex", group="F") for label in "ab"]
    assert mean["value"].to_dict() == pytest.approx(((parts[0]["value"] + parts[1]["value"]) / 2).to_dict())
    assert mean["threshold"].isna().all() and (mean["n"] == 2 * parts[0]["n"]).all()


def test_small_groups_are_shown_as_too_small_and_in_no_gap(run: Path) -> None:
    table = make_table(Thresholds(run, "youden", "sex+race", 24, label=("a",), resamples=20))
    rows = table[(table["variable"] == "sex+race") & table["metric"].isin(RATES)]
    small = rows["subjects"] < 24
    assert small.any() and not small.all()
    assert rows.loc[small, ["value", "low", "high"]].isna().all(axis=None)
    assert set(rows.loc[small, "note"]) == {"too small: fewer than 24 subjects"}
    gap = table[table["metric"] == "tpr_gap"].iloc[0]
    assert gap["subjects"] == rows[~small].drop_duplicates("group")["subjects"].sum()
    every = make_table(Thresholds(run, "youden", "sex+race", 1000, label=("a",), resamples=20))
    none = every[every["metric"].str.endswith("_gap")]
    assert set(none["note"]) == {"no gap: fewer than two groups have a value"} and none["value"].isna().all()


def test_a_group_of_one_class_has_no_sensitivity_and_says_so(run: Path) -> None:
    path = run / "predictions_test.csv"
    rows = pd.read_csv(path)
    rows.loc[rows["has_xray"] == 1, "has_xray"] = np.arange((rows["has_xray"] == 1).sum()) // 3 % 2
    rows.loc[(rows["has_xray"] == 1) & (rows["label"] == "a"), "truth"] = 0
    rows.to_csv(path, index=False)
    table = make_table(Thresholds(run, "youden", "has_xray", label=("a",), resamples=20))
    yes = rates_of(table, variable="has_xray", group="yes")
    assert np.isnan(yes.loc["sensitivity", "value"]) and yes.loc["sensitivity", "note"].startswith("no value")
    assert 0 < yes.loc["specificity", "value"] < 1 and yes.loc["sensitivity", "positives"] == 0
    gaps = rates_of(table, variable="has_xray", group="")
    assert gaps.loc["tpr_gap", "note"].startswith("no gap") and gaps.loc["fpr_gap", "note"].startswith(
        "worst:"
    )


def test_one_subject_and_equal_probabilities_have_values_without_intervals(run: Path) -> None:
    for split in ("val", "test"):
        path = run / f"predictions_{split}.csv"
        rows = pd.read_csv(path).assign(probability=0.5)
        rows.assign(subject_id=7 if split == "test" else rows["subject_id"]).to_csv(path, index=False)
    table = make_table(Thresholds(run, "youden", "sex", label=("a",), resamples=10))
    everyone = rates_of(table, group="all")
    assert everyone.loc["sensitivity", "value"] == 1 and everyone.loc["specificity", "value"] == 0
    assert everyone[["low", "high"]].isna().all(axis=None)
    assert everyone.loc["npv", "note"] == "no value: it would divide by zero"


def test_the_command_prints_what_it_writes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Thresholds(run, "youden,sensitivity=0.9", "sex,sex+race", 30, resamples=20))
    printed = capsys.readouterr().out
    path = run / "thresholds_test.csv"
    assert f"thresholds: {path}" in printed and "SYNTHETIC data" in printed and "too small" in printed
    assert "no threshold, as they have one class in the validation split: c" in printed
    assert "macro, sensitivity=0.9 on validation (a threshold for each label)" in printed
    assert any(line.startswith("TPR gap by sex: ") and "worst: " in line for line in printed.splitlines())
    written = pd.read_csv(path)
    assert (
        set(written["rule"]) == {"youden", "sensitivity=0.9"}
        and len(written) == written.drop_duplicates(["label", "rule", "variable", "group", "metric"]).shape[0]
    )


def test_groups_that_the_store_does_not_have_are_named_and_left_out(run: Path, store: Path) -> None:
    table = make_table(Thresholds(run, "youden", "sex+years,sex", label=("a",), resamples=20))
    assert set(table["variable"]) == {"", "sex"}
    assert table.attrs["notes"] == [f"no groups by years: {store} does not have it; extract again"]


def test_what_cannot_be_read_is_one_error(run: Path) -> None:
    with pytest.raises(ValueError, match="has no label z; choose --label from a, b, c"):
        make_table(Thresholds(run, label=("z",)))
    with pytest.raises(ValueError, match="no label has both classes in the validation split"):
        make_table(Thresholds(run, label=("c",)))
    (run / "config.yaml").unlink()
    with pytest.raises(ValueError, match="does not name the store of the run; give --store"):
        store_of(run)
    pd.read_csv(run / "predictions_val.csv").drop(columns="has_xray").to_csv(run / "predictions_val.csv")
    with pytest.raises(ValueError, match=r"has no column has_xray; .* evaluate again"):
        make_table(Thresholds(run))
    (run / "predictions_val.csv").unlink()
    with pytest.raises(ValueError, match=r"predictions_val\.csv is missing"):
        make_table(Thresholds(run))


def test_groups_know_their_subjects() -> None:
    groups = make_groups(pd.DataFrame({"sex": ["F", "F", "M"]}), np.array([1, 1, 2]))
    assert [group.subjects for group in groups] == [2, 1, 1] and isinstance(groups[0], Group)
