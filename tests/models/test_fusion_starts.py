"""Encoders of a fusion start from checkpoints of one modality or of both, strictly, or afresh."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.classifier import (
    ClassifierConfig,
    build_classifier,
    classifier_checkpoint,
    read_classifier,
    start_classifier,
)
from models.encoders import EncoderConfig, build_encoders
from models.fusion import FusionConfig
from models.heads import build_heads
from models.pretraining import Pretraining, pretraining_checkpoint
from utils import checkpoint

SHAPES = {
    "ehr": EncoderConfig(ehr_dim=12, ehr_layers=2, ehr_dropout=0.25),
    "cxr": EncoderConfig(vision_backbone="resnet18"),
}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints: of a classifier of each modality, "ehr" and "cxr", and of a pretraining of both, "pre"."""
    folder = tmp_path_factory.mktemp("states")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        config = ClassifierConfig(name, "binary", 1, shape)
        state = classifier_checkpoint(build_classifier(config), config) | {"epoch": 3}
        checkpoint.save(folder / f"{name}.ckpt", state)
    shape = EncoderConfig(ehr_dim=8, vision_backbone="resnet18")
    encoders = build_encoders(shape)
    state = pretraining_checkpoint(Pretraining("simclr", shape, 2), encoders, build_heads(encoders, 2))
    checkpoint.save(folder / "pre.ckpt", state | {"epoch": 0})
    return {name: str(folder / f"{name}.ckpt") for name in (*SHAPES, "pre")}


def config_of(fusion: str, **settings) -> ClassifierConfig:
    encoders = EncoderConfig(ehr_dim=6, vision_backbone="resnet18")
    return ClassifierConfig(fusion, "binary", 1, encoders, **settings)


def holds(classifier: torch.nn.Module, part: str, path: str) -> bool:
    given, now = checkpoint.load(Path(path))["parts"][part], classifier.parts()[part].state_dict()
    return given.keys() == now.keys() and all(torch.equal(given[key], now[key]) for key in given)


def test_each_encoder_comes_from_its_own_checkpoint_in_the_shape_it_has_there(states) -> None:
    sources = {name: states[name] for name in ("ehr", "cxr")}
    classifier, built = start_classifier(config_of("medfuse"), sources)
    assert holds(classifier, "ehr_encoder", states["ehr"]) and holds(classifier, "cxr_encoder", states["cxr"])
    assert built.encoders == EncoderConfig("lstm", 12, 2, 0.25, "resnet18")
    assert built.objective == "supervised" and built.checkpoint == f"{states['ehr']} + {states['cxr']}"


def test_the_other_encoder_may_be_fresh(states) -> None:
    classifier, built = start_classifier(config_of("joint"), {"cxr": states["pre"]})
    assert holds(classifier, "cxr_encoder", states["pre"])
    assert built.encoders.ehr_dim == classifier.fusion.ehr_encoder.feature_dim == 6
    assert built.objective == "simclr" and built.checkpoint == states["pre"]


def test_two_objectives_are_both_named(states) -> None:
    _, built = start_classifier(config_of("late"), {"ehr": states["ehr"], "cxr": states["pre"]})
    assert built.objective == "supervised + simclr"


def test_one_checkpoint_may_give_both_and_their_heads(states) -> None:
    config = config_of("concatenation", fusion_layer=3)
    classifier, built = start_classifier(config, dict.fromkeys(("ehr", "cxr"), states["pre"]))
    assert built.width == 2 and built.checkpoint == states["pre"]
    for part in ("ehr_encoder", "cxr_encoder", "ehr_head", "cxr_head"):
        assert holds(classifier, part, states["pre"])


def test_without_checkpoints_it_is_as_asked() -> None:
    asked = config_of("daft")
    assert start_classifier(asked, {})[1] == replace(asked, cxr_weights="random")


@pytest.mark.parametrize(
    ("fusion", "modality", "state", "layer", "message"),
    [
        ("joint", "cxr", "ehr", 0, "no part 'cxr_encoder'"),
        ("joint", "ehr", "cxr", 0, "no part 'ehr_encoder'"),
        ("ehr", "ehr", "ehr", 3, "no part 'ehr_head'"),
        ("umse", "ehr", "ehr", 0, "--fusion umse .* has no encoder for ehr; leave out --load_state_ehr"),
    ],
)
def test_what_a_checkpoint_lacks_is_an_error(states, fusion, modality, state, layer, message) -> None:
    with pytest.raises(ValueError, match=message):
        start_classifier(config_of(fusion, fusion_layer=layer), {modality: states[state]})


def test_the_number_of_loaded_tensors_is_told(states, capsys: pytest.CaptureFixture[str]) -> None:
    start_classifier(config_of("mmtm"), {name: states[name] for name in ("ehr", "cxr")})
    printed = capsys.readouterr().out
    assert "loaded ehr_encoder: 8/8 tensors" in printed and "loaded cxr_encoder: 120/120 tensors" in printed


@pytest.mark.parametrize(
    ("fusion", "settings"),
    [
        ("mmtm", FusionConfig(layer_after=-1)),
        ("daft", FusionConfig(layer_after=2)),
        ("medfuse_tokens", FusionConfig(missing_token="learned")),
    ],
)
def test_a_checkpoint_tells_how_its_fusion_was_built(make_batch, tmp_path, fusion, settings) -> None:
    config = config_of(fusion, fusion_settings=settings)
    classifier, batch = build_classifier(config).eval(), make_batch([5, 9], [True, False])
    checkpoint.save(tmp_path / "it.ckpt", classifier_checkpoint(classifier, config) | {"epoch": 1})
    again, built, epoch = read_classifier(tmp_path / "it.ckpt")
    assert (built, epoch) == (config, 1)
    assert torch.equal(again.eval().predict(batch), classifier.predict(batch))


@pytest.mark.parametrize(
    ("fusion", "settings", "message"),
    [
        (
            "joint",
            {"fusion_settings": FusionConfig(layer_after=2)},
            "--fusion joint has no setting --layer_after",
        ),
        ("mmtm", {"fusion_settings": FusionConfig(missing_token="learned")}, "no setting --missing_token"),
        ("mmtm", {"fusion_layer": 3}, "--fusion mmtm acts inside the encoders.*use --fusion_layer 0"),
        ("medfuse", {"protocol": "lineareval"}, "more than the one linear layer.*use --fusion ehr"),
    ],
)
def test_what_a_fusion_cannot_do_is_refused(fusion: str, settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(fusion, **settings)
