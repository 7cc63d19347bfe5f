"""A study of trials in a journal file: several processes share it, and it goes on where they were killed."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from training.divergence import NotFinite
from utils.config import Choices, Range
from utils.lock import Locked, hold, releasing_locks, waiting_lock
from utils.log import logger
from utils.run_config import LOCK

if TYPE_CHECKING:
    from optuna.study import Study

JOURNAL = "journal.log"
STARTUP_TRIALS = 8  # drawn at random, before those near the best ones are more likely
PRUNED_AFTER = 5  # trials that are never stopped early, whose epochs are what the others are compared with
REASON = "reason"  # attribute of a trial that did not complete
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

Settings = Mapping[str, Any]  # values by dotted path
Report = Callable[[int, float], None]  # gets the epoch and its score; ends the trial by TrialPruned
Objective = Callable[[Path, Settings, Report], float]


class MendingLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal, which then removes an incomplete last line, as a full disk leaves it.

    Optuna appends to such a line, and can then read the journal no more.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = Path(path)

    def acquire(self) -> bool:
        """Take the lock, and mend the journal."""
        acquired: bool = super().acquire()
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if end and file.read() != b"\n":
                content = self.path.read_bytes()
                file.truncate(content.rfind(b"\n") + 1)
        return acquired


class RepeatableSampler(BaseSampler):
    """A TPE sampler whose draws depend on the seed, the trial's number and the finished trials alone.

    Optuna's own sampler draws from one stream of random numbers, which begins again in each process: the
    first trials after an interruption would repeat those of the beginning. Trial 0 has the values `first`.
    """

    def __init__(self, seed: int, first: Settings) -> None:
        self.seed, self.first = seed, first

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return that each setting is drawn on its own."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no values, since each setting is drawn on its own."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of a setting in a trial."""
        if trial.number == 0:
            return self.first[param_name]
        key = f"{self.seed} {trial.number} {param_name}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big")
        sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class SharedStudy:
    """A study in a folder, whose trials all processes that open it share.

    Args:
        folder: Where the journal and the folders of the trials are.
        space: What is tried of each setting.
        first: The values of trial 0; those outside of the space are moved to its nearest end.
        trials: Number of trials of all processes together.
        maximize: Whether a larger score is better.
        seed: Seed of the draws.
        prune: Whether a trial ends early whose best score so far is below the median of the others at its
            epoch.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, Range | Choices],
        first: Settings,
        trials: int,
        maximize: bool,
        seed: int,
        prune: bool,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it says of each trial, we say
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.trials = folder, trials
        self.space = space
        self.first = {name: _inside(first[name], tried) for name, tried in space.items()}
        journal = str(folder / JOURNAL)
        with waiting_lock(folder / ".open.lock"):
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(journal, lock_obj=MendingLock(journal))),
                study_name=folder.name,
                direction="maximize" if maximize else "minimize",
                sampler=RepeatableSampler(seed, self.first),
                pruner=MedianPruner(PRUNED_AFTER) if prune else NopPruner(),
                load_if_exists=True,
            )

    def run(self, objective: Objective, clean: Callable[[Path], None] = lambda folder: None) -> None:
        """Run trials until all are finished or run in other processes.

        `objective` is given the folder of a trial and its settings, and returns its score. `clean` is given
        the folder of each trial that has ended, if need be more than once.
        """
        while True:
            with releasing_locks():
                trial = self._next()
                if trial is None:
                    break
                self._run(trial, objective)
                clean(self.trial_folder(trial.number))
        for ended in self.finished():  # of a process that was killed before it did so
            clean(self.trial_folder(ended.number))

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that ended: completed, pruned or failed."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / f"trial{number:03d}"

    def table(self) -> pd.DataFrame:
        """Return a row for each finished trial: its number, state, score, epochs and settings."""
        rows = []
        for trial in self.finished():
            row = {"trial": trial.number, "state": STATES[trial.state], "value": trial.value}
            row |= {"epochs": len(trial.intermediate_values)}
            rows.append(row | {name: trial.params.get(name) for name in self.space})
        return pd.DataFrame(rows).sort_values("trial", ignore_index=True)

    def importance(self, seed: int) -> pd.DataFrame:
        """Return the share of each setting in the variance of the score (fANOVA), the largest first.

        It is empty if fewer than four trials completed, or all with the same score.
        """
        values = [trial.value for trial in self.finished() if trial.state == TrialState.COMPLETE]
        if len(values) < 4 or len(set(values)) < 2:
            return pd.DataFrame(columns=["setting", "importance"])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return pd.DataFrame(shares.items(), columns=["setting", "importance"])

    def _next(self) -> Trial | None:
        """Return a trial that no process runs, and hold its folder; None if there is none left.

        A trial whose process has ended without finishing it comes first, with the settings that it had.
        """
        with waiting_lock(self.folder / ".next.lock"):
            known = self.study.get_trials(deepcopy=False)
            for one in known:
                if one.state == TrialState.RUNNING and self._hold(one.number):
                    return self._with_settings(Trial(self.study, one._trial_id))
            if len(known) >= self.trials:
                return None
            trial = self.study.ask()
            self._hold(trial.number)
            return self._with_settings(trial)

    def _hold(self, number: int) -> bool:
        """Hold the folder of a trial; return whether no other process does."""
        folder = self.trial_folder(number)
        try:
            hold(folder / LOCK, folder, "wait until it has ended")
        except Locked:
            return False
        return True

    def _with_settings(self, trial: Trial) -> Trial:
        """Draw the settings of a trial that it does not have yet."""
        for name, tried in self.space.items():
            if not isinstance(tried, Range):
                trial.suggest_categorical(name, tried)
            elif isinstance(self.first[name], int):
                trial.suggest_int(name, int(tried.low), int(tried.high), log=tried.log)
            else:
                trial.suggest_float(name, tried.low, tried.high, log=tried.log)
        return trial

    def _run(self, trial: Trial, objective: Objective) -> None:
        folder, score = self.trial_folder(trial.number), math.nan

        def report(epoch: int, value: float) -> None:
            if not math.isnan(value):
                trial.report(value, epoch)
                if trial.should_prune():
                    trial.set_user_attr(REASON, f"below the median of the other trials at epoch {epoch}")
                    raise optuna.TrialPruned

        try:
            score = objective(folder, trial.params, report)
            self.study.tell(trial, score)
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except NotFinite as error:
            trial.set_user_attr(REASON, str(error))
            self.study.tell(trial, state=TrialState.FAIL)
        logger.info(self.describe(self.study.get_trials(deepcopy=False)[trial.number]))

    def describe(self, trial: FrozenTrial) -> str:
        """Return a line on a finished trial."""
        settings = ", ".join(f"{name.rpartition('.')[2]} {_text(v)}" for name, v in trial.params.items())
        value = "" if trial.value is None else f" {trial.value:.4f}"
        reason = f" ({trial.user_attrs[REASON]})" if REASON in trial.user_attrs else ""
        return f"trial {trial.number} of {self.trials}: {STATES[trial.state]}{value}{reason}; {settings}"


def _inside(value: Any, tried: Range | Choices) -> Any:
    """Return a value, or the nearest end of its range.

    >>> _inside(0.0, Range(1e-5, 0.1, log=True)), _inside(3, Range(1, 2)), _inside("a", ("a", "b"))
    (1e-05, 2, 'a')
    """
    return type(value)(min(max(value, tried.low), tried.high)) if isinstance(tried, Range) else value


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
