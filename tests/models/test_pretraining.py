"""The checkpoint of a pretraining says how its encoders were built, and restores them part by part."""

from dataclasses import replace

import pytest
import torch

from models.classifier import ClassifierConfig, build_classifier
from models.encoders import EncoderConfig, build_encoders
from models.heads import build_heads
from models.pretraining import PARTS, Pretraining, load_pretrained, pretraining_checkpoint, read_pretraining

SMALL = EncoderConfig(ehr_dim=16, ehr_layers=2, vision_backbone="test_resnet")
PRETRAINING = Pretraining("simclr", SMALL, width=2)


def make_checkpoint(width: int = 2) -> dict[str, object]:
    torch.manual_seed(0)
    encoders = build_encoders(SMALL)
    pretraining = replace(PRETRAINING, width=width)
    return pretraining_checkpoint(pretraining, encoders, build_heads(encoders, width))


def test_a_checkpoint_tells_how_it_was_made() -> None:
    assert read_pretraining(make_checkpoint()) == PRETRAINING


def test_further_settings_of_a_classifier_are_no_obstacle() -> None:
    checkpoint = make_checkpoint()
    checkpoint["config"] |= {"fusion": "ehr", "task": "phenotyping"}
    assert read_pretraining(checkpoint) == PRETRAINING


def test_a_checkpoint_that_does_not_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="objective is required and missing"):
        read_pretraining({"config": {}})


@pytest.mark.parametrize("fusion", ["ehr", "cxr", "concatenation"])
@pytest.mark.parametrize(("fusion_layer", "width"), [(0, 2), (3, 2), (3, 0)])
def test_a_classifier_takes_every_part_that_it_has(fusion: str, fusion_layer: int, width: int) -> None:
    checkpoint = make_checkpoint(width)
    torch.manual_seed(1)
    classifier = build_classifier(ClassifierConfig(fusion, "binary", 1, SMALL, fusion_layer, width=width))
    loaded = load_pretrained(classifier.parts(), checkpoint)
    parts = [name for name in classifier.parts() if name != "linear"]
    assert [line.partition(":")[0] for line in loaded] == parts
    for name in parts:
        given, now = checkpoint["parts"][name], classifier.parts()[name].state_dict()
        assert given.keys() == now.keys() and all(torch.equal(given[key], now[key]) for key in given)


def test_the_number_of_loaded_tensors_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = build_classifier(ClassifierConfig("ehr", "binary", 1, SMALL))
    assert load_pretrained(classifier.parts(), make_checkpoint()) == ["ehr_encoder: 8/8 tensors"]
    assert "ehr_encoder: 8/8 tensors" in capsys.readouterr().out


@pytest.mark.parametrize("width", [2, 0])
def test_one_missing_tensor_of_any_part_is_refused(width: int) -> None:
    config = ClassifierConfig("concatenation", "binary", 1, SMALL, fusion_layer=3, width=width)
    classifier = build_classifier(config)
    for part in PARTS:
        torn = make_checkpoint(width)
        lost = next(iter(torn["parts"][part]))
        del torn["parts"][part][lost]
        with pytest.raises(ValueError, match=f"part '{part}' does not fit: missing {lost}"):
            load_pretrained(classifier.parts(), torn)


def test_encoders_of_another_shape_are_refused() -> None:
    classifier = build_classifier(ClassifierConfig("ehr", "binary", 1, EncoderConfig(ehr_dim=16)))
    with pytest.raises(ValueError, match="unexpected"):
        load_pretrained(classifier.parts(), make_checkpoint())
