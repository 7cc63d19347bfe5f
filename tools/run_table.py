"""Make the whole result table of each task: `bash tasks/run_all.sh FLAG ...`.

Pretrain with each objective, choose the best epoch of each with a linear probe (--probe), evaluate linearly
and fine-tune from it; train the supervised baselines and fusions. The same command continues after an
interruption: a run with test rows in the results is not run again. Flags go to every pretraining and every
classifier, and override all others.

Environment variables:
    TASK: Tasks, separated by spaces; phenotyping if not set.
    OBJECTIVES: Pretraining objectives; those of the paper, simclr vicreg align, if not set.
    PAIRS: Task whose pairs the encoders learn from, for all tasks. If not set, the encoders of each task
        learn from its own pairs, as in the paper.
    KEEP: Checkpoints of the pretrainings that stay, as --keep of the trainers; best, those of the best epochs
        of the tasks, if not set. To add tasks to PAIRS later, set it to all.
    LABELS: Fractions of the training subjects whose labels are used, such as "0.01 0.1 1": each protocol
        and the supervised baseline are also trained with these, from the last epoch of each pretraining,
        which no label has chosen. RESULTS/<task>_labels_<score>.png shows the scores. If not set: none.
    FLOORS: If set, also fit the floors without a network (training.baselines) for the tasks in FUSIONS_OF.
    ENCODER: Record encoder, as in tasks/launch.sh. Names of runs have it; fusions that do not encode records
        are trained once for all encoders, and those that cannot take this one are left out.
    FUSIONS_OF: Tasks for which the supervised baselines and fusions are trained; TASK if not set.
    JOBS: Runs at once, 1 if not set. With more than one, the output of each goes to RUNS/<name>.log.
    RUNS, RESULTS: Folders of the runs and the result tables; runs and results if not set.
    QUICK: If set, small settings, to try it on a CPU.
    STORE, SEED, LAUNCH: As in tasks/launch.sh.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datasets.data_config import DataConfig, split_label
from datasets.store import Store
from evaluation.plots.labels import Labels
from evaluation.plots.style import save
from evaluation.results import HASH_DIGITS, read_results
from evaluation.tables import summary
from models.encoders import EHR_ENCODERS, CausalEncoder
from models.fusion import FUSIONS, Fusion
from models.objectives import OBJECTIVES
from tasks import TASKS
from tasks.task import Task
from tools.runner import RunFailed, Runner, available_cores
from tools.write_scripts import FLOORS, SIMCLR_VARIANTS, SUPERVISED_SCRIPTS, flag_value
from training.epoch_table import best_epoch, read_epochs

PROTOCOLS = ("lineareval", "finetune")
SMALL = "--image_size 32 --every_hours 24"
RESNET18 = "--vision_backbone resnet18"
# Flags that QUICK adds to the flags of the scripts, by kind of run.
QUICK = {
    "pretrain": f"{SMALL} {RESNET18} --batch_size 64 --transforms_cxr supervised "
    "--optimizer adamw --lr 1e-3 --epochs 5 --warmup_epochs 1 --probe_epochs 30",
    "lineareval": f"{SMALL} --batch_size 256 --epochs 60 --lr 1e-2",
    "finetune": f"{SMALL} --transforms_cxr supervised --schedule cosine --batch_size 32 "
    "--head_start probe --probe_epochs 60 --probe_lr 1e-2 --lr 1e-4 --epochs 3",
    "supervised": f"{SMALL} {RESNET18} --batch_size 32 --lr 1e-3 --epochs 2",
    "floor": "--every_hours 24",
    "supervised on frozen encoders": f"{SMALL} --batch_size 64 --lr 2e-3 --epochs 8",
}


@dataclass(frozen=True)
class TableConfig:
    """What to run, and where its files go."""

    tasks: tuple[str, ...] = ("phenotyping",)
    objectives: tuple[str, ...] = ("simclr", "vicreg", "align")
    pairs: str = ""
    keep: str = "best"
    fusions_of: tuple[str, ...] = tasks
    labels: tuple[float, ...] = ()
    floors: bool = False
    encoder: str = ""
    """Record encoder that is no LSTM; empty: the LSTM."""
    jobs: int = 1
    quick: bool = False
    runs: Path = Path("runs")
    results: Path = Path("results")
    launch: str = ""
    """What starts a program; empty: it runs in a fork of this process (Runner)."""
    flags: tuple[str, ...] = ()
    """Flags of the command line, for every pretraining and every classifier."""
    seed: str = "0"
    """Seed of all runs, with which their names end."""
    splits: str = ""
    """Splits that the flags choose, as names of runs tell them."""
    store: Path = Path("data/mimic")
    """Folder of the store, whose results no other store may share."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown task or objective, or a fraction that is none."""
        _check_known("TASK", (*self.tasks, *self.fusions_of, *filter(None, [self.pairs])), TASKS)
        _check_known("OBJECTIVES", self.objectives, OBJECTIVES)
        _check_known("ENCODER", filter(None, [self.encoder]), EHR_ENCODERS)
        if not all(0 < fraction <= 1 for fraction in self.labels):
            raise ValueError(f"LABELS must be fractions above 0, up to 1, not {self.labels}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], flags: Sequence[str] = ()) -> TableConfig:
        """Read the environment variables. An empty one counts as not set, except FUSIONS_OF: no task.

        >>> config = TableConfig.from_environment({"TASK": "radiology readmission", "QUICK": "1"})
        >>> config.tasks, config.fusions_of, str(config.runs), config.seed
        (('radiology', 'readmission'), ('radiology', 'readmission'), 'runs/quick', '0')
        """
        quick = bool(environment.get("QUICK"))
        encoder = environment.get("ENCODER", "")
        python = "" if quick else environment.get("PYTHON") or "python"
        folder = "quick" if quick else ""
        tasks = environment.get("TASK") or " ".join(cls.tasks)
        return cls(
            tasks=tuple(tasks.split()),
            objectives=tuple((environment.get("OBJECTIVES") or " ".join(cls.objectives)).split()),
            pairs=environment.get("PAIRS", ""),
            keep=environment.get("KEEP") or cls.keep,
            fusions_of=tuple(environment.get("FUSIONS_OF", tasks).split()),
            labels=tuple(map(_fraction, environment.get("LABELS", "").split())),
            floors=bool(environment.get("FLOORS")),
            encoder="" if encoder == "lstm" else encoder,
            jobs=int(environment.get("JOBS") or cls.jobs),
            quick=quick,
            runs=Path(environment.get("RUNS") or cls.runs / folder),
            results=Path(environment.get("RESULTS") or cls.results / folder),
            launch=environment.get("LAUNCH") or python,
            flags=tuple(flags),
            seed=last_value(flags, "--seed") or environment.get("SEED") or cls.seed,
            splits=split_label(_data_config(flags)),
            store=Path(last_value(flags, "--store") or environment.get("STORE") or cls.store),
        )


class TableMaker:
    """Start the runs of a table that are not in the results yet, each after the runs that it needs."""

    def __init__(self, config: TableConfig, runner: Runner) -> None:
        self.config = config
        self.runner = runner

    def make(self) -> None:
        """Make the tables of all tasks."""
        if self.config.pairs:
            self.pretrain_and_classify(self.config.pairs, self.config.tasks)
        else:
            for task in self.config.tasks:
                self.pretrain_and_classify(task, [task])
        for task in self.config.fusions_of:
            self.supervise(task)
            if self.config.floors:
                self.fit_floors(task)
        self.runner.finish()

    def pretrain_and_classify(self, pairs: str, tasks: Sequence[str]) -> None:
        """Pretrain encoders on the pairs of one task, and train the classifiers of `tasks` on them."""
        for objective in self.config.objectives:
            if self.unfinished(objective, tasks):
                self.pretrain(pairs, objective, tasks)
        self.runner.finish()
        for task in tasks:
            for objective in self.config.objectives:
                self.classify_pretrained(pairs, objective, task)
                self.classify_few_labels(pairs, objective, task)
            self.supervise_few_labels(task)

    def pretrain(self, pairs: str, objective: str, tasks: Sequence[str]) -> None:
        """Pretrain both encoders, and train a linear probe for each of the tasks on every epoch."""
        name = self.name(objective, pairs)
        script, flags = objective, ["--name", name, "--resume"]
        if objective in SIMCLR_VARIANTS:
            script = "simclr"
            flags += simclr_flags(objective)
        flags += ["--probe", ",".join(tasks), "--keep", self.config.keep]
        flags += ["--save_dir", str(self.config.runs), *self.preset("pretrain"), *self.config.flags]
        self.start(name, [script_path(pairs, script), *flags])

    def classify_pretrained(self, pairs: str, objective: str, task: str) -> None:
        """Evaluate the best epoch of a pretraining linearly, and fine-tune from it."""
        checkpoint = best_checkpoint(self.config.runs / self.name(objective, pairs), TASKS[task])
        for protocol in PROTOCOLS:
            preset = self.preset(protocol)
            name = self.name(task, protocol, "concatenation", objective)
            self.classify(task, name, protocol, preset, {"CHECKPOINT": str(checkpoint)})

    def classify_few_labels(self, pairs: str, objective: str, task: str) -> None:
        """Train the classifiers on a pretraining's last epoch with few labels."""
        checkpoint = {"CHECKPOINT": str(self.config.runs / self.name(objective, pairs) / "last.ckpt")}
        for fraction, protocol in itertools.product(self.config.labels, PROTOCOLS):
            name = self.name_few_labels(task, protocol, objective, fraction)
            flags = [*self.preset(protocol), "--label_fraction", f"{fraction:g}"]
            self.classify(task, name, protocol, flags, checkpoint)

    def supervise_few_labels(self, task: str) -> None:
        """Train the supervised baseline with few labels; that with all of them is the one of the table."""
        for fraction in self.config.labels:
            name = self.name(task, "supervised", "concatenation")
            if fraction < 1:
                name = self.name(task, "supervised", "concatenation", _labels(fraction))
            flags = [*self.preset("supervised"), "--label_fraction", f"{fraction:g}"]
            self.classify(task, name, SUPERVISED_SCRIPTS["concatenation"], flags, {})

    def supervise(self, task: str) -> None:
        """Train the supervised baselines and fusions of a task."""
        names = {
            fusion: self.name(task, "supervised", fusion, encodes_records="ehr" in kind.encoder_names())
            for fusion, kind in FUSIONS.items()
            if self.can_encode_for(kind)
        }
        encoders = {
            f"CHECKPOINT_{modality.upper()}": str(self.config.runs / names[modality] / "best.ckpt")
            for modality in ("ehr", "cxr")
        }
        for fusion, name in names.items():
            frozen = FUSIONS[fusion].freezes_encoders
            preset = self.preset("supervised on frozen encoders" if frozen else "supervised")
            self.classify(task, name, SUPERVISED_SCRIPTS.get(fusion, fusion), preset, encoders)
            if fusion == "cxr":
                self.runner.finish()  # a fusion of frozen encoders needs those of ehr and cxr

    def can_encode_for(self, fusion: type[Fusion]) -> bool:
        """Return whether a fusion can take the record encoder: some need its states by the hour."""
        needs_states = fusion.intermediate and "ehr" in fusion.encoder_names()
        return not needs_states or issubclass(EHR_ENCODERS[self.config.encoder or "lstm"], CausalEncoder)

    def fit_floors(self, task: str) -> None:
        """Fit the models without a network, which know the store's own splits alone.

        Raises:
            ValueError: The flags choose other splits.
        """
        if self.config.splits:
            raise ValueError("FLOORS: the floors have no --fold and no --split_by; leave one of them out")
        flags = ["--results_dir", str(self.config.results), "--save_dir", str(self.config.runs)]
        if hours := last_value([*self.preset("floor"), *self.config.flags], "--every_hours"):
            flags += ["--every_hours", hours]
        for model in FLOORS:
            name = self.name(task, "baseline", model, encodes_records=False)
            if self.is_tested(task, name):
                print(f"\n== {name} is in {self.config.results / task}.csv", flush=True)
            else:
                words = [
                    "--seed",
                    self.config.seed,
                    "--store",
                    str(self.config.store),
                    "--name",
                    name,
                    *flags,
                ]
                self.start(name, [script_path(task, model), *words])

    def classify(
        self, task: str, name: str, script: str, preset: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Train and test a classifier, unless the results have it."""
        results = self.config.results
        if self.is_tested(task, name):
            print(f"\n== {name} is in {results / task}.csv", flush=True)
            return
        flags = [
            "--name",
            name,
            "--results_dir",
            str(results),
            "--resume",
            "--save_dir",
            str(self.config.runs),
        ]
        self.start(name, [script_path(task, script), *flags, *preset, *self.config.flags], environment)

    def unfinished(self, objective: str, tasks: Sequence[str]) -> list[str]:
        """Return the tasks that lack a classifier on the encoders of an objective."""

        def names(task: str) -> Iterator[str]:
            for protocol in PROTOCOLS:
                yield self.name(task, protocol, "concatenation", objective)
                for fraction in self.config.labels:
                    yield self.name_few_labels(task, protocol, objective, fraction)

        return [task for task in tasks if not all(self.is_tested(task, name) for name in names(task))]

    def is_tested(self, task: str, name: str) -> bool:
        """Return whether the results of a task have test scores of a run; ValueError if on another store."""
        path = self.config.results / f"{task}.csv"
        rows = read_results(path) if path.is_file() else pd.DataFrame(columns=["run", "split", "store"])
        stores = set(rows["store"][(rows["run"] == name) & (rows["split"] == "test")])
        if stores - {""} and self.config.store.is_dir():
            own = Store.open(self.config.store).fingerprint_of(task)[:HASH_DIGITS]
            if own not in stores:
                raise ValueError(
                    f"{path} has {name} of another store than {self.config.store}; give each store its own "
                    "RUNS and RESULTS"
                )
        return bool(stores)

    def name(self, *parts: str, encodes_records: bool = True) -> str:
        """Return the name of a run.

        It ends in the record encoder, if that is no LSTM, the splits, if they are not the store's, and the
        seed.
        """
        encoder = self.config.encoder if encodes_records else ""
        return "-".join(filter(None, (*parts, encoder, self.config.splits, f"seed{self.config.seed}")))

    def name_few_labels(self, task: str, protocol: str, objective: str, fraction: float) -> str:
        """Return the name of a classifier on pretrained encoders that learns from few labels."""
        return self.name(task, protocol, "concatenation", objective, _labels(fraction))

    def preset(self, kind: str) -> list[str]:
        """Return the flags that QUICK adds to runs of a kind."""
        return QUICK[kind].split() if self.config.quick else []

    def start(self, name: str, script: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a script. With one job, wait for its end."""
        print(f"\n== {name}", flush=True)
        environment = {"LAUNCH": self.config.launch, **(environment or {})}
        command = ["bash", *script] if self.config.launch else program_of(script, environment)
        if self.config.jobs == 1:
            self.runner.run(name, command, environment)
        else:
            self.runner.start(name, command, environment)


def script_path(task: str, script: str) -> str:
    """Return the path of a training script of a task.

    >>> script_path("length-of-stay", "simclr")
    'tasks/length_of_stay/train/simclr.sh'
    """
    return f"tasks/{TASKS[task].folder}/train/{script}.sh"


def simclr_flags(objective: str) -> list[str]:
    """Return the flags by which simclr.sh trains another objective.

    >>> " ".join(simclr_flags("clip"))
    '--objective clip --optimizer adamw --lr 1e-4'
    """
    optim = OBJECTIVES[objective].published_optim
    return ["--objective", objective, "--optimizer", optim.optimizer, "--lr", flag_value(optim.lr)]


def last_value(flags: Sequence[str], flag: str) -> str:
    """Return the value of a flag, the last of several; "" without it.

    >>> last_value(["--seed", "1", "--lr", "0.1", "--seed=2"], "--seed")
    '2'
    """
    words = [part for word in flags for part in word.split("=", 1)]
    values = [value for name, value in itertools.pairwise(words) if name == flag]
    return values[-1] if values else ""


def program_of(script: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the Python program that a script starts, with its flags."""
    printing = {**os.environ, **environment, "LAUNCH": r"printf %s\0"}
    printed = subprocess.run(["bash", *script], env=printing, check=True, stdout=subprocess.PIPE, text=True)
    return printed.stdout.split("\0")[:-1]


def best_checkpoint(folder: Path, task: Task) -> Path:
    """Return the checkpoint of the best epoch of a pretraining, the last one if no epoch has a score."""
    epoch = best_epoch(read_epochs(folder / f"results_label_{task.name}.csv", task), task)
    checkpoints = [] if epoch is None else sorted(folder.glob(f"*_epoch_{epoch:02d}.ckpt"))
    return checkpoints[0] if checkpoints else folder / "last.ckpt"


def draw_label_curves(config: TableConfig) -> None:
    """Draw the scores of each task by the fraction of the labels, and print the paths."""
    for task in config.tasks:
        figure, path = Labels(config.results / f"{task}.csv", TASKS[task].monitor).draw()
        save(figure, path)
        print(path)


def _data_config(flags: Sequence[str]) -> DataConfig:
    """Return the settings of the splits among flags; ValueError if they cannot be."""
    fold, year = (last_value(flags, name) for name in ("--fold", "--first_test_year"))
    by_year = last_value(flags, "--split_by") == "year"
    return DataConfig(
        fold=fold, split_by="year" if by_year else "store", first_test_year=int(year) if year else 0
    )


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"LABELS must be fractions above 0, up to 1, not {text!r}") from None


def _labels(fraction: float) -> str:
    """Return the part of a run's name that tells its fraction of labels.

    >>> _labels(0.01), _labels(1.0)
    ('labels0.01', 'labels1')
    """
    return f"labels{fraction:g}"


def _check_known(variable: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{variable}: unknown name {name!r}; choose from {', '.join(known)}")


def main() -> int:
    """Make the tables, print the test scores, and return the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return 0
    try:
        config = TableConfig.from_environment(os.environ, sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if config.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(math.ceil(available_cores() / config.jobs)))
    try:
        with Runner(config.jobs, config.runs) as runner:
            TableMaker(config, runner).make()
        if config.labels and len(config.labels) > 1 and any(config.results.glob("*.csv")):
            draw_label_curves(config)
    except RunFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.status
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tasks = {*config.tasks, *config.fusions_of}
    if any((config.results / f"{task}.csv").is_file() for task in tasks):
        print(f"\nTest scores\n{summary(config.results, tasks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
