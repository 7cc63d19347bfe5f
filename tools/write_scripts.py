"""Write the missing shell scripts and README of each task: `python -m tools.write_scripts`."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tasks import TASKS, Task
from utils.cli import run_cli

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ScriptsConfig:
    """Write the missing scripts of one task or of all, with the published settings, and the README of a new
    task; no file is overwritten.
    """

    task: Literal["all", *TASKS] = "all"
    """Task to write for."""


@dataclass(frozen=True)
class Schedule:
    """What differs between tasks in the published training of a classifier."""

    epochs: int = 300
    linear_lr: str = "1e-3"
    finetune_lr: str = "1e-3"


SCHEDULES: dict[str, Schedule] = {
    "radiology": Schedule(linear_lr="1e-2"),
    "decompensation": Schedule(epochs=400, linear_lr="1e-2", finetune_lr="1e-2"),
}


class Modality(NamedTuple):
    """What a script classifies from: --fusion, --data_pairs, its words, and whether X-rays are among it."""

    fusion: str
    pairs: str
    words: str
    images: bool = True


MODALITIES: dict[str, Modality] = {
    "": Modality("concatenation", "paired", "EHR and X-ray"),
    "_ehr": Modality("ehr", "ehr", "the EHR of the paired stays", images=False),
    "_cxr": Modality("cxr", "cxr", "the X-ray of the paired stays"),
}
ONE_NETWORK = "EHR, and X-ray where there is one"


class Pretraining(NamedTuple):
    """What is published of an objective: its title, width of the EHR encoder, its flags, its optimiser's."""

    title: str
    ehr_dim: int
    settings: str
    optimizer: str
    warmup_epochs: int


LARS = "--momentum 0.9 --weight_decay 1e-4 --trust_coefficient 1e-3"
PRETRAININGS: dict[str, Pretraining] = {
    "simclr": Pretraining(
        "SimCLR",
        128,
        "--temperature 0.1 --width 1 --denominator decoupled",
        f"--optimizer lars --lr 0.6044 {LARS}",
        10,
    ),
    "vicreg": Pretraining(
        "VICReg",
        128,
        "--invariance 25 --variance 25 --covariance 1 --width 1",
        f"--optimizer lars --lr 0.5989 {LARS}",
        10,
    ),
    "align": Pretraining(
        "ALIGN",
        256,
        "--temperature 0.07 --denominator decoupled --swap 0.2 --width 0",
        "--optimizer adamw --lr 6.026e-5 --weight_decay 1e-4",
        0,
    ),
}


class Published(NamedTuple):
    """What is published of a supervised classifier for one task: its learning rate, and its stage if it has
    one.
    """

    lr: str
    stage: int | None = None


MORTALITY, PHENOTYPING = "in-hospital-mortality", "phenotyping"
PUBLISHED: dict[str, dict[str, Published]] = {
    "ehr": {MORTALITY: Published("5.3985e-4"), PHENOTYPING: Published("5.3985e-4")},
    "cxr": {MORTALITY: Published("2.951e-5"), PHENOTYPING: Published("1e-4")},
    "early": {MORTALITY: Published("9.515e-5"), PHENOTYPING: Published("3.833e-5")},
    "joint": {MORTALITY: Published("4.032e-5"), PHENOTYPING: Published("5.652e-5")},
    "medfuse": {MORTALITY: Published("1e-4"), PHENOTYPING: Published("7e-5")},
    "mmtm": {MORTALITY: Published("4.355e-5", 4), PHENOTYPING: Published("5.326e-5", 4)},
    "daft": {MORTALITY: Published("6.493e-5", 4), PHENOTYPING: Published("6.493e-5", 3)},
}
ENCODERS = {"ehr": "--ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3", "cxr": "--vision_backbone resnet34"}


class Baseline(NamedTuple):
    """A supervised classifier: what it reads, its name in the header, the fusion whose published settings it
    takes, and which encoders start afresh; none: they are those of supervised_ehr.sh and supervised_cxr.sh,
    and stay as they are.
    """

    modality: Modality
    title: str
    like: str
    fresh: tuple[str, ...] = ("ehr", "cxr")


BASELINES: dict[str, Baseline] = {
    "supervised": Baseline(MODALITIES[""], "the supervised classifier", "joint"),
    "supervised_ehr": Baseline(MODALITIES["_ehr"], "the supervised classifier", "ehr", ("ehr",)),
    "supervised_cxr": Baseline(MODALITIES["_cxr"], "the supervised classifier", "cxr", ("cxr",)),
    "early": Baseline(Modality("early", "paired", "EHR and X-ray"), "early fusion", "early", ()),
    "joint": Baseline(Modality("joint", "paired", "EHR and X-ray"), "joint fusion", "joint"),
    "late": Baseline(Modality("late", "paired", "EHR and X-ray"), "late fusion", "joint"),
    "unified": Baseline(Modality("unified", "partial", ONE_NETWORK), "unified fusion", "joint"),
    "medfuse": Baseline(Modality("medfuse", "partial", ONE_NETWORK), "MedFuse", "medfuse"),
    "medfuse_tokens": Baseline(
        Modality("medfuse_tokens", "partial", ONE_NETWORK), "MedFuse with tokens", "medfuse"
    ),
    "mmtm": Baseline(Modality("mmtm", "paired", "EHR and X-ray"), "MMTM", "mmtm"),
    "daft": Baseline(Modality("daft", "paired", "EHR and X-ray"), "DAFT", "daft"),
}

HEAD = """\
#!/usr/bin/env bash
# {does}
# {leaves}
{more}# STORE is the folder of the store{checkpoint}. LAUNCH starts the program: python, or
# "torchrun --nproc-per-node 4" for four GPUs; LAUNCH=echo shows the command. Flags after the script's
# name win over those below. Paths count from the root of the repository; call sbatch there.
#SBATCH --job-name={name}
#SBATCH --output={name}-%j.out
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
root="$(dirname "$0")/../../.."
[[ -f "$root/{program}" ]] || root="${{SLURM_SUBMIT_DIR:-.}}" # sbatch runs a copy that lies elsewhere
cd "$root"

exec ${{LAUNCH:-python}} {program} \\
"""


class Script(NamedTuple):
    """A script: its run's name, the program, what it does and leaves, what CHECKPOINT is, its flags, and what
    else its header tells, line by line.
    """

    name: str
    program: str
    does: str
    leaves: str
    checkpoint: str
    flags: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The whole file: a group of flags a line, those of the caller last."""
        more = "".join(f"# {note}\n" for note in self.notes)
        lines = " \\\n".join(f"  {group}" for group in (*self.flags, f"--name {self.name}", '"$@"'))
        return HEAD.format(**self._asdict(), more=more) + lines + "\n"


STORE = '--store "${STORE:-data/mimic}"'


def pretrain(task: Task, objective: str) -> Script:
    """Both encoders, by an objective, on the task's pairs."""
    published = PRETRAININGS[objective]
    return Script(
        f"{objective}-{task.name}",
        f"{objective}_trainer.py",
        f"Pretrains both encoders with {published.title} on the pairs of {task.name}.",
        f"Leaves a checkpoint an epoch in runs/{objective}-{task.name}.",
        "",
        (
            f"--task {task.name}",
            f"{STORE} --data_pairs paired --batch_size 256",
            "--image_size 224 --transforms_cxr simclrv2",
            f"--ehr_dim {published.ehr_dim} --ehr_layers 1 --vision_backbone resnet34",
            published.settings,
            published.optimizer,
            f"--epochs 300 --warmup_epochs {published.warmup_epochs} --schedule cosine",
            "--patience 30 --min_delta 1e-3",
        ),
    )


def supervise(task: Task, baseline: Baseline) -> Script:
    """A classifier trained from the start, or on frozen encoders that were, and then tested."""
    modality, like = baseline.modality, task.name if task.name in PUBLISHED[baseline.like] else PHENOTYPING
    published = PUBLISHED[baseline.like][like]
    stage = "" if published.stage is None else f" --layer_after {published.stage}"
    fresh = " ".join(ENCODERS[name] for name in baseline.fresh)
    start = "afresh" if fresh else "on frozen encoders"
    return Script(
        run_name(task, modality, "supervised"),
        "run_gpu.py",
        f"Trains {baseline.title} {start} for {task.name} from {modality.words}.",
        f"The best epoch's validation and test scores go to results/{task.name}.csv.",
        "",
        (
            f"--protocol supervised --mode train --task {task.name} --fusion {modality.fusion}{stage}",
            *(() if fresh else unimodal_encoders(task)),
            f"{STORE} --data_pairs {modality.pairs} --batch_size 16",
            *(("--image_size 224 --transforms_cxr supervised",) if modality.images else ()),
            *((fresh,) if fresh else ()),
            f"--optimizer adam --lr {published.lr} --weight_decay 0 --epochs 50",
            "--schedule plateau --gamma 0.5 --plateau_patience 10",
            "--patience 30 --min_delta 1e-3",
        ),
        notes(baseline, task.name, like),
    )


def unimodal_encoders(task: Task) -> tuple[str, ...]:
    """Flags that start both encoders from the supervised classifiers of one modality."""
    trained = {end: run_name(task, MODALITIES[end], "supervised") for end in ("_ehr", "_cxr")}
    return tuple(
        f'--load_state{end} "${{CHECKPOINT{end.upper()}:-runs/{run}/best.ckpt}}"'
        for end, run in trained.items()
    )


def notes(baseline: Baseline, task: str, like: str) -> tuple[str, ...]:
    """Where a supervised classifier's encoders come from, unless they are fresh, and its settings."""
    encoders = (
        "The encoders are those of supervised_ehr.sh and supervised_cxr.sh, which come first; CHECKPOINT_EHR",
        "and CHECKPOINT_CXR name others.",
    )
    setting = "lr is" if PUBLISHED[baseline.like][like].stage is None else "lr and stage are"
    lacking = "" if (baseline.modality.fusion, task) == (baseline.like, like) else "; for this script none is"
    settings = f"{setting} as published for {baseline.like} on {like}{lacking}."
    return (settings,) if baseline.fresh else (*encoders, settings)


def train(task: Task, modality: Modality, protocol: str, does: str) -> Script:
    """A classifier on pretrained encoders, trained and then tested."""
    schedule = SCHEDULES.get(task.name, Schedule())
    lr = schedule.finetune_lr if protocol == "finetune" else schedule.linear_lr
    images = ["--image_size 224 --transforms_cxr simclrv2" if protocol == "finetune" else "--image_size 224"]
    return Script(
        run_name(task, modality, protocol),
        "run_gpu.py",
        f"{does} for {task.name} from {modality.words}.",
        f"The best epoch's validation and test scores go to results/{task.name}.csv.",
        ", CHECKPOINT the pretrained encoders",
        (
            f"--protocol {protocol} --mode train --task {task.name} --fusion {modality.fusion}",
            f'--load_state "${{CHECKPOINT:-runs/simclr-{task.name}/last.ckpt}}"',
            f"{STORE} --data_pairs {modality.pairs} --batch_size 256",
            *(images if modality.images else ()),
            f"--optimizer adamw --lr {lr} --weight_decay 0.01 --epochs {schedule.epochs}",
            "--schedule step --milestones 0.6 0.8 --gamma 0.1",
            "--patience 30 --min_delta 1e-3",
        ),
    )


def evaluate(task: Task, modality: Modality, protocol: str, does: str) -> Script:
    """Tests what `train` left."""
    trained = run_name(task, modality, protocol)
    return Script(
        f"{trained}-eval",
        "run_gpu.py",
        f"Tests {does} for {task.name} from {modality.words}.",
        f"The scores go to results/{task.name}.csv.",
        ", CHECKPOINT the trained classifier",
        (
            f"--protocol {protocol} --mode eval --task {task.name} --fusion {modality.fusion}",
            f'--load_state "${{CHECKPOINT:-runs/{trained}/best.ckpt}}"',
            f"{STORE} --data_pairs {modality.pairs} --batch_size 256",
            *(("--image_size 224",) if modality.images else ()),
        ),
    )


def run_name(task: Task, modality: Modality, protocol: str) -> str:
    """Folder of a run inside --save_dir: phenotyping-finetune-ehr."""
    return f"{task.name}-{protocol}-{modality.fusion}"


def scripts(task: Task) -> dict[Path, Script]:
    """The scripts of a task by their place in its folder."""
    linear, tuned = "Trains one linear layer on frozen encoders", "Fine-tunes pretrained encoders"
    found = {Path(f"train/{objective}.sh"): pretrain(task, objective) for objective in PRETRAININGS}
    for end, modality in MODALITIES.items():
        found |= {
            Path(f"train/finetune{end}.sh"): train(task, modality, "finetune", tuned),
            Path(f"train/lineareval{end}.sh"): train(task, modality, "lineareval", linear),
            Path(f"eval/fteval{end}.sh"): evaluate(task, modality, "finetune", "the fine-tuned classifier"),
            Path(f"eval/lineareval{end}.sh"): evaluate(task, modality, "lineareval", "the linear classifier"),
        }
    for name, baseline in BASELINES.items():
        found |= {
            Path(f"train/{name}.sh"): supervise(task, baseline),
            Path(f"eval/{name}.sh"): evaluate(task, baseline.modality, "supervised", baseline.title),
        }
    return found


PACKAGE = '"""Task folder: the definition in task.py, and the scripts of its runs."""\n'
README = """\
# {title}

{about}

Its supervised learning rates are those published for phenotyping, as none are published for it.

"""
ORDER = """\
From the root of the repository, in this order:

1. `train/simclr.sh`, `train/vicreg.sh` or `train/align.sh` pretrains both encoders; then
   `RUN=runs/simclr-{name} bash eval_epoch.sh --task {name}` finds its best epoch.
2. `train/lineareval.sh` trains one linear layer on the encoders of `CHECKPOINT` (else SimCLR's last),
   `train/finetune.sh` all weights; `_ehr` and `_cxr` do so from one modality.
3. `train/supervised_ehr.sh`, `train/supervised_cxr.sh` and `train/supervised.sh` start afresh, and so do
   `train/joint.sh`, `train/late.sh`, `train/unified.sh`, `train/medfuse.sh`, `train/medfuse_tokens.sh`,
   `train/mmtm.sh` and `train/daft.sh`. `train/early.sh` needs the first two.

Each of 2 and 3 tests its best epoch; its twin in `eval/` (`fteval` for `finetune`) tests it again, or another
`CHECKPOINT`. `TASK={name} bash tasks/run_all.sh` does all of it.
"""


def readme(task: Task) -> str:
    """What is predicted, as task.py opens with it, and the order in which to run the scripts."""
    about = textwrap.fill(inspect.getdoc(inspect.getmodule(task.samples)) or "", 110)
    title = task.name.replace("-", " ").capitalize()
    return (README + ORDER).format(title=title, about=about, name=task.name)


def files(task: Task) -> dict[Path, str]:
    """All that is made of a task beside its task.py: the text of each file by its place in the folder."""
    made = {place: script.text() for place, script in scripts(task).items()}
    return made | {Path("__init__.py"): PACKAGE, Path("README.md"): readme(task)}


def write_missing(task: Task, folder: Path) -> list[Path]:
    """Write those files of a task that are not in its folder yet; return them."""
    written = []
    for place, text in files(task).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
            path.chmod(0o755 if path.suffix == ".sh" else 0o644)
            written.append(path)
    return written


def main(config: ScriptsConfig) -> None:
    """Write, and say what was written."""
    for task in TASKS.values():
        if config.task in ("all", task.name):
            written = write_missing(task, ROOT / "tasks" / task.folder)
            kept = len(files(task)) - len(written)
            print(f"{task.name}: {len(written)} files written, {kept} kept as they are")


if __name__ == "__main__":
    run_cli(main, ScriptsConfig)
