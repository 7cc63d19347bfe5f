"""A whole study on synthetic patients by one command: `python -m tools.study`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.results import read_results
from tasks import TASKS, TaskName
from tools.demo import step
from tools.run_table import program_of
from tools.runner import RunFailed, Runner, available_cores
from utils.choices import require_choice
from utils.cli import run_cli
from utils.files import write_text
from utils.lock import hold
from utils.yaml_files import dump_yaml, read_yaml_mapping

SMALL = "--image_size 32 --vision_backbone resnet18"
PRETRAIN = (
    f"{SMALL} --transforms_cxr supervised --batch_size 128 --optimizer adamw --lr 2e-3 --epochs 8 "
    "--warmup_epochs 1"
)
# The methods that are compared: flags of their search, which starts from these values.
METHODS = {
    "lineareval": "--protocol lineareval --lr 1e-3",
    "finetune": "--protocol finetune --head_start probe --probe_epochs 20 --lr 1e-5",
    "supervised": "--protocol supervised --lr 1e-3",
}
PRETRAINED = ("lineareval", "finetune")
GROUPS = "age,sex,race,admission"
RECORD = "study.yaml"


@dataclass(frozen=True)
class StudyConfig:
    """Make a whole study on synthetic patients, from nothing to one page: some minutes on two cores.

    Patients and X-rays, a store, and SimCLR with each seed. Then a search of the settings of linear
    evaluation, fine-tuning and supervised training, with equal budgets, on the validation split. Each method
    with its best settings, with each seed and fraction of the labels. Thresholds and decision curves. A
    picture of few labels, OUT/report.html and a table. The scores have no clinical meaning. The same command
    continues after an interruption.
    """

    out: Path = Path("runs/study")
    """Folder of the study: raw data, store, runs, results and the page."""
    task: TaskName = "in-hospital-mortality"
    """What to predict."""
    patients: int = 2000
    """Number of synthetic patients."""
    trials: int = 6
    """Trials of the search of each method."""
    epochs: int = 4
    """Epochs of each training of a method."""
    seeds: int = 3
    """Number of seeds, from 0; settings are searched with the first."""
    label_fractions: tuple[float, ...] = (0.05, 0.1, 0.3, 1.0)
    """Fractions of the training subjects whose labels are used; thresholds need 1."""
    jobs: int = 2
    """Trainings at once."""

    def __post_init__(self) -> None:
        require_choice(TASKS, self.task, "task")
        if TASKS[self.task].kind == "ordinal":
            raise ValueError(f"--task {self.task}: its bins have no thresholds; choose another task")
        for name in ("patients", "trials", "epochs", "seeds", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, not {getattr(self, name)}")
        if 1.0 not in self.label_fractions or not all(0 < part <= 1 for part in self.label_fractions):
            raise ValueError(
                f"--label_fractions must be above 0, up to 1, and 1 be among them, not {self.label_fractions}"
            )

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.out / "runs"

    @property
    def results(self) -> Path:
        """Folder of the result tables."""
        return self.out / "results"

    @property
    def table(self) -> Path:
        """Table of the results."""
        return self.results / f"{self.task}.csv"

    @property
    def data(self) -> list[str]:
        """Flags of every training."""
        return ["--task", self.task, "--store", str(self.out / "store")]


@dataclass(frozen=True)
class Training:
    """A method with the best settings of its search, a seed and a fraction of the labels."""

    method: str
    seed: int
    fraction: float

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"{self.method}-labels{self.fraction:g}-seed{self.seed}"


def raw_data(config: StudyConfig) -> list[str]:
    """Return the command that makes the raw tables and X-rays."""
    flags = f"--patients {config.patients} --seed 0 --image_size 64 --paired 0.9 --workers 0"
    return ["-m", "datasets.synthetic", "--out", str(config.out / "raw"), *flags.split()]


def extraction(config: StudyConfig) -> list[str]:
    """Return the command that extracts the store."""
    raw = config.out / "raw"
    inputs = ["--mimic_iv", str(raw / "mimic-iv"), "--mimic_cxr", str(raw / "mimic-cxr-jpg")]
    return ["-m", "datasets.extract", *inputs, "--out", str(config.out / "store")]


def pretraining(config: StudyConfig, seed: int) -> list[str]:
    """Return the command that pretrains both encoders with a seed."""
    run = ["--name", f"simclr-seed{seed}", "--save_dir", str(config.runs), "--seed", str(seed), "--resume"]
    return ["simclr_trainer.py", *config.data, *run, *PRETRAIN.split()]


def start_of(config: StudyConfig, method: str, seed: int) -> list[str]:
    """Return the flags that say where the encoders of a method start."""
    encoders = config.runs / f"simclr-seed{seed}" / "last.ckpt"
    return ["--load_state", str(encoders)] if method in PRETRAINED else SMALL.split()[2:]


def search(config: StudyConfig, method: str) -> list[str]:
    """Return the command that searches the settings of a method."""
    places = ["--save_dir", str(config.runs), "--results_dir", str(config.results)]
    budget = ["--trials", str(config.trials), "--epochs", str(config.epochs), "--batch_size", "64"]
    flags = [*METHODS[method].split(), *start_of(config, method, 0), "--image_size", "32"]
    flags += ["--name", method, "--subgroups", GROUPS, "--search_dir", str(config.out / "search")]
    return ["-m", "training.search", *config.data, *flags, *places, *budget]


def trainings(config: StudyConfig) -> list[Training]:
    """Return all trainings, the slowest first."""
    return [
        Training(method, seed, fraction)
        for fraction in sorted(config.label_fractions, reverse=True)
        for method in reversed(METHODS)
        for seed in range(config.seeds)
    ]


def search_folder(config: StudyConfig, method: str) -> Path:
    """Return where the search of a method writes its results."""
    objective = "simclr" if method in PRETRAINED else ""
    name = "-".join(filter(None, (config.task, method, "concatenation", objective, "seed0")))
    return config.out / "search" / name


def training(config: StudyConfig, which: Training) -> list[str]:
    """Return the command that trains and tests a method with the best settings of its search."""
    flags = ["--name", which.name, "--label_fraction", f"{which.fraction:g}", "--resume"]
    script = search_folder(config, which.method) / "best.sh"
    return program_of(
        [str(script), *flags, *start_of(config, which.method, which.seed)], {"SEED": str(which.seed)}
    )


def examinations(config: StudyConfig, run: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what is missing of the thresholds and decision curves of a run: name and command."""
    resamples = ["--seed", "0"]
    for module in ("thresholds", "decision"):
        groups = ["--subgroups", GROUPS] if module == "thresholds" else []
        if not (run / f"{module}_test.csv").is_file():
            yield f"{run.name}-{module}", ["-m", f"evaluation.{module}", str(run), *groups, *resamples]


def products(config: StudyConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that make the table, the picture and the page: title and command."""
    folders = ["--results_dir", str(config.results), "--save_dir", str(config.runs)]
    monitor = TASKS[config.task].monitor
    if len(config.label_fractions) > 1:
        labels = ["-m", "evaluation.plots", "labels", str(config.table), "--metric", monitor]
        yield "picture of few labels", [*labels, "--format", "pdf"]
    yield "page", ["-m", "evaluation.report", *folders, "--out", str(config.out / "report.html")]
    yield "test scores", ["-m", "evaluation.tables", "paper", "--task", config.task, *folders]


def tested(table: Path) -> set[str]:
    """Return the names of the runs with test scores in a table of results."""
    if not table.is_file():
        return set()
    rows = read_results(table)
    return set(rows["run"][rows["split"] == "test"])


def take_up(config: StudyConfig) -> None:
    """Record the settings of the study; ValueError if it began with others."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "jobs")}
    settings["label_fractions"] = list(config.label_fractions)
    path = config.out / RECORD
    if not path.is_file():
        write_text(path, dump_yaml(settings, allow_unicode=False))
    began = read_yaml_mapping(path)
    if names := [f"--{name} {began.get(name)}" for name in settings if began.get(name) != settings[name]]:
        raise ValueError(f"{config.out} began with {', '.join(names)}; use that, or another --out")


class Study:
    """Run the steps of a study that are not done yet."""

    def __init__(self, config: StudyConfig, runner: Runner) -> None:
        self.config = config
        self.runner = runner
        self.threads = {"OMP_NUM_THREADS": str(max(1, available_cores() // config.jobs))}

    def make(self) -> None:
        """Run all steps."""
        config = self.config
        self.make_store()
        with step(f"SimCLR, {config.seeds} seeds"):
            self.start_all({f"simclr-seed{seed}": pretraining(config, seed) for seed in range(config.seeds)})
        with step(f"search of {', '.join(METHODS)}: {config.trials} trials of {config.epochs} epochs each"):
            self.start_all({
                f"search-{method}": search(config, method) for method in reversed(METHODS)
                if not (search_folder(config, method) / "best.sh").is_file()
            })  # fmt: skip
        with step(f"methods with their best settings, {config.seeds} seeds, few labels"):
            done = tested(config.table)
            left = [which for which in trainings(config) if which.name not in done]
            self.start_all({which.name: training(config, which) for which in left})
        with step("thresholds and decision curves"):
            runs = [config.runs / which.name for which in trainings(config) if which.fraction == 1]
            self.start_all(dict(pair for run in runs for pair in examinations(config, run)))
        for title, command in products(config):
            with step(title):
                self.runner.run(title, command)

    def make_store(self) -> None:
        """Make the raw data and the store. Raw data are complete if the store has been begun."""
        store = self.config.out / "store"
        if not store.is_dir():
            with step("raw data"):
                shutil.rmtree(self.config.out / "raw", ignore_errors=True)
                self.runner.run("raw data", raw_data(self.config))
        with step("extraction"):
            self.runner.run("extraction", extraction(self.config))

    def start_all(self, commands: dict[str, Sequence[str]]) -> None:
        """Run commands, several at once, and wait for them."""
        for number, (name, command) in enumerate(commands.items(), 1):
            self.runner.start(name, command, self.threads)
            print(f"{number} of {len(commands)}: {self.runner.log_dir / name}.log", flush=True)
        self.runner.finish()


def main(config: StudyConfig) -> None:
    """Run all steps, and print the test scores and the path of the page."""
    began = time.monotonic()
    hold(config.out / ".study.lock", config.out, "wait until it has ended")
    take_up(config)
    try:
        with Runner(config.jobs, config.out / "logs") as runner:
            Study(config, runner).make()
    except RunFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.status)
    print(f"\n{config.out / 'report.html'}\nall of it took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    run_cli(main, StudyConfig)
