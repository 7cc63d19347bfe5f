"""Every script of every task says what its place says, in flags that the program understands."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from align_trainer import AlignConfig
from models.fusion import FUSIONS
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tools.write_scripts import ORDER, files, scripts, write_missing
from training import pretrain
from training.classify import ClassifyConfig, check
from training.early_stopping import PatienceConfig
from training.select_epoch import EpochEvaluationConfig
from utils.config import parse
from vicreg_trainer import VICRegConfig

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {task.folder: task for task in TASKS.values()}
SCRIPTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("tasks/*/*/*.sh"))
CONFIGS = {
    "run_gpu.py": ClassifyConfig,
    "simclr_trainer.py": SimCLRConfig,
    "vicreg_trainer.py": VICRegConfig,
    "align_trainer.py": AlignConfig,
}
Config = ClassifyConfig | SimCLRConfig | VICRegConfig | AlignConfig

PRETRAININGS = ("simclr", "vicreg", "align")
PROTOCOLS = {"finetune": "finetune", "fteval": "finetune", "lineareval": "lineareval"}
MODALITIES = {"": ("concatenation", "paired"), "_ehr": ("ehr", "ehr"), "_cxr": ("cxr", "cxr")}
PUBLISHED = {
    **dict.fromkeys(("early", "joint", "late", "mmtm", "daft"), "paired"),
    **dict.fromkeys(("unified", "medfuse", "medfuse_tokens"), "partial"),  # use unpaired stays too
}
BASELINES = {f"supervised{end}": fusion_and_pairs for end, fusion_and_pairs in MODALITIES.items()} | {
    fusion: (fusion, pairs) for fusion, pairs in PUBLISHED.items()
}
MEANT = {  # what a script's name means: protocol, fusion and pairs
    **{f"{name}{end}": (p, *MODALITIES[end]) for name, p in PROTOCOLS.items() for end in MODALITIES},
    **{name: ("supervised", *fusion_and_pairs) for name, fusion_and_pairs in BASELINES.items()},
}
TRAIN = {*PRETRAININGS, *(name for name in MEANT if not name.startswith("fteval"))}
EVAL = {name for name in MEANT if not name.startswith("finetune")}

pretrains = [script for script in SCRIPTS if script.stem in PRETRAININGS]
classifies = [script for script in SCRIPTS if script.stem not in PRETRAININGS]
of_a_task = [script for script in SCRIPTS if script.parts[1] == "phenotyping"]
of_a_program = [Path("tasks/phenotyping/train", f"{name}.sh") for name in (*PRETRAININGS, "lineareval")]
classifier_script = pytest.mark.parametrize("script", classifies, ids=str)
a_script_of_each_program = pytest.mark.parametrize("script", of_a_program, ids=lambda script: script.stem)


def words_of(text: str, *flags: str, **environment: str) -> list[str]:
    """What a script of this text runs, word by word, as bash would (see the test of that)."""
    command = text.split("\nexec ${LAUNCH:-python} ")[1].replace("\\\n", " ")
    filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1], found[2]), command)
    before, after = shlex.split(filled.split('"$@"')[0]), filled.split('"$@"')[1]
    return [*before, *flags, *shlex.split(after)]


def words_by_bash(script: Path, *flags: str, **environment: str) -> list[str]:
    """What bash runs for a script, word by word."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("STORE", "CHECKPOINT"))
    }
    done = subprocess.run(
        ["bash", str(script), *flags],
        env={**clean, "LAUNCH": "printf %s\\n", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@cache
def parsed(script: Path, *flags: str, **environment: str) -> Config:
    """The settings that a script asks for."""
    return settings(words_of((ROOT / script).read_text(), *flags, **environment))


def settings(words: list[str]) -> Config:
    """The settings of a program and its flags, which the program itself finds sound."""
    config = parse(CONFIGS[words[0]], words[1:])
    if isinstance(config, ClassifyConfig):
        check(config)
    else:
        pretrain.check(config)
    return config


@cache
def made(task: str, place: str) -> Config:
    """The settings of a script as it is made, whatever became of the file."""
    return settings(words_of(scripts(TASKS[task])[Path(place)].text()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_matrix_is_complete(folder: str) -> None:
    for part, wanted in (("train", TRAIN), ("eval", EVAL)):
        assert wanted <= {path.stem for path in (ROOT / "tasks" / folder / part).glob("*.sh")}
    task = FOLDERS[folder]
    assert {Path(f"train/{n}.sh") for n in TRAIN} | {Path(f"eval/{n}.sh") for n in EVAL} <= set(scripts(task))


def test_every_script_is_bash() -> None:
    check_each = 'for script; do bash -n "$script" || exit 1; done'
    paths = [str(ROOT / script) for script in (*SCRIPTS, *(ROOT / "tasks").glob("*.sh"))]
    assert subprocess.run(["bash", "-c", check_each, "bash", *paths]).returncode == 0


def test_every_script_can_be_run_and_is_of_one_style() -> None:
    style = re.compile(
        r"#!/usr/bin/env bash\n(# .+\n){5,}(#SBATCH --.+\n)+set -euo pipefail\n"
        r'root="\$\(dirname "\$0"\)/../../.."\n'
        r'\[\[ -f "\$root/(\w+\.py)" \]\] \|\| root=.+\ncd "\$root"\n\n'
        r'exec \$\{LAUNCH:-python\} \3 \\\n(  .+ \\\n)+  "\$@"\n'
    )
    for script in SCRIPTS:
        assert os.access(ROOT / script, os.X_OK) and script.parts[1] in FOLDERS, script
        assert style.fullmatch((ROOT / script).read_text()), script


@pytest.mark.parametrize("script", of_a_task, ids=str)
def test_bash_runs_what_the_tests_read(script: Path) -> None:
    environment = {"STORE": "/my data/store", "CHECKPOINT": "/my runs/a.ckpt", "CHECKPOINT_EHR": "b.ckpt"}
    flags = ("--name", "my run")
    read = words_of((ROOT / script).read_text(), *flags, **environment)
    assert words_by_bash(ROOT / script, *flags, **environment) == read


@classifier_script
def test_a_place_names_task_mode_protocol_and_fusion(script: Path) -> None:
    config = parsed(script)
    assert config.task == FOLDERS[script.parts[1]].name
    assert config.mode == script.parts[2]
    any_pairs = ("supervised", script.stem, config.data.data_pairs)  # of a fusion beyond the published
    assert (config.protocol, config.fusion, config.data.data_pairs) == MEANT.get(script.stem, any_pairs)


@pytest.mark.parametrize("script", pretrains, ids=str)
def test_pretraining_is_on_the_pairs_of_the_task(script: Path) -> None:
    config = parsed(script)
    assert words_of((ROOT / script).read_text())[0] == f"{script.stem}_trainer.py"
    assert config.task == FOLDERS[script.parts[1]].name and config.data.data_pairs == "paired"
    assert config.run.name == f"{script.stem}-{config.task}"


@classifier_script
def test_a_script_reads_what_the_one_before_it_leaves(script: Path) -> None:
    """train/ the encoders of simclr.sh, or of none, or of two classifiers; eval/ its twin's best epoch."""
    config, folder = parsed(script), script.parent.parent / "train"
    if config.mode == "eval":
        twin = parsed(folder / script.name.replace("fteval", "finetune"))
        assert Path(config.load_state) == twin.run.save_dir / twin.run.name / "best.ckpt"
        assert config.run.name == f"{twin.run.name}-eval"
        assert config.data.image_size == twin.data.image_size
    elif config.protocol == "supervised":
        assert config.load_state == ""
        for modality in ("ehr", "cxr"):
            left = parsed(folder / f"supervised_{modality}.sh").run
            wanted = (
                str(left.save_dir / left.name / "best.ckpt")
                if FUSIONS[config.fusion].freezes_encoders
                else ""
            )
            assert getattr(config, f"load_state_{modality}") == wanted
    else:
        left = parsed(folder / "simclr.sh").run
        assert Path(config.load_state) == left.save_dir / left.name / "last.ckpt"


def test_no_two_scripts_share_a_run() -> None:
    names = [parsed(script).run.name for script in SCRIPTS]
    assert len(set(names)) == len(names)


def test_launch_echo_shows_the_command() -> None:
    script = ROOT / "tasks/phenotyping/eval/fteval_ehr.sh"
    shown = subprocess.check_output(["bash", str(script)], env={**os.environ, "LAUNCH": "echo"}, text=True)
    assert shown.split() == words_by_bash(script)


def test_the_environment_gives_store_and_checkpoint() -> None:
    for script in of_a_task:
        config = parsed(script, STORE="/my data/store", CHECKPOINT="/my runs/a.ckpt")
        assert config.data.store == Path("/my data/store")
        if isinstance(config, ClassifyConfig):
            fresh = config.mode == "train" and config.protocol == "supervised"
            assert config.load_state == ("" if fresh else "/my runs/a.ckpt")
    early = parsed(
        Path("tasks/phenotyping/train/early.sh"), CHECKPOINT_EHR="/a.ckpt", CHECKPOINT_CXR="/b.ckpt"
    )
    assert (early.load_state_ehr, early.load_state_cxr) == ("/a.ckpt", "/b.ckpt")


def test_the_line_wins() -> None:
    for script in of_a_task:
        config = parsed(script, "--seed", "7", "--batch_size", "12", "--name", "mine", "--store", "there")
        assert (config.run.seed, config.data.batch_size, config.run.name) == (7, 12, "mine")
        assert config.data.store == Path("there")


@a_script_of_each_program
def test_a_script_edited_by_hand_does_what_the_edit_says(script: Path, tmp_path: Path) -> None:
    before, copy = (ROOT / script).read_text(), tmp_path / script.name
    copy.write_text(re.sub(r"--lr \S+", "--lr 0.125", before).replace("--epochs 300", "--epochs 30 --clip 1"))
    edited, was = settings(words_by_bash(copy, SLURM_SUBMIT_DIR=str(ROOT))), settings(words_of(before))
    assert edited == replace(was, optim=replace(was.optim, lr=0.125, epochs=30, clip=1.0))


@a_script_of_each_program
@pytest.mark.parametrize(
    ("misspelt", "right"),
    [("--batch_sise", "--batch_size"), ("--optimiser", "--optimizer"), ("--lrr", "--lr")],
)
def test_a_misspelt_flag_stops_with_the_nearest_right_one(
    script: Path, misspelt: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / script).read_text()
    edited = text.replace(f"{right} ", f"{misspelt} ")
    assert edited != text
    for words in (words_of(edited), words_of(text, misspelt, "12")):
        with pytest.raises(SystemExit) as left:
            settings(words)
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


@a_script_of_each_program
def test_a_job_starts_where_it_was_submitted(script: Path, tmp_path: Path) -> None:
    """Sbatch runs a copy of the script in a folder of its own."""
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
    assert done.stdout.strip() == str(ROOT)
    directives = [line for line in copy.read_text().split("set -e")[0].splitlines() if "#SBATCH" in line]
    assert any("--gres=gpu" in line for line in directives)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("protocol", ["finetune", "lineareval"])
def test_classifiers_on_pretrained_encoders_have_the_published_values(task: str, protocol: str) -> None:
    lr, epochs = {("radiology", "lineareval"): (0.01, 300)}.get((task, protocol), (1e-3, 300))
    lr, epochs = (0.01, 400) if task == "decompensation" else (lr, epochs)
    for end in MODALITIES:
        config = made(task, f"train/{protocol}{end}.sh")
        optim = config.optim
        assert (optim.optimizer, optim.lr, optim.epochs, config.data.batch_size) == ("adamw", lr, epochs, 256)
        assert (optim.weight_decay, optim.schedule, optim.milestones) == (0.01, "step", (0.6, 0.8))
        assert (optim.gamma, config.stopping) == (0.1, PatienceConfig(patience=30, min_delta=1e-3))


RATES = {  # mortality, phenotyping; those of the fusions below the line are borrowed
    "supervised_ehr": (5.3985e-4, 5.3985e-4),
    "supervised_cxr": (2.951e-5, 1e-4),
    "early": (9.515e-5, 3.833e-5),
    "joint": (4.032e-5, 5.652e-5),
    "medfuse": (1e-4, 7e-5),
    "mmtm": (4.355e-5, 5.326e-5),
    "daft": (6.493e-5, 6.493e-5),
    # ---
    "supervised": (4.032e-5, 5.652e-5),
    "late": (4.032e-5, 5.652e-5),
    "unified": (4.032e-5, 5.652e-5),
    "medfuse_tokens": (1e-4, 7e-5),
}
BORROWED = ("supervised", "late", "unified", "medfuse_tokens")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", BASELINES)
def test_supervised_classifiers_have_the_published_values(task: str, name: str) -> None:
    config, published = made(task, f"train/{name}.sh"), task in ("in-hospital-mortality", "phenotyping")
    optim, encoders, fusion = config.optim, config.encoders, FUSIONS[config.fusion]
    rate = RATES[name][0 if task == "in-hospital-mortality" else 1]
    assert (optim.optimizer, optim.lr, optim.weight_decay) == ("adam", rate, 0.0)
    assert (optim.epochs, config.data.batch_size) == (50, 16)
    assert (optim.schedule, optim.gamma, optim.plateau_patience) == ("plateau", 0.5, 10)
    if "ehr" in fusion.modalities and not fusion.freezes_encoders:
        assert (encoders.ehr_dim, encoders.ehr_layers, encoders.ehr_dropout) == (256, 2, 0.3)
    if "cxr" in fusion.modalities:
        assert (encoders.vision_backbone, config.data.transforms_cxr) == ("resnet34", "supervised")
    stage = 3 if name == "daft" and task != "in-hospital-mortality" else 4
    assert config.fusion_settings.layer_after == stage
    header = scripts(TASKS[task])[Path(f"train/{name}.sh")].text().split("#SBATCH")[0]
    assert ("for this script none is" in header) == (name in BORROWED or not published)
    assert f" on {task if published else 'phenotyping'}" in header


@pytest.mark.parametrize("objective", PRETRAININGS)
def test_pretraining_has_the_published_values(objective: str) -> None:
    for task in TASKS:
        config = made(task, f"train/{objective}.sh")
        default = type(config)()
        assert (config.optim, config.encoders) == (default.optim, default.encoders)
        data = config.data
        assert (data.batch_size, data.image_size, data.transforms_cxr) == (256, 224, "simclrv2")
        own = {name for name in vars(config) if name not in ("task", "data", "run")}
        assert {name: getattr(config, name) for name in own} == {name: getattr(default, name) for name in own}


def test_the_launcher_at_the_root_is_the_one_of_phenotyping() -> None:
    assert settings(words_by_bash(ROOT / "align_trainer.sh")) == made("phenotyping", "train/align.sh")


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


def test_the_readme_of_a_new_task_says_what_it_predicts_and_in_which_order() -> None:
    text = files(TASKS["readmission"])[Path("README.md")]
    assert text.startswith("# Readmission\n\nReadmission: does another ICU stay of the patient begin")
    assert text.endswith(ORDER.format(name="readmission"))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_no_line_of_a_script_is_too_long(task: object) -> None:
    for script in scripts(task).values():
        assert all(len(line) <= 110 for line in script.text().splitlines()), script.name


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_of_a_task_names_scripts_that_are_there(folder: str) -> None:
    text = (ROOT / "tasks" / folder / "README.md").read_text()
    named = set(re.findall(r"`train/(\w+)\.sh`", text))
    assert {*PRETRAININGS, *BASELINES, "lineareval", "finetune"} <= named
    assert named <= {path.stem for path in (ROOT / "tasks" / folder / "train").glob("*.sh")}
    assert text.endswith(ORDER.format(name=FOLDERS[folder].name))


def run_all(folder: Path, *flags: str, **environment: str) -> list[list[str]]:
    """The commands of tasks/run_all.sh, with runs and results in a folder: program and flags."""
    here = {"RUNS": f"{folder}/runs", "RESULTS": f"{folder}/results"}
    clean = {name: value for name, value in os.environ.items() if name not in ("TASK", "QUICK", "STORE")}
    done = subprocess.run(
        ["bash", str(ROOT / "tasks/run_all.sh"), *flags],
        env={**clean, **here, "LAUNCH": "echo", "PYTHON": "true", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines() if line.partition(" ")[0].endswith(".py")]


def classifiers(commands: list[list[str]]) -> dict[str, ClassifyConfig]:
    """The classifiers among the commands, by the names of their runs."""
    found = [settings(words) for words in commands if words[0] == "run_gpu.py"]
    return {config.run.name: config for config in found}


@pytest.mark.parametrize("quick", ["", "1"])
def test_run_all_makes_the_whole_table_of_its_tasks(tmp_path: Path, quick: str) -> None:
    names = ("in-hospital-mortality", "readmission")
    commands = run_all(tmp_path, "--seed", "5", TASK=" ".join(names), QUICK=quick)
    found, order = classifiers(commands), [words[0] for words in commands]
    wanted = {f"{p}-concatenation-{o}" for p in ("lineareval", "finetune") for o in PRETRAININGS}
    wanted |= {f"supervised-{fusion}" for fusion in ("ehr", "cxr", "concatenation", *PUBLISHED)}
    assert {f"{task}-{name}" for task in names for name in wanted} <= set(found)
    for config in found.values():
        assert (config.run.seed, config.run.resume, config.mode) == (5, True, "train")
        assert config.run.save_dir == tmp_path / "runs" and config.results_dir == tmp_path / "results"
        assert (config.data.image_size == 32) == bool(quick)
        assert (config.data.every_hours == 24) == bool(quick)
    for objective in PRETRAININGS:
        pretraining = settings(commands[order.index(f"{objective}_trainer.py")])
        left = pretraining.run.save_dir / pretraining.run.name
        assert pretraining.run.seed == 5 and (pretraining.optim.epochs < 300) == bool(quick)
        config = found[f"{names[0]}-finetune-concatenation-{objective}"]
        assert (config.protocol, Path(config.load_state)) == ("finetune", left / "last.ckpt")
    early, ehr = (found[f"readmission-supervised-{fusion}"] for fusion in ("early", "ehr"))
    assert Path(early.load_state_ehr) == ehr.run.save_dir / ehr.run.name / "best.ckpt"


def test_run_all_shares_encoders_and_takes_the_objectives_and_fusions_asked_for(tmp_path: Path) -> None:
    tasks, objectives = ("phenotyping", "radiology"), ("align", "clip", "tsimclr")
    asked = {"TASK": " ".join(tasks), "OBJECTIVES": " ".join(objectives), "PAIRS": "readmission"}
    commands = run_all(tmp_path, **asked, FUSIONS_OF="radiology")
    pretrainings = [settings(words) for words in commands if words[0].endswith("_trainer.py")]
    assert [config.run.name for config in pretrainings] == [f"{name}-readmission" for name in objectives]
    assert {config.task for config in pretrainings} == {"readmission"}
    assert [config.objective for config in pretrainings[1:]] == ["clip", "tsimclr"]
    assert [config.optim.optimizer for config in pretrainings] == ["adamw", "adamw", "lars"]
    probes = [words[1:] for words in commands if words[0] == "epoch_evaluation.py"]
    probed = [parse(EpochEvaluationConfig, flags).task for flags in probes]
    assert probed == [",".join(tasks)] * 3
    found = classifiers(commands)
    for task, objective in itertools.product(tasks, objectives):
        state = found[f"{task}-lineareval-concatenation-{objective}"].load_state
        assert state == f"{tmp_path}/runs/{objective}-readmission/last.ckpt"
    assert {config.task for config in found.values() if config.protocol == "supervised"} == {"radiology"}


def test_run_all_with_several_jobs_runs_the_same_and_stops_at_a_failure(tmp_path: Path) -> None:
    one = sorted(run_all(tmp_path))
    (tmp_path / "runs").mkdir()
    run_all(tmp_path, JOBS="3")
    logs = [path.read_text().split() for path in (tmp_path / "runs").glob("*.log")]
    assert sorted(logs) == one
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_all(tmp_path, JOBS="3", LAUNCH="false")
    assert failed.value.returncode == 1 and "error: a run failed" in failed.value.stderr


def test_run_all_skips_what_is_in_the_results(tmp_path: Path) -> None:
    everything = classifiers(run_all(tmp_path))
    tested = [
        "phenotyping-supervised-mmtm",
        *(f"phenotyping-{p}-concatenation-vicreg" for p in ("lineareval", "finetune")),
    ]
    rows = [f"{name},phenotyping,p,f,o,c,3,test,0,macro,auroc,0.7" for name in tested]
    rows += ["phenotyping-supervised-daft,phenotyping,p,f,o,c,3,val,0,macro,auroc,0.7"]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/phenotyping.csv").write_text("\n".join(["run,task", *rows, ""]))
    commands = run_all(tmp_path)
    assert set(everything) - set(classifiers(commands)) == set(tested)
    programs = [words[0] for words in commands]
    assert "vicreg_trainer.py" not in programs and "align_trainer.py" in programs


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.6, 0.9, 0.8), "01"), ((0.7, 0.7, 0.1), "00"), (("", "", -0.1), "02"), (("", "", ""), None)],
)
def test_run_all_takes_the_best_epoch_by_validation(
    tmp_path: Path, scores: tuple[object, ...], best: str | None
) -> None:
    folder = tmp_path / "runs/simclr-length-of-stay"
    folder.mkdir(parents=True)
    rows = [f"{epoch},0.99,{score},0.5" for epoch, score in enumerate(scores)]
    (folder / "results_label_length-of-stay.csv").write_text(
        "\n".join(["epoch,train_kappa,val_kappa,test_kappa", *rows, ""])
    )
    for number in range(12):
        (folder / f"simclr-length-of-stay_epoch_{number:02d}.ckpt").touch()
    found = classifiers(run_all(tmp_path, TASK="length-of-stay"))
    name = f"simclr-length-of-stay_epoch_{best}.ckpt" if best else "last.ckpt"
    assert Path(found["length-of-stay-lineareval-concatenation-simclr"].load_state) == folder / name
    assert found["length-of-stay-finetune-concatenation-align"].load_state.endswith("/last.ckpt")


def test_run_all_knows_its_tasks() -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "tasks/run_all.sh")],
        env={**os.environ, "TASK": "phenotyping mortality", "LAUNCH": "echo"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "") and "there is no task mortality;" in done.stderr
    assert all(task in done.stderr for task in TASKS)


def test_the_demo_takes_a_folder_whose_name_has_a_space() -> None:
    shown = subprocess.check_output(["make", "-n", "demo", "MIMIC_IV=/my data/iv"], cwd=ROOT, text=True)
    (line,) = [line for line in shown.splitlines() if line.endswith("bash demo.sh")]
    assert "MIMIC_IV=/my data/iv" in shlex.split(line)
