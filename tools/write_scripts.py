"""Write the missing shell scripts and README of each task: `python -m tools.write_scripts`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, NamedTuple, get_args, get_type_hints

import numpy as np

from models.fusion import FUSIONS, LinearFusion
from models.objectives import OBJECTIVES
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tasks.task import Task
from utils.choices import look_up, one_of
from utils.cli import run_cli

ROOT = Path(__file__).resolve().parent.parent
MORTALITY, PHENOTYPING = "in-hospital-mortality", "phenotyping"


@dataclass(frozen=True)
class ScriptsConfig:
    """Write the missing scripts of one task or of all, with the published settings, and a missing README.

    No file is overwritten.
    """

    task: Annotated[str, one_of(["all", *TASKS])] = "all"
    """Task to write for."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown task."""
        look_up({"all": None, **TASKS}, self.task, "task")


@dataclass(frozen=True)
class Schedule:
    """Published training of a classifier on pretrained encoders, where it differs between tasks."""

    epochs: int = 300
    linear_lr: str = "1e-3"
    finetune_lr: str = "1e-3"


SCHEDULES: dict[str, Schedule] = {
    "radiology": Schedule(linear_lr="1e-2"),
    "decompensation": Schedule(epochs=400, linear_lr="1e-2", finetune_lr="1e-2"),
}


class Published(NamedTuple):
    """Published learning rate of a supervised fusion for one task, and the flags of its own settings."""

    lr: str
    flags: str = ""


def care_bench(
    fusion: str, names: str, *, phenotyping: str, mortality: str, length_of_stay: str
) -> dict[str, dict[str, Published]]:
    """Return the values that CareBench (arXiv 2602.23614) published for a fusion, by task.

    They are those for all stays, and for aug and inforeg those for stays with an X-ray. All were chosen on
    its test split, and with a learning rate of 1e-4.
    """
    values = {PHENOTYPING: phenotyping, MORTALITY: mortality, "length-of-stay": length_of_stay}
    return {
        fusion: {
            task: Published(
                "1e-4",
                " ".join(
                    f"--{name} {value}" for name, value in zip(names.split(), text.split(), strict=True)
                ),
            )
            for task, text in values.items()
        }
    }


PUBLISHED: dict[str, dict[str, Published]] = {
    "ehr": {MORTALITY: Published("5.3985e-4"), PHENOTYPING: Published("5.3985e-4")},
    "cxr": {MORTALITY: Published("2.951e-5"), PHENOTYPING: Published("1e-4")},
    "early": {MORTALITY: Published("9.515e-5"), PHENOTYPING: Published("3.833e-5")},
    "joint": {MORTALITY: Published("4.032e-5"), PHENOTYPING: Published("5.652e-5")},
    "medfuse": {MORTALITY: Published("1e-4"), PHENOTYPING: Published("7e-5")},
    "mmtm": {
        MORTALITY: Published("4.355e-5", "--layer_after 4"),
        PHENOTYPING: Published("5.326e-5", "--layer_after 4"),
    },
    "daft": {
        MORTALITY: Published("6.493e-5", "--layer_after 4"),
        PHENOTYPING: Published("6.493e-5", "--layer_after 3"),
    },
    **care_bench(
        "drfuse",
        "drfuse_shared drfuse_ehr drfuse_cxr drfuse_pred_ehr drfuse_pred_cxr drfuse_pred_shared "
        "drfuse_attention drfuse_dropout",
        phenotyping="0.01 0.7626 2 2 2 2 1.8578 0.2",
        mortality="0.01 0.8112 0.8074 2 1.5418 1.093 0.0164 0.2",
        length_of_stay="0.0115 1.9845 1.2387 1.2271 0.024 0.0558 1.0543 0.2",
    ),
    **care_bench(
        "shaspec",
        "shaspec_alpha shaspec_beta shaspec_dropout",
        phenotyping="0.01 0.1608 0.2",
        mortality="0.0261 0.0283 0.2",
        length_of_stay="0.0539 0.024 0.2",
    ),
    **care_bench(
        "m3care",
        "m3care_lambda m3care_dropout",
        phenotyping="0.001 0.2",
        mortality="0.001 0.2",
        length_of_stay="0.1865 0.2",
    ),
    **care_bench(
        "flexmoe",
        "flexmoe_experts flexmoe_routers flexmoe_top_k flexmoe_gate flexmoe_dropout",
        phenotyping="8 2 4 0.1 0.2",
        mortality="16 1 2 0.001 0.2",
        length_of_stay="8 2 2 0.0994 0.2",
    ),
    **care_bench(
        "healnet",
        "healnet_depth healnet_bands healnet_max_frequency healnet_dropout",
        phenotyping="1 4 10 0.2",
        mortality="1 4 5 0.2",
        length_of_stay="3 1 10 0.2",
    ),
    **care_bench(
        "smil",
        "smil_inner_steps smil_draws smil_lr smil_alpha smil_beta smil_temperature",
        phenotyping="2 20 7e-4 0.05 0.0882 3",
        mortality="2 10 5e-4 0.146 0.1829 2.1659",
        length_of_stay="3 20 2e-4 0.0569 0.196 1.4655",
    ),
    **care_bench("umse", "umse_dropout", phenotyping="0.2", mortality="0.2", length_of_stay="0.2"),
    **care_bench("utde", "utde_dropout", phenotyping="0.2", mortality="0.2", length_of_stay="0.2"),
    **care_bench(
        "aug",
        "aug_alpha aug_lambda aug_delta aug_every",
        phenotyping="0.6484 1.0159 0.0314 15",
        mortality="0.736 1.2 0.04 15",
        length_of_stay="0.7989 0.9836 0.0297 10",
    ),
    **care_bench(
        "inforeg",
        "inforeg_k inforeg_gamma_ehr inforeg_gamma_cxr inforeg_steps",
        phenotyping="0.0723 0.6116 0.0527 10",
        mortality="0.0449 0.5399 0.0972 5",
        length_of_stay="0.0745 0.5021 0.0674 15",
    ),
}


ENCODER_FLAGS = {"ehr": "--ehr_dim 256 --ehr_layers 2 --ehr_dropout 0.3", "cxr": "--vision_backbone resnet34"}
FROZEN_ENCODERS = (
    "The encoders are frozen: those of supervised_ehr.sh and supervised_cxr.sh, or CHECKPOINT_EHR and "
    "CHECKPOINT_CXR."
)
LARS = " --momentum 0.9 --trust_coefficient 1e-3"
EARLY_STOPPING = "--patience 30 --min_delta 1e-3"
INPUTS = {
    "paired": "EHR and X-ray",
    "partial": "EHR, and X-ray where there is one",
    "ehr": "the EHR of paired stays",
    "cxr": "the X-ray of paired stays",
}
FLOORS = ("logistic_regression", "gradient_boosting")  # as --model of training.baselines
LINEAR_FUSIONS = [name for name, fusion in FUSIONS.items() if issubclass(fusion, LinearFusion)]
SUPERVISED_SCRIPTS = {"concatenation": "supervised", "ehr": "supervised_ehr", "cxr": "supervised_cxr"}
# Objectives that simclr.sh trains, with --objective; each of the others has a script.
SIMCLR_VARIANTS = set(get_args(get_type_hints(SimCLRConfig)["objective"])) - {"simclr"}


class Script(NamedTuple):
    """A script: the name of its job, the program, the first flags, comments, and groups of related flags."""

    name: str
    program: str
    comments: tuple[str, ...]
    flags: tuple[str, ...]
    gpus: int = 1

    def text(self) -> str:
        """Return the whole file."""
        comments = "\n".join(f"# {comment}" for comment in (*self.comments, HELP))
        command = " \\\n  ".join((self.program, *fill_lines((*self.flags, '"$@"'))))
        gpus = f"--gres=gpu:{self.gpus} " if self.gpus else ""
        return TEMPLATE.format(comments=comments, name=self.name, gpus=gpus, command=command)


def fill_lines(groups: Iterable[str], width: int = 116) -> list[str]:
    """Join groups of flags to lines of at most `width` columns, without breaking a group.

    >>> fill_lines(["--a 1", "--b 2", "--c 3 --d 4"], width=12)
    ['--a 1 --b 2', '--c 3 --d 4']
    """
    lines: list[str] = []
    for group in filter(None, groups):
        if lines and len(f"{lines[-1]} {group}") <= width:
            lines[-1] += f" {group}"
        else:
            lines.append(group)
    return lines


HELP = "tasks/launch.sh explains STORE, SEED, ENCODER, LAUNCH and flags after the script's name."
SEED = "-seed$SEED"  # the end of a run's name
ENCODER = "$ENC"  # in names of runs: the record encoder, or that of the source, if it is no LSTM
TEMPLATE = """\
#!/usr/bin/env bash
{comments}
#SBATCH --job-name={name} --output=%x-%j.out
#SBATCH {gpus}--cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

launch {command}
"""


def pretrain(task: Task, objective: str) -> Script:
    """Return the script that pretrains both encoders with an objective on the task's pairs."""
    settings = OBJECTIVES[objective]
    name = f"{objective}-{task.name}"
    trainer = f"{objective}_trainer.py"
    program = trainer if (ROOT / trainer).exists() else f"-m training.pretrain {objective}"
    optim = settings.published_optim
    return Script(
        name,
        f"{program} --task {task.name} --data_pairs paired",
        (
            f"Pretrain both encoders with {settings.title} on the pairs of {task.name}.",
            f"A checkpoint of every epoch goes to runs/{name}-seed0; --seed 1 makes the folder of seed 1.",
        ),
        (
            "--image_size 224 --transforms_cxr simclrv2 "
            f"--ehr_dim {settings.published_ehr_dim} --ehr_layers 1 --vision_backbone resnet34",
            " ".join(f"--{item.name} {flag_value(item.default)}" for item in fields(settings)),
            f"--optimizer {optim.optimizer} --lr {flag_value(optim.lr)} "
            f"--weight_decay {flag_value(optim.weight_decay)}{LARS if optim.optimizer == 'lars' else ''}",
            f"--batch_size 256 --epochs {optim.epochs} --warmup_epochs {flag_value(optim.warmup_epochs)} "
            f"--schedule {optim.schedule} {EARLY_STOPPING}",
        ),
    )


def flag_value(value: object) -> str:
    """Return a setting as a script has it.

    >>> [flag_value(value) for value in (25.0, 0.6044, 6.026e-5, "paired")]
    ['25', '0.6044', '6.026e-5', 'paired']
    """
    if isinstance(value, float):
        return np.format_float_scientific(value, trim="-", exp_digits=1) if 0 < value < 0.01 else f"{value:g}"
    return str(value)


def pairs_of(fusion: str) -> str:
    """Return --data_pairs of a fusion's scripts."""
    modalities = FUSIONS[fusion].modalities
    return modalities[0] if len(modalities) == 1 else FUSIONS[fusion].data_pairs


def supervise(task: Task, fusion: str) -> Script:
    """Return the script that trains a classifier from random weights, or on frozen encoders, and tests it."""
    like, like_task = published_for(fusion, task.name)
    published = PUBLISHED[like][like_task]
    modalities = FUSIONS[fusion].modalities
    frozen = FUSIONS[fusion].freezes_encoders
    encoded = FUSIONS[fusion].encoder_names()
    name = run_name(task, "supervised", fusion)
    values = "The learning rate is"
    if published.flags:
        values = f"Learning rate and {'stage' if 'layer_after' in published.flags else 'settings'} are"
    borrowed = "" if (fusion, task.name) == (like, like_task) else "; none is published for this script"
    return Script(
        name,
        f"run_gpu.py --task {task.name} --mode train",
        (
            f"Train {FUSIONS[fusion].title} for {task.name} on {INPUTS[pairs_of(fusion)]}.",
            *([FROZEN_ENCODERS] if frozen else []),
            f"{values} as published for {like} on {like_task}{borrowed}.",
            f"Val and test scores of the best epoch go to results/{task.name}.csv.",
        ),
        (
            f"--protocol supervised --fusion {fusion}",
            *published.flags.replace(" --", "\n--").splitlines(),
            f"--data_pairs {pairs_of(fusion)}",
            "--image_size 224 --transforms_cxr supervised" if "cxr" in modalities else "",
            *(trained_encoders(task) if frozen else [" ".join(ENCODER_FLAGS[name] for name in encoded)]),
            f"--batch_size 16 --epochs 50 --optimizer adam --lr {published.lr} --weight_decay 0",
            f"--schedule plateau --gamma 0.5 --plateau_patience 10 {EARLY_STOPPING}",
        ),
    )


def published_for(fusion: str, task: str) -> tuple[str, str]:
    """Return the fusion and the task whose published values a script takes."""
    like = fusion if fusion in PUBLISHED else FUSIONS[fusion].published_like
    return like, task if task in PUBLISHED[like] else PHENOTYPING


def trained_encoders(task: Task) -> list[str]:
    """Return the flags that load both encoders from the supervised classifiers of one modality."""
    folders = {
        fusion: f"runs/{run_name(task, 'supervised', fusion)}{encoder}{SEED}"
        for fusion, encoder in (("ehr", ENCODER), ("cxr", ""))
    }
    return [
        f'--load_state_{fusion} "${{CHECKPOINT_{fusion.upper()}:-{folder}/best.ckpt}}"'
        for fusion, folder in folders.items()
    ]


def train(task: Task, protocol: str, fusion: str) -> Script:
    """Return the script that trains a classifier on pretrained encoders, and tests it."""
    schedule = SCHEDULES.get(task.name, Schedule())
    finetune = protocol == "finetune"
    lr = schedule.finetune_lr if finetune else schedule.linear_lr
    does = "Fine-tune pretrained encoders" if finetune else "Train one linear layer on frozen encoders"
    images = f" --image_size 224{' --transforms_cxr simclrv2' if finetune else ''}" if fusion != "ehr" else ""
    name = run_name(task, protocol, fusion)
    return Script(
        name,
        f"run_gpu.py --task {task.name} --mode train",
        (
            f"{does} for {task.name} on {INPUTS[pairs_of(fusion)]}.",
            f"Val and test scores of the best epoch go to results/{task.name}.csv. "
            "Set CHECKPOINT to use other encoders.",
        ),
        (
            f"--protocol {protocol} --fusion {fusion}",
            f'--load_state "${{CHECKPOINT:-runs/simclr{ENCODER}-{task.name}{SEED}/last.ckpt}}"',
            f"--data_pairs {pairs_of(fusion)}{images} --batch_size 256 {EARLY_STOPPING}",
            f"--epochs {schedule.epochs} --optimizer adamw --lr {lr} --weight_decay 0.01 "
            "--schedule step --milestones 0.6 0.8 --gamma 0.1",
        ),
    )


def evaluate(task: Task, protocol: str, fusion: str) -> Script:
    """Return the script that tests the best epoch of a classifier again."""
    trained = run_name(task, protocol, fusion)
    objective = "" if protocol == "supervised" else "-simclr"
    encoder = ENCODER if objective or "ehr" in FUSIONS[fusion].encoder_names() else ""
    images = " --image_size 224" if "cxr" in FUSIONS[fusion].modalities else ""
    pairs = pairs_of(fusion)
    titles = {"finetune": "the fine-tuned classifier", "lineareval": "the linear classifier"}
    return Script(
        f"{trained}-eval",
        f"run_gpu.py --task {task.name} --mode eval",
        (
            f"Test {titles.get(protocol, FUSIONS[fusion].title)} for {task.name} on {INPUTS[pairs]}.",
            f"The scores go to results/{task.name}.csv. Set CHECKPOINT to test another classifier.",
        ),
        (
            f"--protocol {protocol} --fusion {fusion} --data_pairs {pairs} --batch_size 256{images}",
            f'--load_state "${{CHECKPOINT:-runs/{trained}{encoder}{objective}{SEED}/best.ckpt}}"',
        ),
    )


def floor(task: Task, model: str) -> Script:
    """Return the script that fits a model without a network to summary statistics of the records."""
    title = model.replace("_", " ")
    return Script(
        f"{task.name}-{model.replace('_', '-')}",
        f"-m training.baselines --task {task.name}",
        (
            f"Fit {title} for {task.name} on summary statistics of the EHR, as a floor for the networks.",
            f"Val and test scores of the settings that validation chooses go to results/{task.name}.csv.",
        ),
        (f"--model {model} --data_pairs ehr_all",),
        gpus=0,
    )


def run_name(task: Task, protocol: str, fusion: str) -> str:
    """Return how a run's name begins, before objective and seed: phenotyping-finetune-ehr-simclr-seed0."""
    return f"{task.name}-{protocol}-{fusion}"


def scripts(task: Task) -> dict[Path, Script]:
    """Return the scripts of a task by their path in its folder."""
    by_path = {
        Path(f"train/{objective}.sh"): pretrain(task, objective)
        for objective in OBJECTIVES
        if objective not in SIMCLR_VARIANTS
    }
    for fusion in LINEAR_FUSIONS:
        end = "" if fusion == "concatenation" else f"_{fusion}"
        for protocol, test in (("finetune", "fteval"), ("lineareval", "lineareval")):
            by_path[Path(f"train/{protocol}{end}.sh")] = train(task, protocol, fusion)
            by_path[Path(f"eval/{test}{end}.sh")] = evaluate(task, protocol, fusion)
    for fusion in FUSIONS:
        name = SUPERVISED_SCRIPTS.get(fusion, fusion)
        by_path[Path(f"train/{name}.sh")] = supervise(task, fusion)
        by_path[Path(f"eval/{name}.sh")] = evaluate(task, "supervised", fusion)
    return by_path | {Path(f"train/{model}.sh"): floor(task, model) for model in FLOORS}


SEARCH = """\
#!/usr/bin/env bash
# Search the settings of methods for {task} on the validation split, each with as many trials and epochs.
#   bash tasks/{folder}/search.sh medfuse daft --trials 30 --epochs 50
# A method is the name of a script in train/ that trains a classifier. If none is given: lineareval, finetune
# and supervised. Flags after the methods are those of python -m training.search and of run_gpu.py. The same
# command continues after an interruption, and may run several times at once, on all machines that share
# runs/search.
# tasks/launch.sh explains STORE, SEED, ENCODER and LAUNCH.
#SBATCH --job-name=search-{task} --output=%x-%j.out
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@120
source "$(dirname "$0")/../launch.sh" 2>/dev/null || source "$SLURM_SUBMIT_DIR/tasks/launch.sh"

methods=()
while [[ ${{1:---}} != --* ]]; do
  methods+=("$1")
  shift
done
[[ ${{#methods[@]}} -gt 0 ]] || methods=(lineareval finetune supervised)
stop() {{ # pass the signal on, so that the running trial saves
  kill -TERM "$search" 2>/dev/null || true
  wait "$search" || true
  exit 143
}}
trap stop TERM INT USR1 USR2
for method in "${{methods[@]}}"; do
  LAUNCH="${{LAUNCH:-python}} -m training.search" bash "tasks/{folder}/train/$method.sh" --epochs 50 "$@" &
  search=$!
  wait "$search"
done
"""
PACKAGE = '"""Task folder: the definition in task.py, and the scripts of its runs."""\n'
README = """\
# {title}

{about}

The supervised learning rates are those published for phenotyping; none are published for this task.

{usage}"""
USAGE = """\
Run the scripts from the root of the repository, in this order:

1. `train/simclr.sh`, `train/vicreg.sh` or `train/align.sh` pretrains both encoders. Then
   `RUN=runs/simclr-{name}-seed0 bash eval_epoch.sh --task {name}` finds the best epoch.
   `train/simclr.sh --probe {name}` finds it while it trains.
2. `train/lineareval.sh` trains one linear layer on the frozen encoders in `CHECKPOINT` (if not set, the last
   epoch of SimCLR). `train/finetune.sh` trains all weights. The scripts that end in `_ehr` and `_cxr` use one
   modality.
3. `train/supervised_ehr.sh`, `train/supervised_cxr.sh` and `train/supervised.sh` train from random weights,
   and so do `train/joint.sh`, `train/late.sh`, `train/unified.sh`, `train/medfuse.sh`,
   `train/medfuse_tokens.sh`, `train/mmtm.sh`, `train/daft.sh`, `train/drfuse.sh`, `train/shaspec.sh`,
   `train/m3care.sh`, `train/flexmoe.sh`, `train/healnet.sh`, `train/smil.sh`, `train/umse.sh`,
   `train/utde.sh`, `train/aug.sh` and `train/inforeg.sh`. `train/early.sh` needs the first two.
4. `train/logistic_regression.sh` and `train/gradient_boosting.sh` fit models without a network to summary
   statistics of the records, as floors for the others.

Each script of steps 2 and 3 also tests its best epoch. The script of the same name in `eval/` (`fteval` for
`finetune`) tests it again, or the classifier in `CHECKPOINT`.

`TASK={name} bash tasks/run_all.sh` does all steps.
`search.sh` searches settings of classifiers on the validation split.
"""


def readme(task: Task) -> str:
    """Return the README: what is predicted (the docstring of task.py), and how to run the scripts."""
    about = textwrap.fill(inspect.getdoc(inspect.getmodule(task.samples)) or "", 110)
    title = task.name.replace("-", " ").capitalize()
    return README.format(title=title, about=about, usage=USAGE.format(name=task.name))


def files(task: Task) -> dict[Path, str]:
    """Return the text of each generated file of a task by its path in the task's folder."""
    texts = {path: script.text() for path, script in scripts(task).items()}
    texts[Path("search.sh")] = SEARCH.format(task=task.name, folder=task.folder)
    return texts | {Path("__init__.py"): PACKAGE, Path("README.md"): readme(task)}


def write_missing(task: Task, folder: Path) -> list[Path]:
    """Write the generated files of a task that its folder lacks, and return them."""
    written = []
    for name, text in files(task).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
            path.chmod(0o755 if path.suffix == ".sh" else 0o644)
            written.append(path)
    return written


def main(config: ScriptsConfig) -> None:
    """Write the missing files and print how many."""
    for task in TASKS.values():
        if config.task in ("all", task.name):
            written = write_missing(task, ROOT / "tasks" / task.folder)
            kept = len(files(task)) - len(written)
            print(f"{task.name}: {len(written)} files written, {kept} existing files kept")


if __name__ == "__main__":
    run_cli(main, ScriptsConfig)
