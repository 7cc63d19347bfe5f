"""A search goes on where it was killed, with the trials that it would have had; processes share it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.training.shared_study import objective, open_study
from training.divergence import NotFinite
from training.study import JOURNAL, MendingLock, Report

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 24


def start(folder: Path, number: int = 0) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.training.shared_study", str(folder), str(TRIALS), str(number)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    study = open_study(tmp_path_factory.mktemp("study") / "it", TRIALS)
    study.run(objective)
    return study.table()


def test_a_search_finds_better_settings_and_prunes_some(uninterrupted: pd.DataFrame) -> None:
    first = uninterrupted.iloc[0]
    assert (first["a.lr"], first["layers"], first["kind"]) == (0.05, 1, "x")  # what was given
    assert uninterrupted["trial"].tolist() == list(range(TRIALS))
    assert set(uninterrupted["state"]) == {"complete", "pruned"}
    assert (uninterrupted["epochs"][uninterrupted["state"] == "pruned"] <= 3).all()
    best = uninterrupted.loc[uninterrupted["value"].idxmax()]
    assert best["value"] > first["value"] + 0.2 and 0.003 < best["a.lr"] < 0.03
    assert not uninterrupted.duplicated(["a.lr"]).any()


def test_a_search_killed_five_times_ends_with_the_trials_that_it_would_have_had(
    uninterrupted: pd.DataFrame, tmp_path: Path
) -> None:
    folder, draw = tmp_path / "it", random.Random(0)
    for count in range(1, 6):
        process = start(folder)
        while len(list(folder.glob("trial*/calls"))) < 2 * count and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.08))
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(folder).wait() == 0
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table0.csv"), uninterrupted, check_exact=False)
    calls = [path.read_text().splitlines() for path in sorted(folder.glob("trial*/calls"))]
    assert len(calls) == TRIALS and all(len(set(lines)) == 1 for lines in calls)  # the same settings again
    assert TRIALS <= sum(map(len, calls)) <= TRIALS + 5


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    processes = [start(folder, number) for number in (0, 1)]
    assert [process.wait() for process in processes] == [0, 0]
    table = open_study(folder, TRIALS).table()
    assert table["trial"].tolist() == list(range(TRIALS))
    calls = [path.read_text().splitlines() for path in folder.glob("trial*/calls")]
    assert [len(lines) for lines in calls] == [1] * TRIALS
    sizes = [len(pd.read_csv(folder / f"table{number}.csv")) for number in (0, 1)]
    assert max(sizes) == TRIALS and min(sizes) >= TRIALS - 1  # the first to end leaves the other its trial


def test_a_trial_that_diverges_fails_and_counts(tmp_path: Path) -> None:
    def diverge(folder: Path, settings: dict[str, float], report: Report) -> float:
        if settings["layers"] > 2:
            raise NotFinite("the loss became nan")
        return objective(folder, settings, report)

    study = open_study(tmp_path / "it", 9)
    study.run(diverge)
    table = study.table()
    assert len(table) == 9 and {"failed", "complete"} <= set(table["state"])
    assert table["value"].isna().equals(table["state"] == "failed")
    failed = next(trial for trial in study.finished() if trial.state.name == "FAIL")
    assert "failed (the loss became nan); lr 0." in study.describe(failed)


def test_a_journal_with_an_incomplete_last_line_is_mended(tmp_path: Path) -> None:
    study = open_study(tmp_path / "it", 2)
    study.run(objective)
    journal = tmp_path / "it" / JOURNAL
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"op_code":4,"worker')  # as a full disk leaves it
    more = open_study(tmp_path / "it", 3)
    more.run(objective)
    assert len(open_study(tmp_path / "it", 3).table()) == 3 and journal.read_bytes().startswith(before)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    MendingLock(str(empty)).acquire()
    assert empty.read_bytes() == b""


def test_settings_that_matter_are_more_important(uninterrupted: pd.DataFrame, tmp_path: Path) -> None:
    study = open_study(tmp_path / "it", 12)
    study.run(objective)
    importance = study.importance(0).set_index("setting")["importance"]
    assert importance.sum() == pytest.approx(1) and importance["kind"] < importance["a.lr"]
    assert open_study(tmp_path / "none", 3).importance(0).empty
