"""Every fusion of both modalities, from two unimodal classifiers through run_gpu.py and back."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.samples import load_samples
from datasets.schema import SPLITS
from datasets.store import Store
from evaluation.names import TITLES
from evaluation.results import read_recorded
from models.classifier import ClassifierConfig, build_classifier
from models.encoders import EncoderConfig, vision
from models.fusion import FUSIONS
from tasks import TASKS
from tests.random_store import STAYS, write_random_store
from tests.stores import refresh_manifests, write_store
from training import classify
from training.classify_config import ClassifyConfig, check_config
from training.predict import predict
from utils import checkpoint
from utils.config import digest, parse
from utils.log import logger

FAST = ("--image_size", "32", "--batch_size", "8", "--device", "cpu", "--epochs", "1", "--bootstrap", "0")
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "test_resnet")
STAGES = {"mmtm": "resnet18", "daft": "resnet18"}  # they act between the stages of torchvision's networks
SUPERVISED = ("--protocol", "supervised", "--task", "readmission")
BOTH = [name for name, fusion in FUSIONS.items() if len(fusion.modalities) == 2]
SETTINGS = {"mmtm": ("--layer_after", "-1"), "daft": ("--layer_after", "3")}
SETTINGS["medfuse_tokens"] = ("--missing_token", "learned")


@pytest.mark.parametrize("name", FUSIONS)
def test_tables_and_pictures_call_a_published_method_by_its_name(name: str) -> None:
    title = FUSIONS[name].title
    assert TITLES.get(name) == title or title == "the supervised classifier" or title.endswith(" fusion")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


def run(store: Path, folder: Path, *flags: str | Path) -> ClassifyConfig:
    """Run run_gpu.py in this process; return its config."""
    config = settings(store, folder, *flags)
    classify.classify(config)
    return config


def settings(store: Path, folder: Path, *flags: str | Path) -> ClassifyConfig:
    paths = ("--store", store, "--save_dir", folder, "--results_dir", folder / "results")
    return parse(ClassifyConfig, [*map(str, (*paths, *FAST, *flags))])


@pytest.fixture(scope="module")
def unimodal(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Flags that start the encoders of a fusion from classifiers of one modality each, by image encoder."""
    folder = tmp_path_factory.mktemp("unimodal")
    run(store, folder, *SUPERVISED, *SHAPE, "--fusion", "ehr", "--name", "ehr")
    for backbone in ("test_resnet", "resnet18"):
        shape = ("--vision_backbone", backbone)
        run(store, folder, *SUPERVISED, *shape, "--fusion", "cxr", "--name", backbone)
    best = {name: str(folder / name / "best.ckpt") for name in ("ehr", "test_resnet", "resnet18")}
    return {
        backbone: ("--load_state_ehr", best["ehr"], "--load_state_cxr", best[backbone])
        for backbone in ("test_resnet", "resnet18")
    }


def probabilities(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "predictions_test.csv")["probability"].to_numpy()


@pytest.mark.parametrize("fusion", BOTH)
def test_a_fusion_trains_in_two_stages_and_evaluates_again(store, unimodal, tmp_path, fusion: str) -> None:
    flags = (*SUPERVISED, "--fusion", fusion, "--data_pairs", "partial")
    words = unimodal[STAGES.get(fusion, "test_resnet")]
    given = dict(zip(words[::2], words[1::2], strict=True))
    used = {f"--load_state_{name}": given[f"--load_state_{name}"] for name in FUSIONS[fusion].encoder_names()}
    start = [word for pair in used.items() for word in pair]
    run(store, tmp_path, *flags, *start, *SETTINGS.get(fusion, ()), "--name", "it")
    state = tmp_path / "it" / "best.ckpt"
    run(store, tmp_path, *flags, "--mode", "eval", "--load_state", state, "--name", "again")
    probability = probabilities(tmp_path / "it")
    assert len(probability) == STAYS["test"] and np.isfinite(probability).all()
    assert np.allclose(probability, probabilities(tmp_path / "again"), atol=1e-5)
    rows = pd.read_csv(tmp_path / "results" / "readmission.csv")
    assert set(rows["fusion"]) == {fusion} and set(rows["objective"]) == {"supervised"}
    assert rows.loc[0, "checkpoint"] == " + ".join(used.values())


@pytest.mark.parametrize("fusion", ["early", "joint"])
def test_only_early_fusion_keeps_its_encoders(store, unimodal, tmp_path, fusion: str) -> None:
    words = unimodal["test_resnet"]
    run(store, tmp_path, *SUPERVISED, "--fusion", fusion, *words, "--name", "it")
    after = checkpoint.load(tmp_path / "it" / "best.ckpt")["parts"]
    for name, path in (("ehr_encoder", words[1]), ("cxr_encoder", words[3])):
        before = checkpoint.load(Path(path))["parts"][name]
        same = all(torch.equal(before[key], after[name][key]) for key in before)
        assert same == (fusion == "early")


@pytest.mark.parametrize(("fusion", "other"), [("ehr", "cxr"), ("cxr", "ehr")])
def test_a_modality_that_the_fusion_does_not_use_is_not_loaded(
    store, tmp_path, fusion: str, other: str
) -> None:
    flags = (*SUPERVISED, *SHAPE, "--fusion", fusion)
    run(store, tmp_path, *flags, "--data_pairs", "paired", "--name", "paired")
    run(store, tmp_path, *flags, "--data_pairs", fusion, "--name", "one")
    assert np.array_equal(probabilities(tmp_path / "paired"), probabilities(tmp_path / "one"))
    config = settings(store, tmp_path, *flags, "--data_pairs", "paired", "--name", "batches")
    experiment = classify.open_experiment(config)
    for split in SPLITS:
        samples = experiment.load_samples(split)
        for batch in classify.read_batches(experiment, samples, train=split == "train").epoch(0):
            assert getattr(batch, fusion) is not None and getattr(batch, other) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--protocol supervised --fusion early", "give trained ones with --load_state_ehr"),
        ("--protocol supervised --fusion early --load_state_ehr x.ckpt", "give trained ones"),
        (
            "--protocol finetune --fusion joint --load_state_ehr x.ckpt",
            r"needs --load_state, .*, or --load_state_cxr for",
        ),
        (
            "--protocol finetune --fusion joint --cxr_weights x.pth",
            r"needs --load_state, .*, or --load_state_ehr for",
        ),
        ("--protocol supervised --fusion ehr --load_state_cxr x.ckpt", "does not use --load_state_cxr"),
        ("--load_state random --load_state_cxr x.ckpt", "does not use --load_state_cxr"),
        ("--mode eval --load_state x.ckpt --load_state_ehr y.ckpt", "does not use --load_state_ehr"),
        ("--mode eval --load_state_ehr x.ckpt --load_state_cxr y.ckpt", "needs --load_state"),
        (
            "--protocol supervised --fusion joint --load_state_cxr x.ckpt --vision_backbone resnet18",
            "leave out --v",
        ),
        ("--protocol supervised --load_state_cxr x.ckpt --fusion_layer 3", "use --fusion_layer 0"),
        (
            "--protocol lineareval --fusion joint --load_state x.ckpt",
            "use --fusion ehr, cxr or concatenation",
        ),
        ("--protocol supervised --fusion joint --layer_after 2", "no setting --layer_after"),
        ("--protocol supervised --load_state_cxr x.pth", "takes a checkpoint of this.*with --cxr_weights"),
        ("--protocol supervised --cxr_weights x.ckpt", "takes files that end in .*with --load_state_cxr"),
        ("--protocol supervised --cxr_weights x.pth --load_state_cxr y.ckpt", "both start the image encoder"),
        ("--protocol supervised --cxr_weights x.pth --fusion ehr", "does not use --cxr_weights"),
        (
            "--protocol lineareval --fusion cxr --cxr_weights x.pth --vision_backbone rad-dino",
            "--vision_backbone rad-dino reads images of 518 pixels; use --image_size 518",
        ),
        (
            "--protocol supervised --fusion cxr --vision_backbone resnet81",
            "--vision_backbone resnet81: no ResNet .*; did you mean resnet18",
        ),
        (
            "--protocol supervised --fusion medfuse --data_pairs ehr",
            "--data_pairs ehr has no X-rays, which --fusion medfuse needs; use",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(parse(ClassifyConfig, flags.split()))


def test_the_shape_of_a_fresh_encoder_may_be_given_beside_a_trained_one() -> None:
    flags = "--protocol supervised --fusion joint --load_state_cxr x.ckpt --ehr_dim 256 --ehr_layers 2"
    config = parse(ClassifyConfig, flags.split())
    assert check_config(config) is None and config.encoders.ehr_layers == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--fusion ehr --vision_backbone resnet18 --pretrained",
            "--fusion ehr has no image encoder to shape; leave out --vision_backbone and --pretrained",
        ),
        ("--fusion cxr --ehr_dim 8", "--fusion cxr has no record encoder to shape; leave out --ehr_dim"),
        ("--fusion umse --data_pairs partial --ehr_layers 2", "--fusion umse has no record encoder"),
        ("--fusion joint --vision_backbone resnet18 --ehr_dim 8", ""),
        ("--fusion ehr --ehr_dim 8", ""),
        ("--fusion cxr --vision_backbone resnet18", ""),
    ],
)
def test_the_shape_of_an_encoder_that_a_fusion_lacks_is_said_to_be_unused(
    flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(logger, "warning", warnings.append)
    check_config(parse(ClassifyConfig, ["--protocol", "supervised", *flags.split()]))
    assert len(warnings) == bool(message) and message in "".join(warnings)


def test_eval_refuses_other_settings_than_those_of_training(store, unimodal, tmp_path) -> None:
    flags = (*SUPERVISED, "--fusion", "mmtm")
    run(store, tmp_path, *flags, *unimodal["resnet18"], "--layer_after", "2", "--name", "it")
    state = ("--mode", "eval", "--load_state", tmp_path / "it" / "best.ckpt")
    run(store, tmp_path, *flags, *state, "--layer_after", "2", "--name", "same")
    with pytest.raises(ValueError, match=r"was trained with .*layer_after=2.*leave out"):
        run(store, tmp_path, *flags, *state, "--layer_after", "1")


@pytest.fixture(scope="module")
def mortality(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Batches]:
    """Test batches of a store: as given, with the X-rays inverted that are read, and with the others so."""
    folder = tmp_path_factory.mktemp("xrays")
    batches = {"given": mortality_batches(write_store(folder / "given"))}
    has_cxr = batches["given"].samples.cxr_row >= 0
    assert has_cxr.any() and not has_cxr.all()
    read = np.unique(batches["given"].samples.cxr_row[has_cxr])
    unread = np.setdiff1d(np.arange(len(Store.open(folder / "given").cxr)), read)
    for name, rows in {"read": read, "unread": unread}.items():
        shutil.copytree(folder / "given", folder / name)
        invert_images(folder / name, rows)
        batches[name] = mortality_batches(folder / name)
    return batches


def mortality_batches(folder: Path) -> Batches:
    data, store = DataConfig(folder, "partial", image_size=32), Store.open(folder)
    samples = load_samples(store, TASKS["in-hospital-mortality"], "test", data, seed=0)
    return Batches(store, samples, data, seed=0, device=torch.device("cpu"), train=False)


@pytest.mark.parametrize("fusion", [name for name, f in FUSIONS.items() if "cxr" in f.modalities])
def test_only_the_own_xray_of_a_sample_has_a_say(mortality: dict[str, Batches], fusion: str) -> None:
    """Not those of others, nor those of its stay that were taken after the prediction time."""
    task = TASKS["in-hospital-mortality"]
    torch.manual_seed(0)
    encoders = EncoderConfig(ehr_dim=8, vision_backbone=STAGES.get(fusion, "test_resnet"))
    classifier = build_classifier(ClassifierConfig(fusion, task.kind, task.outputs, encoders)).eval()
    found = {name: predict(classifier.predict, batches)[:, 0] for name, batches in mortality.items()}
    assert np.array_equal(found["unread"], found["given"])
    has_cxr = mortality["given"].samples.cxr_row >= 0
    assert np.array_equal(found["read"] != found["given"], has_cxr)


def invert_images(folder: Path, rows: np.ndarray) -> None:
    images, pixels = Store.open(folder).cxr, np.load(folder / "cxr.npy")
    for start, size in zip(images.offset[rows], images.size[rows], strict=True):
        pixels[start : start + size] ^= 255
    np.save(folder / "cxr.npy", pixels)
    refresh_manifests(folder)


def test_an_encoder_with_weights_of_a_family_is_tested_as_it_was_trained(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "eva_x.pt"
    torch.save(vision._eva_x(192, 3).state_dict(), path)
    flags = ("--protocol", "lineareval", "--task", "phenotyping", "--fusion", "cxr", "--data_pairs", "cxr")
    encoder = ("--vision_backbone", "eva-x-tiny", "--cxr_weights", path)
    run(store, tmp_path, *flags, *encoder, "--image_size", "224", "--name", "it")
    best = tmp_path / "it" / "best.ckpt"
    state = checkpoint.load(best)["parts"]["cxr_encoder"]["preprocessing"]
    assert state.tolist() == pytest.approx([224, 1, *[0.49185] * 3, *[0.28509] * 3])
    test = ("--mode", "eval", "--load_state", best)
    run(store, tmp_path, *flags, *test, "--image_size", "224", "--name", "again")
    assert np.array_equal(probabilities(tmp_path / "it"), probabilities(tmp_path / "again"))
    rows = pd.read_csv(tmp_path / "results" / "phenotyping.csv")
    assert set(rows["objective"]) == set(rows["cxr_weights"]) == {"eva-x-tiny (may have seen MIMIC-CXR)"}
    assert set(rows["vision_backbone"]) == {"eva-x-tiny"} and set(rows["ehr_encoder"]) == {"none"}
    trained, again = (rows["settings"][rows["run"] == name].iloc[0] for name in ("it", "again"))
    recorded = read_recorded(tmp_path / "results", trained)
    assert recorded.files == {"load_state_cxr": "eva_x.pt"} and digest(recorded.settings) == trained
    assert read_recorded(tmp_path / "results", again).files == {}
    with pytest.raises(ValueError, match="eva-x-tiny reads images of 224 pixels; use --image_size 224"):
        run(store, tmp_path, *flags, *test, "--name", "small")
