"""The shell scripts of a task: `python -m tasks.scripts` writes those that are missing, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tasks import TASKS, Task
from utils.script import run_script

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ScriptsConfig:
    """Write the missing scripts of one task or of all, with the published settings; none is overwritten."""

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
    images: bool


MODALITIES: dict[str, Modality] = {
    "": Modality("concatenation", "paired", "EHR and X-ray", images=True),
    "_ehr": Modality("ehr", "ehr", "the EHR of the paired stays", images=False),
    "_cxr": Modality("cxr", "cxr", "the X-ray of the paired stays", images=True),
}

HEAD = """\
#!/usr/bin/env bash
# {does}
# {leaves}
# STORE is the folder of the store{checkpoint}. LAUNCH starts the program: python, or
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
    """A script: its run's name, the program, what it does and leaves, what CHECKPOINT is, and its flags."""

    name: str
    program: str
    does: str
    leaves: str
    checkpoint: str
    flags: tuple[str, ...]

    def text(self) -> str:
        """The whole file: a group of flags a line, those of the caller last."""
        lines = " \\\n".join(f"  {group}" for group in (*self.flags, f"--name {self.name}", '"$@"'))
        return HEAD.format(**self._asdict()) + lines + "\n"


STORE = '--store "${STORE:-data/mimic}"'


def pretrain(task: Task) -> Script:
    """SimCLR on the task's pairs."""
    return Script(
        f"simclr-{task.name}",
        "simclr_trainer.py",
        f"Pretrains both encoders with SimCLR on the pairs of {task.name}.",
        f"Leaves a checkpoint an epoch in runs/simclr-{task.name}.",
        "",
        (
            f"--task {task.name}",
            f"{STORE} --data_pairs paired --batch_size 256",
            "--image_size 224 --transforms_cxr simclrv2",
            "--ehr_dim 128 --ehr_layers 1 --vision_backbone resnet34",
            "--temperature 0.1 --width 1 --denominator decoupled",
            "--optimizer lars --lr 0.6044 --momentum 0.9 --weight_decay 1e-4 --trust_coefficient 1e-3",
            "--epochs 300 --warmup_epochs 10 --schedule cosine",
            "--patience 30 --min_delta 1e-3",
        ),
    )


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
    found = {Path("train/simclr.sh"): pretrain(task)}
    for end, modality in MODALITIES.items():
        found |= {
            Path(f"train/finetune{end}.sh"): train(task, modality, "finetune", tuned),
            Path(f"train/lineareval{end}.sh"): train(task, modality, "lineareval", linear),
            Path(f"eval/fteval{end}.sh"): evaluate(task, modality, "finetune", "the fine-tuned classifier"),
            Path(f"eval/lineareval{end}.sh"): evaluate(task, modality, "lineareval", "the linear classifier"),
        }
    return found


def write_missing(task: Task, folder: Path) -> list[Path]:
    """Write those scripts of a task that are not in its folder yet; return them."""
    written = []
    for place, script in scripts(task).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(script.text())
            path.chmod(0o755)
            written.append(path)
    return written


def main(config: ScriptsConfig) -> None:
    """Write, and say what was written."""
    for task in TASKS.values():
        if config.task in ("all", task.name):
            written = write_missing(task, ROOT / "tasks" / task.folder)
            kept = len(scripts(task)) - len(written)
            print(f"{task.name}: {len(written)} scripts written, {kept} kept as they are")


if __name__ == "__main__":
    run_script(main, ScriptsConfig)
