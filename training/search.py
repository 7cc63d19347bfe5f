"""Search the settings of a classifier on the validation split: `python -m training.search FLAG ...`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from models.fusion import FUSIONS
from tasks import TASKS
from training.classify_config import ClassifyConfig, check_config
from utils.cli import run_cli
from utils.config import (
    Choices,
    Range,
    decisive_settings,
    replace_settings,
    search_space,
    to_flags,
)
from utils.files import write_text
from utils.lock import waiting_lock
from utils.log import logger
from utils.yaml_files import dump_yaml, read_yaml_mapping

if TYPE_CHECKING:
    from training.study import Report, SharedStudy

RECORD = "search.yaml"
COMPARED = ("task", "store", "split_by", "label_fraction")  # methods with equal values are compared
BUDGET = ("trials", "epochs", "prune")  # equal in methods that are compared
CHECKPOINTS = ("best.ckpt", "last.ckpt")  # of a trial, removed when it has ended


@dataclass(frozen=True)
class SearchConfig:
    """Search the settings of a classifier by the validation split; the test split is not opened.

    Takes the flags of run_gpu.py, which give the first trial and all that is not searched. Several processes
    that run the same command share the trials, and it continues if interrupted. At the end, best.sh has the
    command that trains with the best settings, and tests. Methods that share --search_dir have the same
    number of trials and of epochs.
    """

    program: tyro.conf.Positional[Literal["run_gpu.py"]] = "run_gpu.py"
    """What trains the classifiers; the scripts in tasks/ give it."""
    trials: int = 30
    """Number of trials, of all processes together."""
    search_dir: Path = Path("runs/search")
    """Folder with a folder for each method."""
    settings: tuple[str, ...] = ()
    """Settings to search, such as lr head_lr; all that have a range and an effect if none is given."""
    prune: bool = True
    """End a trial early whose best score so far is below the median of the others at its epoch."""
    format: Literal["png", "pdf", "svg"] = "png"
    """Format of the picture; pdf and svg are sharp at any size, as publishers ask for."""
    classifier: ClassifyConfig = field(default_factory=ClassifyConfig)

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"--trials must be 1 or more, not {self.trials}")


def space_of(config: ClassifyConfig) -> dict[str, Range | Choices]:
    """Return what is tried of the settings that have an effect on a classifier, by dotted path."""
    own = {item.name for item in FUSIONS[config.fusion].settings.__dataclass_fields__.values()}
    untrained = set(FUSIONS[config.fusion].encoder_names()) - set(config.encoder_checkpoints)
    trains_encoders = config.protocol != "lineareval" and not FUSIONS[config.fusion].freezes_encoders
    has_effect = {
        "optim.lr": True,
        "optim.weight_decay": True,
        "optim.head_lr": trains_encoders and config.protocol == "finetune",
        "optim.layer_lr_decay": trains_encoders and config.protocol == "finetune",
        "encoders.ehr_dropout": trains_encoders and "ehr" in untrained,
    }
    return {
        path: tried
        for path, tried in search_space(ClassifyConfig).items()
        if has_effect.get(path) or (path.startswith("fusion_settings.") and path.rpartition(".")[2] in own)
    }


def chosen_space(config: SearchConfig) -> dict[str, Range | Choices]:
    """Return what is tried of the settings in --settings; ValueError if one has no range or no effect."""
    space = {path.rpartition(".")[2]: path for path in space_of(config.classifier)}
    if unknown := [name for name in config.settings if name not in space]:
        raise ValueError(
            f"--settings {', '.join(unknown)}: not searched for this classifier; choose from "
            f"{', '.join(space)}"
        )
    tried = space_of(config.classifier)
    return {space[name]: tried[space[name]] for name in config.settings or space}


def search(config: SearchConfig) -> None:
    """Run trials until there are enough, then write the results of the study."""
    from datasets.other_splits import open_store  # with all that --help does not need
    from datasets.samples import load_samples
    from evaluation.scoring import has_scorable_label
    from training.classify import default_name, validate
    from training.study import SharedStudy
    from utils import checkpoint

    base = config.classifier
    check(config)
    check_config(base)
    store = open_store(base.data)
    origins = [checkpoint.read_origin(Path(path)) for path in base.encoder_checkpoints.values()]
    folder = config.search_dir / default_name(base, origins)
    space = chosen_space(config)
    task = TASKS[base.task]
    if not has_scorable_label(task, load_samples(store, task, "val", base.data, base.run.seed).labels):
        raise ValueError(f"no label of {base.task} has two classes in the validation split, which chooses")
    record = {
        "data": store.data_description, "task": task.name, "monitor": task.monitor,
        "store": store.fingerprint_of(task.name), "split_by": store.split_name,
        "label_fraction": base.label_fraction, "trials": config.trials, "epochs": base.optim.epochs,
        "prune": config.prune, "seed": base.run.seed,
        "searched": {path: _plain(tried) for path, tried in space.items()},
        "settings": decisive_settings(base),
    }  # fmt: skip
    take_up(folder, record)
    first = {path: _first_value(base, path) for path in space}
    study = SharedStudy(folder, space, first, config.trials, True, base.run.seed, config.prune)

    def objective(trial: Path, values: Mapping[str, Any], report: Report) -> float:
        run = replace(base.run, name=trial.name, save_dir=folder, resume=True)
        trained = validate(replace(replace_settings(base, values), run=run), report)
        return trained.result.best

    logger.info(f"searching {', '.join(space)} on {store.data_description}; the test split is not opened")
    study.run(objective, remove_checkpoints)
    if len(study.finished()) < config.trials:
        left = config.trials - len(study.finished())
        logger.info(f"{left} trials are running in other processes, of which the last writes the results")
        return
    write_results(config, folder, study, task.monitor)


def remove_checkpoints(folder: Path) -> None:
    """Remove what a trial that has ended leaves to continue from."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def check(config: SearchConfig) -> None:
    """Raise ValueError if a search cannot work with these settings."""
    if config.classifier.mode != "train":
        raise ValueError("--mode eval trains nothing; leave it out")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            "a trial runs in one process; start the same command several times, and they share the trials"
        )


def take_up(folder: Path, record: Mapping[str, object]) -> None:
    """Record a study, or check that it goes on as it began, with the budget of the others beside it.

    Raises:
        ValueError: It began with other settings, or a study in the same folder has another budget.
    """
    with waiting_lock(folder.parent / ".search.lock"):
        for path in sorted(folder.parent.glob(f"*/{RECORD}")):
            other = read_yaml_mapping(path)
            if path.parent == folder and (names := differing(other, record, record)):
                raise ValueError(
                    f"{folder} began with other values of {', '.join(names)}; see its {RECORD}, and use "
                    "these or another --search_dir"
                )
            is_compared = not differing(other, record, COMPARED)
            if is_compared and (names := differing(other, record, BUDGET)):
                values = " ".join(f"--{name} {other.get(name)}" for name in names)
                raise ValueError(
                    f"{path.parent} was searched with {values}, and methods are compared at equal budgets; "
                    "use that, or another --search_dir"
                )
        text = dump_yaml(dict(record))
        if not (folder / RECORD).is_file():
            write_text(folder / RECORD, text)


def differing(a: Mapping[str, object], b: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """Return those of some keys whose values differ."""
    return [name for name in names if a.get(name) != b.get(name)]


def write_results(config: SearchConfig, folder: Path, study: SharedStudy, monitor: str) -> None:
    """Write trials.csv, importance.csv, their picture, and best.sh; print the best trial and its command."""
    from evaluation.plots.search import Search
    from evaluation.plots.style import save

    table = study.table()
    write_text(folder / "trials.csv", table.to_csv(index=False))
    write_text(folder / "importance.csv", study.importance(config.classifier.run.seed).to_csv(index=False))
    completed = table[table["state"] == "complete"]
    if completed.empty:
        raise ValueError(
            f"{folder}: no trial completed, so none is the best; see trials.csv, and use a new --search_dir"
        )
    best = study.study.best_trial
    settings = replace_settings(config.classifier, best.params)
    path = folder / "best.sh"
    name = config.classifier.run.name or f"{folder.name}-searched"
    write_text(
        path, script(settings, name, f"trial {best.number} of {len(table)}", monitor, float(best.values[0]))
    )
    path.chmod(0o755)
    figure, picture = Search(folder).draw()
    picture = picture.with_suffix(f".{config.format}")
    save(figure, picture)
    counts = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
    logger.info(f"\n{counts}\nbest: {study.describe(best)}\ntrials: {folder / 'trials.csv'}\n{picture}")
    logger.info(f"train with these settings, and test:\n  bash {path}")


def script(config: ClassifyConfig, name: str, which: str, monitor: str, value: float) -> str:
    """Return a shell script that trains and tests a classifier; its seed is SEED, or that of the search."""
    base = ClassifyConfig().run
    plain = replace(config, run=replace(config.run, name="", seed=base.seed, resume=False))
    flags = shlex.join(to_flags(plain))
    return (
        "#!/usr/bin/env bash\n"
        f"# The best settings of a search: {which}, {monitor} {value:.4f} on the validation split.\n"
        "# Run it from the root of the repository; flags after its name override these.\n"
        "set -euo pipefail\n"
        f"seed=${{SEED:-{config.run.seed}}}\n"
        f"exec ${{LAUNCH:-python}} run_gpu.py {flags} \\\n"
        f'  --seed "$seed" --name {shlex.quote(name)}-with-seed"$seed" "$@"\n'
    )


def _first_value(config: ClassifyConfig, path: str) -> Any:
    """Return the value of a setting in the first trial: that of the flags; for --head_lr 0, --lr.

    A dropout that is not given is none, as published for the LSTM.
    """
    if path == "optim.head_lr" and not config.optim.head_lr:
        return config.optim.lr
    if path == "encoders.ehr_dropout" and config.encoders.ehr_dropout is None:
        return 0.0
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _plain(tried: Range | Choices) -> object:
    return dict(vars(tried)) if isinstance(tried, Range) else list(tried)


if __name__ == "__main__":
    run_cli("training.search:search", SearchConfig)
