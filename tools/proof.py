"""Whether two versions of the code do the same, bit for bit, on a small synthetic cohort.

python tools/proof.py record --tree DIR --out FILE.json [--work DIR]
python tools/proof.py compare BEFORE.json AFTER.json [--named FILE.yaml]

`record` runs the commands of `plan` in the code of a folder, and writes {name: hash or short value} of all
that they leave: stores, exports, weights, logs, predictions, results, tables, figures, and what they say. The
first word of a name is its area. Left out are wall-clock times, speed, memory and the code's commit; the work
folder is written as WORK. Two records can be compared only if they were made on the same machine.

`compare` exits with 1 if a difference has no reason in FILE.yaml, which is a list of entries such as

    - {pattern: "logs/*/gradient_norm", reason: the log has a new column}
    - {from: "store/*/cxr.npy", to: "store/*/images.npy", reason: renamed}

A pattern is one of fnmatch. Under `from` and `to` each * stands for the same text in both, and the value must
still be equal.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
import yaml

Facts = dict[str, str]

# What the commands of `plan` are called in a tree that has been restructured: one that has a folder NEW.
NEW = "training"
MOVED = {
    "-m utils.results": "-m evaluation.tables",
    "-m utils.plots heat": "-m evaluation.plots heatmap",
    "-m utils.plots map": "-m evaluation.plots embedding",
    "-m utils.plots": "-m evaluation.plots",
    "-m tasks.summary": "-m evaluation.tables summary",
    " --resamples 50 --store {store}": " --resamples 50",
}

TASKS = (
    "phenotyping",
    "in-hospital-mortality",
    "decompensation",
    "length-of-stay",
    "radiology",
    "readmission",
)
AT_ONCE = 2  # commands that run beside each other
STORES = ("medmod", "corrected", "lists")
LEFT_OUT = re.compile(r"commit|started|seconds|\w*per_second\w*|\w*memory\w*")  # columns that tell of time
TIMES = {  # what differs between two equal commands in what they say
    r"\d+ samples/s": "N samples/s",
    r"ETA (\d+ days?, )?[\d:]+": "ETA T",
    r"^\[(\w+)\] [\d.]+ s$": r"[\1] T s",
    r"^resumed with another setting: commit .*\n": "",
}
KEPT = ("PATH", "HOME", "LANG", "TMPDIR")  # of the environment
SET = {
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TZ": "UTC",
}
HASH = 32  # characters of a hash that are kept
SHORT = 160  # characters of a value that is kept as it is
TAIL = 3000  # characters of a failed command's output that are shown
SHOWN = 12  # lines of a text's difference that are shown


# What is run.


@dataclass(frozen=True)
class Command:
    """A command line with {work} and {store} in it, as today's modules are called.

    area: under which what it says is kept.
    """

    name: str
    line: str
    area: str = "said"
    environment: Mapping[str, str] = field(default_factory=dict)


class Phase(NamedTuple):
    """Commands that need nothing of each other; `before` is done ahead of them, with the work folder."""

    commands: Sequence[Command]
    at_once: int = AT_ONCE
    before: Callable[[Path], None] | None = None


TRIAL = "--store {store} --save_dir {work}/runs --image_size 32"
TORCHRUN = "python -m torch.distributed.run --standalone --nproc-per-node 2"
PAIRED = "--task in-hospital-mortality --vision_backbone resnet18 --batch_size 32 --epochs 2"
SUPERVISED = (
    "--protocol supervised --task in-hospital-mortality --batch_size 32 --epochs 2 --optimizer adam "
    "--lr 1e-3 --schedule plateau --plateau_patience 0 --gamma 0.5 --transforms_cxr supervised"
)
FRESH = f"{SUPERVISED} --vision_backbone resnet18"
LINEAR = "--protocol lineareval --epochs 4 --batch_size 128 --lr 1e-2"
TUNED = "--protocol finetune --epochs 1 --batch_size 32 --lr 3e-5 --head_lr 1e-2 --schedule cosine"
HOURLY = "--every_hours 24"
SIMCLR = "--load_state {work}/runs/simclr/last.ckpt"
ENCODERS = (
    "--load_state_ehr {work}/runs/supervised-ehr/best.ckpt "
    "--load_state_cxr {work}/runs/supervised-cxr/best.ckpt"
)
ADAMW = "--optimizer adamw --lr 1e-4 --warmup_epochs 0 --schedule constant --transforms_cxr supervised"
TSIMCLR = f"--objective tsimclr --denominator full {ADAMW}"


def pretrain(name: str, program: str, flags: str = "", start: str = "python") -> Command:
    """Return a pretraining; its folder is called like the command."""
    run, resumed, _ = name.partition("+")
    flags = f"{flags} --resume" if resumed else flags
    return Command(name, f"{start} {program} {TRIAL} {PAIRED} --name {run} {flags}")


def classify(name: str, flags: str, results: str = "results", start: str = "python") -> Command:
    """Return a classifier; its folder is called like the command."""
    run, resumed, _ = name.partition("+")
    flags = f"{flags} --resume" if resumed else flags
    where = f"--results_dir {{work}}/{results} --bootstrap 20"
    return Command(name, f"{start} run_gpu.py {TRIAL} {where} --name {run} {flags}")


def plan(tree: Path) -> list[Phase]:
    """All commands, in the order in which one needs another."""
    return [
        Phase([synthetic("synthetic", "--patients 240 --paired 0.9 --out {work}/raw")]),
        Phase([synthetic("films", "--for_stays {work}/raw/mimic-iv --out {work}/films"), *extractions()],
              before=write_subject_lists),
        Phase([*pretrainings(), *exports(), *single_modalities()]),
        Phase([*resumed_pretraining(), *linear(), *tuned(), *fusions(), *choices_of_pairs()]),
        Phase([*epochs(), *again()]),
        Phase(torchruns(), at_once=1),
        Phase([*tables(), *figures(), *scripts(tree)], before=write_tables),
    ]  # fmt: skip


def synthetic(name: str, flags: str) -> Command:
    """Raw data."""
    return Command(name, f"python -m datasets.synthetic --seed 7 --image_size 64 {flags}")


def extractions() -> list[Command]:
    """Return extractions: both protocols; and no X-rays, lists of subjects, bins of two hours."""
    start = "python -m datasets.extract --mimic_iv {work}/raw/mimic-iv"
    xrays = "--mimic_cxr {work}/raw/mimic-cxr-jpg"
    lists = "--test_subjects {work}/test_subjects.csv --val_subjects {work}/val_subjects.csv"
    flags = {
        "medmod": f"{xrays} --protocol medmod",
        "corrected": f"{xrays} --protocol corrected --uncertain ignore --views AP PA",
        "lists": f"{lists} --timestep 2 --uncertain ones",
    }
    return [
        Command(f"extract-{name}", f"{start} {flags[name]} --out {{work}}/stores/{name}") for name in STORES
    ]


def exports() -> list[Command]:
    """Return what reads whole stores."""
    verified = [
        Command(f"verify-{name}", f"python -m datasets.verify {{work}}/stores/{name}") for name in STORES
    ]
    flags = "--store {{work}}/stores/{0} --out {{work}}/exports/{0}"
    return verified + [
        Command(f"export-{name}", f"python -m datasets.export --layout medfuse {flags.format(name)}")
        for name in STORES
    ]


def pretrainings() -> list[Command]:
    """All objectives; tsimclr has one epoch and is resumed later."""
    return [
        pretrain("simclr", "simclr_trainer.py", "--warmup_epochs 1"),
        pretrain("tsimclr", "simclr_trainer.py", f"{TSIMCLR} --epochs 1"),
        pretrain("clip", "simclr_trainer.py", f"--objective clip --retrieve_cxr all {ADAMW}"),
        pretrain("siglip", "simclr_trainer.py", f"--objective siglip --width 2 --task radiology {ADAMW}"),
        pretrain("vicreg", "vicreg_trainer.py", "--warmup_epochs 1 --lars_exclude none"),
        pretrain("align", "align_trainer.py"),
    ]


def resumed_pretraining() -> list[Command]:
    """Return the second epoch of tsimclr."""
    return [pretrain("tsimclr+", "simclr_trainer.py", TSIMCLR)]


def single_modalities() -> list[Command]:
    """Return the supervised baselines, from which --fusion early and others start."""
    return [
        classify("supervised-ehr", f"{FRESH} --fusion ehr --data_pairs ehr --subgroups age,sex"),
        classify("supervised-cxr", f"{FRESH} --fusion cxr --data_pairs cxr"),
    ]


def linear() -> list[Command]:
    """Linear evaluation: all tasks, all objectives, both modalities, projections, fresh encoders, seeds."""
    found = [
        classify(f"{task}-linear", f"{LINEAR} --task {task} {SIMCLR} {HOURLY} --subgroups age,sex,race")
        for task in TASKS
    ]
    task = f"{LINEAR} --task phenotyping"
    found += [
        classify(f"phenotyping-linear-{name}", f"{task} --load_state {{work}}/runs/{name}/best.ckpt")
        for name in ("clip", "siglip", "vicreg", "align")
    ]
    fresh = "--load_state random --vision_backbone resnet18"
    return [
        *found,
        classify("phenotyping-linear-ehr", f"{task} {SIMCLR} --fusion ehr"),
        classify("phenotyping-linear-cxr", f"{task} {SIMCLR} --fusion cxr --data_device disk"),
        classify("phenotyping-linear-random", f"{task} {fresh} --optimizer sgd --clip 0.1"),
        classify("phenotyping-linear-heads", f"{task} {SIMCLR} --fusion_layer 3", "results-heads"),
        classify("phenotyping-linear-two", f"{task} {ENCODERS}"),
        classify("phenotyping-linear-seed1", f"{task} {SIMCLR} --seed 1", "results-seed1"),
    ]


def tuned() -> list[Command]:
    """Fine-tuning of all tasks; readmission has one epoch and is resumed later."""
    return [classify(f"{task}-finetune", f"{TUNED} --task {task} {SIMCLR} {HOURLY}") for task in TASKS]


def fusions() -> list[Command]:
    """Supervised training of all other fusions, and of two tasks that have a sample an hour."""
    flags = {
        "concatenation": "",
        "joint": "--clip 1",
        "late": "--data_pairs partial --data_ratio 0.5",
        "unified": "--data_pairs partial",
        "medfuse": "--data_pairs partial --ehr_dim 64 --ehr_layers 2 --ehr_dropout 0.3",
        "medfuse_tokens": "--data_pairs partial --missing_token learned",
        "mmtm": "--layer_after -1",
        "daft": "--layer_after 3",
    }
    found = [
        classify(f"supervised-{name}", f"{FRESH} --fusion {name} {more}") for name, more in flags.items()
    ]
    hourly = "--fusion ehr --data_pairs ehr --every_hours 12 --epochs 1"
    return [
        *found,
        classify("supervised-early", f"{SUPERVISED} --fusion early {ENCODERS}"),
        classify("decompensation-supervised-ehr", f"{FRESH} --task decompensation {hourly}"),
        classify("length-of-stay-supervised-ehr", f"{FRESH} --task length-of-stay {hourly}"),
    ]


def choices_of_pairs() -> list[Command]:
    """Values of --data_pairs and what goes with them, but for those that `fusions` has."""
    flags = {
        "paired-all": "--retrieve_cxr all --fusion joint",
        "ehr_all": "--data_pairs ehr_all --data_ratio 0.5 --fusion ehr",
        "cxr_all": "--data_pairs cxr_all --fusion cxr",
        "cxr-all": "--data_pairs cxr --retrieve_cxr all --fusion cxr --task radiology",
    }
    return [
        classify(f"pairs-{name}", f"{FRESH} --epochs 1 {more}", "results-pairs")
        for name, more in flags.items()
    ]


def epochs() -> list[Command]:
    """Return the best epoch: for two tasks at once, for one modality, and after more epochs."""
    start = "python epoch_evaluation.py --store {store} --image_size 32 --epochs 3 --run_dir {work}/runs"
    return [
        Command("epochs-simclr", f"{start}/simclr --task phenotyping,in-hospital-mortality"),
        Command("epochs-tsimclr", f"{start}/tsimclr --task length-of-stay --every_hours 24"),
        Command("epochs-vicreg", f"{start}/vicreg --task radiology --fusion ehr --fusion_layer 3"),
    ]


def again() -> list[Command]:
    """Return what starts from classifiers: evaluation, a resumed run, and a repeated one."""
    config = "{work}/runs/in-hospital-mortality-finetune/config.yaml"
    ihm, hourly = "--task in-hospital-mortality", f"--task length-of-stay {HOURLY}"
    return [
        tested("phenotyping-finetune", "--protocol finetune --task phenotyping --subgroups age,sex,race"),
        tested("in-hospital-mortality-linear", f"--protocol lineareval {ihm}"),
        tested("length-of-stay-finetune", f"--protocol finetune {hourly}"),
        tested("supervised-late", f"--protocol supervised --fusion late {ihm}"),
        classify("readmission-finetune+", f"{TUNED} --task readmission {SIMCLR} {HOURLY} --epochs 2"),
        classify("repeated", f"--config {config} --seed 1", "results-seed1"),
        classify(
            "phenotyping-linear-tsimclr",
            f"{LINEAR} --task phenotyping --load_state {{work}}/runs/tsimclr/last.ckpt",
        ),
    ]


def tested(run: str, flags: str) -> Command:
    """The evaluation of a classifier that was trained before."""
    return classify(f"{run}-eval", f"--mode eval --load_state {{work}}/runs/{run}/best.ckpt {flags}")


def torchruns() -> list[Command]:
    """Two processes, one program at a time."""
    more = "--fusion medfuse --data_pairs partial --vision_backbone resnet18"
    task = "--protocol supervised --task readmission --epochs 1 --batch_size 32 --lr 1e-3"
    return [
        pretrain("simclr-two", "simclr_trainer.py", "--epochs 1 --warmup_epochs 1", start=TORCHRUN),
        classify("readmission-two", f"{task} {more}", start=TORCHRUN),
        classify("linear-two", f"{LINEAR} --task radiology {SIMCLR}", "results-pairs", start=TORCHRUN),
    ]


def tables() -> list[Command]:
    """Tables, comparisons and summaries."""
    table, results = "python -m utils.results table", "--results_dir {work}/tables/results"
    compare, runs = "python -m utils.results compare", "{work}/runs"
    lines = {f"table-{task}": f"{table} --task {task} {results}" for task in TASKS}
    lines |= {
        f"table-{form}": f"{table} --task phenotyping {results} --format {form}"
        for form in ("text", "markdown", "latex", "csv")
    }
    lines |= {
        "table-seeds": f"{table} --task phenotyping {results} {{work}}/tables/results-seed1",
        "table-metric": f"{table} --task phenotyping {results} --metric auroc --split val",
        "table-group": f"{table} --task phenotyping {results} --label acute",
        "table-subgroup": f"{table} --task phenotyping {results} --label macro[sex=F]",
        "compare": f"{compare} {runs}/phenotyping-linear {runs}/phenotyping-finetune --resamples 50",
        "compare-labels": f"{compare} {runs}/phenotyping-linear {runs}/phenotyping-linear-ehr --labels "
        "--resamples 50 --split val --seed 3",
        "compare-hourly": f"{compare} {runs}/length-of-stay-linear {runs}/length-of-stay-finetune "
        "--resamples 50 --store {store}",
        "summary": f"python -m tasks.summary {results}",
        "summary-pairs": "python -m tasks.summary --results_dir {work}/tables/results-pairs",
    }
    return [Command(name, line, "tables") for name, line in lines.items()]


def figures() -> list[Command]:
    """All figures."""
    runs, scores = "{work}/runs", "{work}/tables/results/phenotyping.csv --save_dir {work}/runs"
    which = "--run phenotyping-linear phenotyping-finetune"
    lines = {
        "curves": f"curves {runs}/simclr",
        "curves-classifier": f"curves {runs}/supervised-joint",
        "epochs": f"epochs {runs}/vicreg/results_label_radiology_ehr.csv",
        "roc": f"roc {runs}/phenotyping-finetune --resamples 10",
        "roc-label": f"roc {runs}/phenotyping-linear --label Shock --split val --resamples 10 --seed 2",
        "calibration": f"calibration {runs}/phenotyping-finetune",
        "bars": f"bars {scores} {which}",
        "heat": f"heat {scores} --metric auprc",
        "map": f"map {runs}/phenotyping-linear --label Shock --before {runs}/phenotyping-linear-random",
        "map-tsne": f"map {runs}/in-hospital-mortality-linear --tsne",
    }
    return [Command(f"plot-{name}", f"python -m utils.plots {line}") for name, line in lines.items()]


def scripts(tree: Path) -> list[Command]:
    """Return the commands that all shell scripts stand for, which are shown and not run."""
    echo = {"LAUNCH": "printf %s\\n", "RUNS": "{work}/none", "RESULTS": "{work}/none"}
    paths = [*tree.glob("tasks/*/*/*.sh"), *tree.glob("*.sh"), *tree.glob("scripts/**/*.sh")]
    names = sorted(path.relative_to(tree).as_posix() for path in paths if path.name != "demo.sh")
    found = [Command(name, f"bash {shlex.quote(name)} --more", "scripts", echo) for name in names]
    several = echo | {"TASK": "phenotyping length-of-stay", "OBJECTIVES": "simclr clip align"}
    for name, more in {"run_all": {}, "quick": {"QUICK": "1"}, "pairs": {"PAIRS": "phenotyping"}}.items():
        found.append(Command(name, "bash tasks/run_all.sh --seed 1", "scripts", several | more))
    return found


def write_subject_lists(work: Path) -> None:
    """Return lists of subjects for the extraction: every fifth is tested on, every fifth validated on."""
    table = pl.read_csv(work / "raw/mimic-iv/hosp/patients.csv.gz", columns=["subject_id"], glob=False)
    subjects = sorted(table["subject_id"].to_list())
    for split, remainder in {"test": 0, "val": 1}.items():
        lines = [f"{subject},{int(place % 5 == remainder)}\n" for place, subject in enumerate(subjects)]
        (work / f"{split}_subjects.csv").write_text("".join(lines))


def write_tables(work: Path) -> None:
    """Copy the results in an order, and with times, that do not depend on which run came first."""
    for path in sorted(work.glob("results*/*.csv")):
        header, rows = read_csv(path)
        rows.sort(key=lambda row: row[header.index("run")])
        runs = list(dict.fromkeys(row[header.index("run")] for row in rows))
        for row in rows:
            place = runs.index(row[header.index("run")])
            row[header.index("started")] = f"2000-01-01T{place // 60:02d}:{place % 60:02d}:00+00:00"
        copy = work / "tables" / path.relative_to(work)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


# How it is run.

# A process that imports packages, none of them of the tree, and forks for each command: half of a short run's
# time are these imports. A line it reads is a command, {"words", "out", "err"}; a line it writes, its status.
STARTER = """
import importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in iter(sys.stdin.readline, ""):
    command = json.loads(line)
    process = os.fork()
    if process == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
else:
    sys.exit()
for number, path in enumerate((os.devnull, command["out"], command["err"])):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
first, *rest = command["words"]
sys.argv = rest[:] if first == "-m" else [first, *rest]
if first == "-m":
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(first, run_name="__main__")
"""
IMPORTED = (
    "torch",
    "torch.utils.tensorboard",
    "torchvision",
    "pandas",
    "polars",
    "pyarrow.csv",
    "pyarrow.parquet",
    "matplotlib.figure",
    "tyro",
    "yaml",
    "tqdm",
)
ALONE = (
    "bash ",
    "python -m datasets.",
    TORCHRUN,
)  # commands that start processes of their own, or import little


class Starter:
    """A process that runs one command at a time, in the code of a tree."""

    def __init__(self, tree: Path, environment: Mapping[str, str]) -> None:
        """Start it, with this environment alone."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTER, *IMPORTED],
            cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, words: Sequence[str], out: Path, err: Path) -> int:
        """Run a script, or "-m" and a module, with its flags; its exit status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        command = {"words": list(words), "out": str(out), "err": str(err)}
        self._process.stdin.write(f"{json.dumps(command)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline() or 1)

    def end(self) -> None:
        """End the process, which waits for a command."""
        self._process.communicate()


class CommandFailed(Exception):
    """A command ended with another status than 0; the text says what it said last."""


@dataclass(frozen=True)
class Recorder:
    """Runs the commands in the code of `tree`; they write to `work`."""

    tree: Path
    work: Path
    began: float = field(default_factory=time.monotonic)
    starters: SimpleQueue[Starter] = field(default_factory=SimpleQueue)

    def say(self, text: str) -> None:
        """Print a line, with the time since the start."""
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", flush=True)

    def run_all(self) -> Facts:
        """Run everything; what was said.

        Raises:
            CommandFailed: a command failed; none is started after it.
        """
        phases, facts = plan(self.tree), Facts()
        total = sum(len(phase.commands) for phase in phases)
        starters = [Starter(self.tree, environment()) for _ in range(AT_ONCE)]
        for starter in starters:
            self.starters.put(starter)
        try:
            for phase in phases:
                for command, text in self.run_phase(phase):
                    facts[f"{command.area}/{command.name}"] = text
                    if command.area != "scripts":
                        self.say(f"{len(facts)}/{total} {command.name}")
        finally:
            for starter in starters:
                starter.end()
        return facts

    def run_phase(self, phase: Phase) -> Iterator[tuple[Command, str]]:
        """Run the commands of a phase; each with what it said, as they end.

        Raises:
            CommandFailed: a command failed; none is started after it.
        """
        if phase.before is not None:
            phase.before(self.work)
        with ThreadPoolExecutor(phase.at_once) as pool:
            jobs = {pool.submit(self.run, command): command for command in phase.commands}
            try:
                for job in as_completed(jobs):
                    yield jobs[job], job.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def run(self, command: Command) -> str:
        """Run a command; what it said, without times.

        Raises:
            CommandFailed: it ended with another status than 0.
        """
        words = self.words(command.line)
        stem = command.name.replace("/", "_")
        out, err = (self.work / "said" / f"{stem}.{end}" for end in ("out", "err"))
        out.parent.mkdir(exist_ok=True)
        if command.line.startswith(ALONE):
            extra = {name: self.filled(value) for name, value in command.environment.items()}
            with out.open("wb") as said, err.open("wb") as complained:
                status = subprocess.run(
                    words, cwd=self.tree, env=environment() | extra, stdout=said, stderr=complained
                ).returncode
        else:
            starter = self.starters.get()
            status = starter.run(words[1:], out, err)
            self.starters.put(starter)
        texts = [path.read_text() for path in (out, err)]
        if status:
            raise CommandFailed(
                f"{command.name} ended with {status}: {shlex.join(words)}\n{''.join(texts)[-TAIL:]}"
            )
        text = "".join(texts) if command.area == "tables" else texts[0]
        for pattern, stands_for in TIMES.items():
            text = re.sub(pattern, stands_for, text, flags=re.MULTILINE)
        return self.plain(sort_flags(text) if command.area == "scripts" else text)

    def words(self, line: str) -> list[str]:
        """Return a command line, as the tree calls its modules, word by word."""
        line = f"{line} "
        if (self.tree / NEW).is_dir():
            for old, new in MOVED.items():
                line = line.replace(f"{old} ", f"{new} ")
        first, *rest = shlex.split(line)
        return [sys.executable if first == "python" else first, *map(self.filled, rest)]

    def filled(self, word: str) -> str:
        """Return a word with the folders in it."""
        return word.replace("{work}", str(self.work)).replace("{store}", str(self.work / "stores/medmod"))

    def plain(self, text: str) -> str:
        """Return a text without the place of the work folder."""
        return text.replace(str(self.work), "WORK")

    # What it left.

    def collect(self) -> Facts:
        """All of it."""
        facts = about()
        facts |= self.folders("raw", ("raw", "films")) | self.folders("export", ("exports",))
        for name in STORES:
            facts |= self.store(self.work / "stores" / name)
        runs = sorted(path for path in (self.work / "runs").iterdir() if path.is_dir())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(self.run_folder, runs):
                facts |= found
        for path in sorted(self.work.glob("tables/*/*.csv")):
            facts |= columns(f"results/{path.parent.name}/{path.name}", path, self.plain)
        for path in sorted(self.work.rglob("*.png")):
            facts[f"plots/{path.relative_to(self.work)}"] = hash_file(path)
        return facts

    def folders(self, area: str, names: Iterable[str]) -> Facts:
        """Return a hash for all files whose paths differ in numbers alone."""
        groups: dict[str, list[str]] = {}
        for name in names:
            for path in sorted(found for found in (self.work / name).rglob("*") if found.is_file()):
                place = path.relative_to(self.work).as_posix()
                kind = re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", "N", place))
                groups.setdefault(kind, []).append(f"{place} {hash_file(path)}")
        return {f"{area}/{kind}": f"{len(lines)} x {hash_text(str(lines))}" for kind, lines in groups.items()}

    def store(self, folder: Path) -> Facts:
        """Tables column by column, arrays whole, and what the manifest says."""
        facts = Facts()
        for path in sorted(found for found in folder.rglob("*") if found.is_file()):
            name = f"store/{folder.name}/{path.relative_to(folder).as_posix()}"
            if path.suffix == ".parquet":
                facts |= parquet_columns(name, path)
            elif path.suffix == ".csv":
                facts |= columns(name, path, self.plain)
            elif path.suffix in (".json", ".yaml"):
                facts |= self.settings(name, path, apart=r"versions\..*")
            else:
                facts[name] = hash_file(path)
        return facts

    def run_folder(self, folder: Path) -> Facts:
        """Return what a run left."""
        run, facts = folder.name, Facts()
        names = [re.sub(r"\d{5,}.*", "N", str(path.relative_to(folder))) for path in folder.rglob("*")]
        names = [name for name in names if not name.endswith((".png", ".patch", ".lock"))]
        facts[f"runs/{run}/files"] = " ".join(sorted(names))
        facts |= self.settings(f"runs/{run}/config.yaml", folder / "config.yaml")
        surroundings = self.settings(f"runs/{run}/environment.yaml", folder / "environment.yaml")
        kept = ("data", "store", "processes", "threads")
        facts |= {name: value for name, value in surroundings.items() if name.rsplit("/", 1)[1] in kept}
        for path in sorted(folder.glob("results_label*.csv")):
            facts |= columns(f"epochs/{run}/{path.name}", path, self.plain)
        for path in sorted(folder.glob("results_label*.yaml")):
            facts |= self.settings(f"epochs/{run}/{path.name}", path, apart="pretraining")
        for path in sorted(folder.glob("*.ckpt")):
            facts |= self.checkpoint(run, path)
        for path in sorted(folder.glob("predictions_*.csv")):
            facts |= columns(f"predictions/{run}/{path.name}", path, self.plain)
        for path in sorted(folder.glob("*.npz")):
            facts |= arrays(f"predictions/{run}/{path.name}", path)
        if (folder / "log.csv").is_file():
            facts |= columns(f"logs/{run}", folder / "log.csv", self.plain)
        return facts

    def checkpoint(self, run: str, path: Path) -> Facts:
        """Each tensor of the weights; the optimiser as a whole; all else value by value."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        facts = {
            f"weights/{run}/{path.name}/{name}": hash_tensor(weight)
            for name, weight in leaves(state.pop("parts"))
        }
        for name in ("objective", "optimizer"):
            if name in state.get("training", {}):
                held = [f"{key} {self.value(leaf)}" for key, leaf in leaves(state["training"].pop(name))]
                facts[f"checkpoints/{run}/{path.name}/training.{name}"] = hash_text(str(held))
        for name, leaf in leaves(state):
            if not LEFT_OUT.fullmatch(name.rsplit(".", 1)[-1]):
                facts[f"checkpoints/{run}/{path.name}/{name}"] = self.value(leaf)
        return facts

    def settings(self, name: str, path: Path, apart: str = "") -> Facts:
        """Return a file of nested settings, value by value, but for the names that match `apart`."""
        held = leaves(yaml.safe_load(path.read_text()))
        return {f"{name}/{key}": self.value(leaf) for key, leaf in held if not re.fullmatch(apart, key)}

    def value(self, leaf: object) -> str:
        """Return a value as it is if it is short, else its hash."""
        if isinstance(leaf, torch.Tensor):
            return hash_tensor(leaf)
        text = self.plain(json.dumps(leaf, default=str))
        return text if len(text) <= SHORT else hash_text(text)


def sort_flags(text: str) -> str:
    r"""Return printed commands, one word per line, with the flags of each command sorted by name.

    The order has no meaning, except among flags of the same name, where it is kept: the last one counts.

    >>> sort_flags("run.py\n--b\n1\n2\n--a\n3\n\n== next\nrun.py\n--c")
    'run.py\n--a\n3\n--b\n1\n2\n\n== next\nrun.py\n--c'
    """

    def sort_command(flags: re.Match[str]) -> str:
        parts = re.split(r"\n(?=--)", flags[0])
        return "\n".join(sorted(parts, key=lambda part: part.split("\n")[0]))

    return re.sub(r"^--.*(?:\n(?!$|== |\S+\.py$).*)*", sort_command, text, flags=re.MULTILINE)


def environment() -> dict[str, str]:
    """Return what a command's environment holds, whatever this one's holds."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | SET


def about() -> Facts:
    """Return what must be the same for two records to be comparable."""
    packages = ("torch", "torchvision", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "matplotlib")
    facts = {f"about/{name}": version(name) for name in packages}
    facts["about/python"] = platform.python_version()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return facts | {"about/processor": model[1] if model else platform.processor()}


def leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Return the values of nested dicts by their places, "a.b"; a list is a value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def columns(name: str, path: Path, plain: Callable[[str], str]) -> Facts:
    """Each column of a CSV file as text, and which there are."""
    header, rows = read_csv(path)
    facts = {f"{name}/columns": " ".join(header), f"{name}/rows": str(len(rows))}
    for place, column in enumerate(header):
        if not LEFT_OUT.fullmatch(column):
            facts[f"{name}/{column}"] = hash_text(plain("\n".join(row[place] for row in rows)))
    return facts


def parquet_columns(name: str, path: Path) -> Facts:
    """Each column of a Parquet file with its type, and which there are."""
    table = pl.read_parquet(path, glob=False)
    facts = {f"{name}/columns": " ".join(table.columns), f"{name}/rows": str(table.height)}
    for column in table:
        exact = column.dtype.is_numeric() and not column.null_count()
        held = column.to_numpy().tobytes() if exact else json.dumps(column.to_list(), default=str).encode()
        facts[f"{name}/{column.name}"] = f"{column.dtype} {hash_bytes(held)}"[:SHORT]
    return facts


def arrays(name: str, path: Path) -> Facts:
    """Each array of an .npz."""
    with np.load(path, allow_pickle=False) as file:
        return {
            f"{name}/{key}": f"{file[key].dtype} {list(file[key].shape)} {hash_bytes(file[key].tobytes())}"
            for key in file.files
        }


def hash_tensor(value: object) -> str:
    """Type, shape and hash of a tensor's bytes."""
    assert isinstance(value, torch.Tensor), f"{value!r} is no tensor"
    held = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} {hash_bytes(held)}"


def hash_bytes(held: bytes) -> str:
    """Return the first characters of the SHA-256 of some bytes."""
    return hashlib.sha256(held).hexdigest()[:HASH]


def hash_text(text: str) -> str:
    """Return that of a text."""
    return hash_bytes(text.encode())


def hash_file(path: Path) -> str:
    """Return that of a file."""
    return hash_bytes(path.read_bytes())


def record(tree: Path, out: Path, work: Path) -> None:
    """Run everything in `tree` and write what it left to `out`.

    Raises:
        CommandFailed: a command failed.
    """
    recorder = Recorder(tree.resolve(), work.resolve())
    facts = recorder.run_all()
    recorder.say("hashing")
    facts |= recorder.collect()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(dict(sorted(facts.items())), indent=0, ensure_ascii=False) + "\n")
    recorder.say(f"{len(facts)} entries: {out}")


# How two records differ.


class Named(NamedTuple):
    """A difference that is meant: names that match a pattern, or that are called otherwise now."""

    pattern: str
    reason: str
    to: str = ""

    def renamed(self, name: str) -> str | None:
        """Return what a name is called now; None if this entry does not rename it."""
        match = re.fullmatch(re.escape(self.pattern).replace(r"\*", "(.*)"), name) if self.to else None
        if match is None:
            return None
        parts, held = self.to.split("*"), match.groups()
        return parts[0] + "".join(text + part for text, part in zip(held, parts[1:], strict=True))


class Difference(NamedTuple):
    """A name whose values differ; reason: "" if it has none."""

    name: str
    before: str | None
    after: str | None
    reason: str

    def describe(self) -> str:
        """Return what to print of it."""
        if self.before is None or self.after is None:
            held = self.before or self.after or ""
            place = "only before" if self.after is None else "only after"
            return f"{self.name}: {place}: {held if len(held) <= SHORT else hash_text(held)}"
        if "\n" not in self.before + self.after:
            return f"{self.name}: {self.before} -> {self.after}"
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0)
        shown = [f"    {line}" for line in list(lines)[2 : 2 + SHOWN]]
        return "\n".join([f"{self.name}: another text", *shown])


def read_named(path: Path | None) -> list[Named]:
    """Return the differences that are meant.

    Raises:
        ValueError: an entry has other keys than pattern and reason, or from, to and reason; or from and to do
            not have as many * each.
    """
    found = []
    for entry in yaml.safe_load(path.read_text()) or [] if path else []:
        if set(entry) == {"pattern", "reason"}:
            found.append(Named(entry["pattern"], entry["reason"]))
        elif set(entry) == {"from", "to", "reason"} and entry["from"].count("*") == entry["to"].count("*"):
            found.append(Named(entry["from"], entry["reason"], entry["to"]))
        else:
            raise ValueError(f"{path}: {entry} is neither a pattern with a reason nor from and to with one")
    return found


def rename(before: Facts, named: Sequence[Named]) -> tuple[Facts, dict[str, Named]]:
    """Return a record under the names of now, and by which entry each new name was made."""
    facts, made = Facts(), {}
    for name, value in before.items():
        found = ((entry, new) for entry in named if (new := entry.renamed(name)) is not None)
        entry, new = next(found, (None, name))
        facts[new] = value
        if entry is not None:
            made[new] = entry
    return facts, made


def differences(before: Facts, after: Facts, named: Sequence[Named]) -> Iterator[Difference]:
    """All names whose values differ, in the order of names."""
    for name in sorted(before.keys() | after.keys()):
        one, two = before.get(name), after.get(name)
        if one != two:
            reasons = (entry.reason for entry in named if not entry.to and fnmatchcase(name, entry.pattern))
            yield Difference(name, one, two, next(reasons, ""))


def idle(before: Facts, after: Facts, named: Sequence[Named], made: Mapping[str, Named]) -> list[Named]:
    """Entries that explain nothing."""
    names = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    used = set(made.values())
    used |= {entry for entry in named if any(fnmatchcase(name, entry.pattern) for name in names)}
    return [entry for entry in named if entry not in used]


def counts_by_area(before: Facts, after: Facts, found: Sequence[Difference]) -> str:
    """Return a line an area: entries, equal ones, named and unexplained differences."""
    named = Counter(area_of(one.name) for one in found if one.reason)
    left = Counter(area_of(one.name) for one in found if not one.reason)
    entries = Counter(map(area_of, before.keys() | after.keys()))
    lines = [f"{'area':<12} {'entries':>8} {'equal':>8} {'named':>8} {'unexplained':>12}"]
    rows = [(area, entries[area], named[area], left[area]) for area in sorted(entries)]
    rows.append(("all", entries.total(), named.total(), left.total()))
    for area, count, meant, unexplained in rows:
        lines.append(f"{area:<12} {count:>8} {count - meant - unexplained:>8} {meant:>8} {unexplained:>12}")
    return "\n".join(lines)


def area_of(name: str) -> str:
    """Return the first word of a name."""
    return name.partition("/")[0]


def compare(before_path: Path, after_path: Path, named_path: Path | None) -> bool:
    """Print how two records differ; whether every difference has a reason.

    Raises:
        ValueError: `named_path` is not a list of reasons.
    """
    named = read_named(named_path)
    was, after = (Facts(json.loads(path.read_text())) for path in (before_path, after_path))
    before, made = rename(was, named)
    found = list(differences(before, after, named))
    left = [one for one in found if not one.reason]
    print(counts_by_area(before, after, found))
    for reason, count in Counter(entry.reason for entry in made.values()).items():
        print(f"\nrenamed, {count} entries: {reason}")
    for reason in dict.fromkeys(one.reason for one in found if one.reason):
        print(f"\nnamed: {reason}")
        print("\n".join(f"  {one.describe()}" for one in found if one.reason == reason))
    if left:
        print("\nunexplained:")
        print("\n".join(f"  {one.describe()}" for one in left))
    for entry in idle(before, after, named, made):
        print(f"\nexplains nothing: {entry.pattern}: {entry.reason}")
    return not left


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run everything in the code of a folder")
    recording.add_argument("--tree", type=Path, required=True, help="folder of the code")
    recording.add_argument("--out", type=Path, required=True, help="record to write")
    recording.add_argument("--work", type=Path, help="folder to work in, which stays; it must be empty")
    comparing = commands.add_parser("compare", help="tell how two records differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--named", type=Path, help="reasons for differences")
    return parser.parse_args(words)


def main() -> int:
    """Do what the command line says; the exit status."""
    asked = parse()
    try:
        if asked.command == "compare":
            return 0 if compare(asked.before, asked.after, asked.named) else 1
        if asked.work is None:
            with tempfile.TemporaryDirectory() as folder:
                record(asked.tree, asked.out, Path(folder))
            return 0
        asked.work.mkdir(parents=True, exist_ok=True)
        if any(asked.work.iterdir()):
            raise ValueError(f"--work {asked.work} is not empty; remove it, or choose another")
        record(asked.tree, asked.out, asked.work)
    except (CommandFailed, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
