"""The script of every task runs what its path says, with flags that the program accepts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from align_trainer import AlignConfig
from models.encoders import with_shape
from models.fusion import FUSIONS
from models.objectives import OBJECTIVES
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tools.write_scripts import (
    FLOORS,
    PUBLISHED,
    SIMCLR_VARIANTS,
    SUPERVISED_SCRIPTS,
    USAGE,
    files,
    published_for,
    scripts,
    write_missing,
)
from training import classify, pretrain
from training.baselines import MODELS, BaselineConfig
from training.classify_config import ClassifyConfig, check_config
from training.early_stopping import PatienceConfig
from training.search import SearchConfig
from utils import checkpoint
from utils.config import parse
from vicreg_trainer import VICRegConfig

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {task.folder: task for task in TASKS.values()}
ALL_SCRIPTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("tasks/*/*/*.sh"))
SCRIPTS = [script for script in ALL_SCRIPTS if script.stem not in FLOORS]  # of networks
CONFIGS = {
    "run_gpu.py": ClassifyConfig,
    "simclr_trainer.py": SimCLRConfig,
    "vicreg_trainer.py": VICRegConfig,
    "align_trainer.py": AlignConfig,
}
Config = ClassifyConfig | SimCLRConfig | VICRegConfig | AlignConfig

PRETRAININGS = [objective for objective in OBJECTIVES if objective not in SIMCLR_VARIANTS]
PROTOCOLS = {"finetune": "finetune", "fteval": "finetune", "lineareval": "lineareval"}
MODALITIES = {"": ("concatenation", "paired"), "_ehr": ("ehr", "ehr"), "_cxr": ("cxr", "cxr")}
PAIRS = {
    **dict.fromkeys(("early", "joint", "late", "mmtm", "daft", "utde", "aug", "inforeg"), "paired"),
    **dict.fromkeys(("unified", "medfuse", "medfuse_tokens"), "partial"),  # also use stays without an X-ray
    **dict.fromkeys(("drfuse", "shaspec", "m3care", "flexmoe", "healnet", "smil", "umse"), "partial"),
}
BASELINES = {f"supervised{end}": fusion_and_pairs for end, fusion_and_pairs in MODALITIES.items()} | {
    fusion: (fusion, pairs) for fusion, pairs in PAIRS.items()
}
MEANING = {  # protocol, fusion and pairs by the script's name
    **{f"{name}{end}": (p, *MODALITIES[end]) for name, p in PROTOCOLS.items() for end in MODALITIES},
    **{name: ("supervised", *fusion_and_pairs) for name, fusion_and_pairs in BASELINES.items()},
}
TRAIN = {"simclr", "vicreg", "align", *(name for name in MEANING if not name.startswith("fteval"))}
EVAL = {name for name in MEANING if not name.startswith("finetune")}

PRETRAIN_SCRIPTS = [script for script in SCRIPTS if script.stem in PRETRAININGS]
CLASSIFIER_SCRIPTS = [script for script in SCRIPTS if script.stem not in PRETRAININGS]
ONE_TASK = [script for script in SCRIPTS if script.parts[1] == "phenotyping"]
ONE_PER_PROGRAM = [
    Path("tasks/phenotyping/train", f"{name}.sh") for name in ("simclr", "vicreg", "align", "lineareval")
]
every_classifier = pytest.mark.parametrize("script", CLASSIFIER_SCRIPTS, ids=str)
one_per_program = pytest.mark.parametrize("script", ONE_PER_PROGRAM, ids=lambda script: script.stem)


def commands(paths: Iterable[Path], *flags: str, **environment: str) -> dict[Path, list[str]]:
    """Return the words of the command that each script runs, as bash expands them."""
    paths = list(paths)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STORE", "CHECKPOINT", "ENCODER"))
    }
    show = 'while [ "$1" != -- ]; do scripts+=("$1"); shift; done; shift\n' \
        'for script in "${scripts[@]}"; do bash "$script" "$@" && printf "=\\n"; done'  # fmt: skip
    shown = subprocess.run(
        ["bash", "-c", show, "bash", *map(str, paths), "--", *flags],
        env={**clean, "LAUNCH": "printf %s\\n", **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    words = [part.splitlines() for part in shown.split("=\n")[:-1]]
    return dict(zip(paths, words, strict=True))


@cache
def all_commands() -> dict[Path, list[str]]:
    """Return the commands of all scripts."""
    return commands(SCRIPTS)


def command(script: Path, *flags: str, **environment: str) -> list[str]:
    """Return the command of one script."""
    return commands([script], *flags, **environment)[script]


def settings(words: list[str]) -> Config:
    """Return the settings of a program and its flags, which the program itself accepts."""
    if words[0] == "-m":  # -m training.pretrain OBJECTIVE
        config = parse(pretrain.config_for(words[2]), words[3:])
    else:
        config = parse(CONFIGS[words[0]], words[1:])
    if isinstance(config, ClassifyConfig):
        check_config(config)
    else:
        pretrain.check(config)
    return config


@cache
def committed(script: Path) -> Config:
    """Return the settings of a script in the repository."""
    return settings(all_commands()[script])


@cache
def generated(task: str, path: str) -> Config:
    """Return the settings of a script as tools/write_scripts.py writes it."""
    script = scripts(TASKS[task])[Path(path)]
    return settings(shlex.split(" ".join((script.program, *script.flags))))


def folder_of(script: Path) -> Path:
    """Return the folder of the run of a script without flags."""
    config = committed(script)
    if isinstance(config, ClassifyConfig):
        objectives = {"supervised": "supervised"}.get(config.protocol, "simclr")
        sources = [checkpoint.Origin("", objectives, "") for _ in config.encoder_checkpoints]
        return config.run.save_dir / classify.default_name(config, sources)
    return config.run.save_dir / f"{script.stem}-{config.task}-seed0"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_matrix_is_complete(folder: str) -> None:
    for part, wanted in (("train", TRAIN), ("eval", EVAL)):
        assert wanted <= {path.stem for path in (ROOT / "tasks" / folder / part).glob("*.sh")}
    task = FOLDERS[folder]
    assert {Path(f"train/{n}.sh") for n in TRAIN} | {Path(f"eval/{n}.sh") for n in EVAL} <= set(scripts(task))


def test_a_script_is_short_executable_and_asks_slurm_for_what_its_run_needs() -> None:
    for script in SCRIPTS:
        lines = (ROOT / script).read_text().splitlines()
        assert len(lines) <= 16 and max(map(len, lines)) <= 120, script
        assert os.access(ROOT / script, os.X_OK) and script.parts[1] in FOLDERS, script
        options = shlex.split(" ".join(line for line in lines if line.startswith("#SBATCH")))
        assert {"--gres=gpu:1", "--mem=64G", "--time=24:00:00", "--signal=B:TERM@120"} <= set(options), script
        assert "--output=%x-%j.out" in options and committed(script).run.name == "", script
        job = next(option for option in options if option.startswith("--job-name="))[len("--job-name=") :]
        assert folder_of(script).name.startswith(job.removesuffix("-eval")), script


def test_every_task_has_a_script_of_each_floor_which_needs_no_gpu() -> None:
    paths = [Path("tasks", folder, "train", f"{model}.sh") for folder in FOLDERS for model in FLOORS]
    assert FLOORS == MODELS and set(paths) == set(ALL_SCRIPTS) - set(SCRIPTS)
    for script, words in commands(paths, SEED="2").items():
        assert words[:2] == ["-m", "training.baselines"]
        config = parse(BaselineConfig, words[2:])
        assert (config.task, config.model) == (FOLDERS[script.parts[1]].name, script.stem)
        assert (config.data_pairs, config.seed, config.store) == ("ehr_all", 2, Path("data/mimic"))
        assert os.access(ROOT / script, os.X_OK) and "gpu" not in (ROOT / script).read_text()


def test_a_script_can_be_called_from_any_folder(tmp_path: Path) -> None:
    script = "tasks/phenotyping/eval/fteval_ehr.sh"
    shown = subprocess.check_output(
        ["bash", ROOT / script], cwd=tmp_path, env={**os.environ, "LAUNCH": "echo"}, text=True
    )
    assert shown.split() == all_commands()[Path(script)]


@every_classifier
def test_a_path_names_task_mode_protocol_and_fusion(script: Path) -> None:
    config = committed(script)
    assert config.task == FOLDERS[script.parts[1]].name
    assert config.mode == script.parts[2]
    any_pairs = ("supervised", script.stem, config.data.data_pairs)  # of a fusion that was added
    assert (config.protocol, config.fusion, config.data.data_pairs) == MEANING.get(script.stem, any_pairs)


@pytest.mark.parametrize("script", PRETRAIN_SCRIPTS, ids=str)
def test_pretraining_is_on_the_pairs_of_the_task(script: Path) -> None:
    config = committed(script)
    assert all_commands()[script][0] in (f"{script.stem}_trainer.py", "-m")
    assert config.task == FOLDERS[script.parts[1]].name and config.data.data_pairs == "paired"


@every_classifier
def test_a_script_reads_what_the_one_before_it_wrote(script: Path) -> None:
    """train/ reads the encoders of simclr.sh or of two classifiers, or none; eval/ its twin's best epoch."""
    config, folder = committed(script), script.parent.parent / "train"
    if config.mode == "eval":
        twin = folder / script.name.replace("fteval", "finetune")
        assert Path(config.load_state) == folder_of(twin) / "best.ckpt"
        assert folder_of(script).name == f"{folder_of(twin).name}-eval"
        assert config.data.image_size == committed(twin).data.image_size
    elif config.protocol == "supervised":
        assert config.load_state == ""
        for modality in ("ehr", "cxr"):
            best = folder_of(folder / f"supervised_{modality}.sh") / "best.ckpt"
            path = str(best) if FUSIONS[config.fusion].freezes_encoders else ""
            assert getattr(config, f"load_state_{modality}") == path
    else:
        assert Path(config.load_state) == folder_of(folder / "simclr.sh") / "last.ckpt"


def test_no_two_scripts_share_a_run() -> None:
    assert len({folder_of(script) for script in SCRIPTS}) == len(SCRIPTS)


def test_another_seed_has_runs_and_checkpoints_of_its_own() -> None:
    for script, words in commands(ONE_TASK, SEED="3").items():
        config, before = settings(words), committed(script)
        assert config.run.seed == 3
        if isinstance(config, ClassifyConfig):
            for name in ("load_state", "load_state_ehr", "load_state_cxr"):
                path = getattr(before, name).replace("-seed0/", "-seed3/")
                assert getattr(config, name) == path and ("seed3" in path or not path)
            if config.mode == "train":
                assert classify.default_name(config, []).endswith("-seed3")


@pytest.mark.parametrize("flag", [["--seed", "3"], ["--seed=3"]], ids=["flag", "flag="])
def test_a_seed_given_by_a_flag_is_that_of_the_variable(flag: list[str]) -> None:
    by_variable = commands(ONE_TASK, SEED="3")
    assert commands(ONE_TASK, *flag) == {script: [*words, *flag] for script, words in by_variable.items()}
    assert settings([*by_variable[ONE_TASK[0]], *flag]) == settings(by_variable[ONE_TASK[0]])


def test_another_record_encoder_has_its_own_shape_runs_and_checkpoints() -> None:
    found = {path: settings(words) for path, words in commands(ONE_TASK, ENCODER="tcn").items()}
    pretrained = Path("runs/simclr-tcn-phenotyping-seed0/last.ckpt")
    for script, config in found.items():
        reads_records = not isinstance(config, ClassifyConfig) or (
            "ehr" in FUSIONS[config.fusion].encoder_names() and not config.encoder_checkpoints
        )
        own = ("tcn", None, None, None) if reads_records and script.parts[2] == "train" else None
        encoders = config.encoders
        shape = encoders.ehr_encoder, encoders.ehr_dim, encoders.ehr_layers, encoders.ehr_dropout
        assert own is None or shape == own
        assert own is not None or encoders.ehr_encoder == "lstm"
        if isinstance(config, ClassifyConfig) and config.mode == "train" and config.load_state:
            assert Path(config.load_state) == pretrained
        elif isinstance(config, ClassifyConfig) and config.mode == "eval":
            twin = found[script.parent.parent / "train" / script.name.replace("fteval", "finetune")]
            objective = {"supervised": "supervised"}.get(twin.protocol, "simclr")
            sources = [
                checkpoint.Origin("", objective, "", ehr_encoder="lstm" if "-cxr-" in path else "tcn")
                for path in twin.encoder_checkpoints.values()
            ]
            assert Path(config.load_state).parent.name == classify.default_name(twin, sources)
    flags = commands(ONE_TASK[-1:], "--ehr_dim", "32", ENCODER="lstm")
    assert flags == commands(ONE_TASK[-1:], "--ehr_dim", "32")


def test_flags_after_the_name_win_over_the_record_encoder_of_the_environment() -> None:
    script = Path("tasks/phenotyping/train/supervised_ehr.sh")
    config = settings(command(script, "--ehr_dim", "32", "--ehr_encoder", "gru_d", ENCODER="tcn"))
    assert (config.encoders.ehr_encoder, config.encoders.ehr_dim, config.encoders.ehr_layers) == (
        *("gru_d", 32), None,
    )  # fmt: skip


def test_the_environment_gives_store_and_checkpoint() -> None:
    environment = {
        "STORE": "/my data/store",
        "CHECKPOINT": "/a b.ckpt",
        "CHECKPOINT_EHR": "e",
        "CHECKPOINT_CXR": "c",
    }
    for script, words in commands(ONE_TASK, **environment).items():
        config = settings(words)
        assert config.data.store == Path("/my data/store")
        if isinstance(config, ClassifyConfig):
            untrained = config.mode == "train" and config.protocol == "supervised"
            assert config.load_state == ("" if untrained else "/a b.ckpt")
            frozen = script.stem == "early" and config.mode == "train"
            assert (config.load_state_ehr, config.load_state_cxr) == (("e", "c") if frozen else ("", ""))


def test_flags_after_the_name_of_the_script_win() -> None:
    flags = ("--seed", "7", "--batch_size", "12", "--name", "my run", "--store", "there")
    for words in commands(ONE_TASK, *flags).values():
        config = settings(words)
        assert (config.run.seed, config.data.batch_size, config.run.name) == (7, 12, "my run")
        assert config.data.store == Path("there")


@one_per_program
def test_a_script_edited_by_hand_does_what_the_edit_says(script: Path, tmp_path: Path) -> None:
    text, copy = (ROOT / script).read_text(), tmp_path / script.name
    copy.write_text(re.sub(r"--lr \S+", "--lr 0.125", text).replace("--epochs 300", "--epochs 30 --clip 1"))
    edited, before = settings(command(copy, SLURM_SUBMIT_DIR=str(ROOT))), committed(script)
    assert edited == replace(before, optim=replace(before.optim, lr=0.125, epochs=30, clip=1.0))


@one_per_program
@pytest.mark.parametrize(
    ("misspelt", "right"),
    [("--batch_sise", "--batch_size"), ("--optimiser", "--optimizer"), ("--lrr", "--lr")],
)
def test_a_misspelt_flag_stops_with_the_nearest_right_one(
    script: Path, misspelt: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = all_commands()[script]
    edited = [misspelt if word == right else word for word in words]
    assert edited != words
    for wrong in (edited, [*words, misspelt, "12"]):
        with pytest.raises(SystemExit) as left:
            settings(wrong)
        assert left.value.code == 2
        assert f"unknown flag {misspelt}; did you mean {right}?\n" in capsys.readouterr().err


def test_the_program_itself_refuses_a_misspelt_flag(tmp_path: Path) -> None:
    script = ROOT / "tasks/phenotyping/train/lineareval.sh"
    done = subprocess.run(
        ["bash", str(script), "--epoch", "3"],
        env={**os.environ, "LAUNCH": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "unknown flag --epoch; did you mean --epochs?" in done.stderr


@one_per_program
def test_a_job_starts_where_it_was_submitted(script: Path, tmp_path: Path) -> None:
    """Sbatch runs a copy of the script in another folder."""
    copy = tmp_path / "spool/a/job/slurm_script"
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / script, copy)
    done = subprocess.run(
        ["bash", str(copy)],
        env={**os.environ, "LAUNCH": "bash -c pwd", "SLURM_SUBMIT_DIR": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (str(ROOT), "")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("protocol", ["finetune", "lineareval"])
def test_classifiers_on_pretrained_encoders_have_the_published_values(task: str, protocol: str) -> None:
    lr, epochs = {("radiology", "lineareval"): (0.01, 300)}.get((task, protocol), (1e-3, 300))
    lr, epochs = (0.01, 400) if task == "decompensation" else (lr, epochs)
    for end in MODALITIES:
        config = generated(task, f"train/{protocol}{end}.sh")
        optim = config.optim
        assert (optim.optimizer, optim.lr, optim.epochs, config.data.batch_size) == ("adamw", lr, epochs, 256)
        assert (optim.weight_decay, optim.schedule, optim.milestones) == (0.01, "step", (0.6, 0.8))
        assert (optim.gamma, config.stopping) == (0.1, PatienceConfig(patience=30, min_delta=1e-3))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", BASELINES)
def test_supervised_classifiers_have_the_published_values(task: str, name: str) -> None:
    config, fusion = generated(task, f"train/{name}.sh"), FUSIONS[BASELINES[name][0]]
    optim, encoders = config.optim, config.encoders
    assert (optim.optimizer, optim.weight_decay, optim.epochs, config.data.batch_size) == (
        "adam",
        0.0,
        50,
        16,
    )
    assert (optim.schedule, optim.gamma, optim.plateau_patience) == ("plateau", 0.5, 10)
    if "ehr" in fusion.encoder_names() and not fusion.freezes_encoders:
        assert (encoders.ehr_dim, encoders.ehr_layers, encoders.ehr_dropout) == (256, 2, 0.3)
    if "cxr" in fusion.modalities:
        assert (encoders.vision_backbone, config.data.transforms_cxr) == ("resnet34", "supervised")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_supervised_script_says_whose_learning_rate_it_takes(task: str, fusion: str) -> None:
    like, of_task = published_for(fusion, task)
    path = supervised_path(fusion)
    config = generated(task, path)
    published = PUBLISHED[like][of_task]
    assert config.optim.lr == float(published.lr)
    assert config.fusion_settings == parse(ClassifyConfig, published.flags.split()).fusion_settings
    comment = " ".join(scripts(TASKS[task])[Path(path)].comments)
    assert f"as published for {like} on {of_task}" in comment
    assert ("none is published for this script" in comment) == ((fusion, task) != (like, of_task))


def supervised_path(fusion: str) -> str:
    """Return the path of the script that trains a supervised classifier."""
    return f"train/{SUPERVISED_SCRIPTS.get(fusion, fusion)}.sh"


def test_the_published_learning_rates_differ_between_tasks() -> None:
    """As the paper's tables have them: of joint fusion, and of a fusion for which there is none."""
    assert generated("in-hospital-mortality", "train/joint.sh").optim.lr == 4.032e-5
    assert generated("phenotyping", "train/late.sh").optim.lr == 5.652e-5
    assert generated("phenotyping", "train/daft.sh").fusion_settings.layer_after == 3


def test_the_published_settings_of_a_fusion_differ_between_tasks() -> None:
    settings = {task: generated(task, "train/healnet.sh").fusion_settings for task in TASKS}
    assert settings["in-hospital-mortality"].healnet_max_frequency == 5
    assert settings["length-of-stay"].healnet_depth == 3
    assert settings["radiology"] == settings["phenotyping"] and settings["radiology"].healnet_bands == 4
    drfuse = generated("phenotyping", "train/drfuse.sh").fusion_settings
    assert (drfuse.drfuse_shared, drfuse.drfuse_ehr, drfuse.drfuse_attention) == (0.01, 0.7626, 1.8578)
    assert generated("phenotyping", "train/aug.sh").fusion_settings.aug_alpha == 0.6484


@pytest.mark.parametrize("objective", PRETRAININGS)
def test_pretraining_has_the_published_values(objective: str) -> None:
    for task in TASKS:
        config = generated(task, f"train/{objective}.sh")
        default = type(config)()
        width = OBJECTIVES[objective].published_ehr_dim
        assert with_shape(config.encoders, width) == with_shape(default.encoders, width)
        data = config.data
        assert (data.batch_size, data.image_size, data.transforms_cxr) == (256, 224, "simclrv2")
        names = {name for name in vars(config) if name not in ("task", "data", "run", "encoders")}
        assert {name: getattr(config, name) for name in names} == {
            name: getattr(default, name) for name in names
        }


def test_the_launcher_at_the_root_is_the_one_of_phenotyping() -> None:
    assert command(Path("align_trainer.sh")) == all_commands()[Path("tasks/phenotyping/train/align.sh")]


def test_missing_files_are_written_and_others_left_alone(tmp_path: Path) -> None:
    task = TASKS["readmission"]
    first = write_missing(task, tmp_path)
    assert {path.relative_to(tmp_path) for path in first} == set(files(task)) > set(scripts(task))
    assert all(os.access(path, os.X_OK) == (path.suffix == ".sh") for path in first)
    mine, gone = first[:2]
    mine.write_text("# mine\n")
    gone.unlink()
    assert write_missing(task, tmp_path) == [gone]
    assert mine.read_text() == "# mine\n"


def test_the_scripts_of_a_new_task_are_like_those_of_the_others(tmp_path: Path) -> None:
    task = replace(TASKS["readmission"], name="my-task")
    folder = tmp_path / "tasks" / task.folder
    write_missing(task, folder)
    shutil.copy(ROOT / "tasks/launch.sh", tmp_path / "tasks")
    ours = {path: path.relative_to(tmp_path / "tasks/my_task") for path in folder.glob("*/*.sh")}
    for path, words in commands(ours).items():
        like = Path("tasks/readmission") / ours[path]
        if like in all_commands():
            assert [word.replace("my-task", "readmission") for word in words] == all_commands()[like]
        assert len(path.read_text().splitlines()) <= 16


def test_the_readme_of_a_new_task_says_what_it_predicts_and_in_which_order() -> None:
    text = files(TASKS["readmission"])[Path("README.md")]
    assert text.startswith("# Readmission\n\nReadmission: does another ICU stay of the patient begin")
    assert text.endswith(USAGE.format(name="readmission"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_of_a_task_names_scripts_that_are_there(folder: str) -> None:
    text = (ROOT / "tasks" / folder / "README.md").read_text()
    named = set(re.findall(r"`train/(\w+)\.sh`", text))
    assert {"simclr", "vicreg", "align", *BASELINES, "lineareval", "finetune"} <= named
    assert named <= {path.stem for path in (ROOT / "tasks" / folder / "train").glob("*.sh")}
    assert text.endswith(USAGE.format(name=FOLDERS[folder].name))


def test_the_demo_takes_a_folder_whose_name_has_a_space() -> None:
    shown = subprocess.check_output(["make", "-n", "demo", "MIMIC_IV=/my data/iv"], cwd=ROOT, text=True)
    (line,) = [line for line in shown.splitlines() if line.endswith("bash demo.sh")]
    assert "MIMIC_IV=/my data/iv" in shlex.split(line)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_search_gives_each_method_the_same_budget(folder: str) -> None:
    words = ["bash", f"tasks/{folder}/search.sh", "medfuse", "lineareval", "--trials", "4"]
    environment = {**os.environ, "LAUNCH": "echo", "STORE": "some/store", "SEED": "3"}
    printed = subprocess.check_output(words, cwd=ROOT, text=True, env=environment)
    configs = [parse(SearchConfig, line.split()[2:]) for line in printed.splitlines()]
    assert [(c.classifier.protocol, c.classifier.fusion) for c in configs] == [
        ("supervised", "medfuse"),
        ("lineareval", "concatenation"),
    ]
    for config in configs:
        base = config.classifier
        assert (config.trials, base.optim.epochs) == (4, 50)
        assert (base.run.seed, base.task) == (3, FOLDERS[folder].name)


def test_a_search_that_is_stopped_stops_its_trial(tmp_path: Path) -> None:
    program = tmp_path / "program"
    lines = ["#!/bin/bash", "trap 'echo saved; exit 0' TERM", f"touch {tmp_path}/started"]
    program.write_text("\n".join([*lines, "while sleep 0.05; do :; done", ""]))
    program.chmod(0o755)
    environment = {**os.environ, "LAUNCH": str(program)}
    script = ["bash", "tasks/phenotyping/search.sh", "medfuse", "daft"]
    job = subprocess.Popen(script, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    job.terminate()
    assert (job.communicate(timeout=20)[0], job.returncode) == ("saved\n", 143)
