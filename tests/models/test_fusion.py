"""Every fusion classifies batches with and without images, and never sees pixels that are not there."""

import pytest
import torch

from models.classifier import Classifier, ClassifierConfig, build_classifier
from models.encoders import EncoderConfig
from models.fusion import FUSIONS
from models.heads import HeadedEncoder

SMALL = EncoderConfig(ehr_dim=16, vision_backbone="resnet18")
WITH_IMAGES = [name for name, fusion in FUSIONS.items() if "cxr" in fusion.modalities]


def make_classifier(fusion: str, fusion_layer: int = 0, outputs: int = 3) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(ClassifierConfig(fusion, "multilabel", outputs, SMALL, fusion_layer))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("fusion_layer", [0, 3])
@pytest.mark.parametrize("has_cxr", [[True, False, True], [False, True, False], [False] * 3, [True] * 3])
def test_every_parameter_learns_from_every_batch(make_batch, fusion: str, fusion_layer: int, has_cxr) -> None:
    classifier = make_classifier(fusion, fusion_layer).train()
    loss = classifier(make_batch([5, 1, 48], has_cxr, labels=3))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in classifier.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_single_sample_trains(make_batch, fusion: str) -> None:
    classifier = make_classifier(fusion).train()
    assert classifier(make_batch([1], [True], labels=3))["loss"].isfinite()


@pytest.mark.parametrize("fusion", WITH_IMAGES)
@pytest.mark.parametrize("fusion_layer", [0, 3])
@pytest.mark.parametrize("training", [False, True])
def test_a_sample_without_an_image_depends_on_no_pixel(make_batch, fusion, fusion_layer, training) -> None:
    classifier = make_classifier(fusion, fusion_layer).train(training)
    batch = make_batch([5, 9, 3], [True, False, True], labels=3)
    batch.cxr.requires_grad_()
    probabilities = classifier.predict(batch)
    (pixels,) = torch.autograd.grad(probabilities[1].sum(), batch.cxr, retain_graph=True)
    assert not pixels.any()
    (pixels,) = torch.autograd.grad(probabilities[[0, 2]].sum(), batch.cxr)
    assert pixels[0].any() and pixels[1].any()


@pytest.mark.parametrize("fusion_layer", [0, 3])
def test_an_absent_image_is_a_vector_of_zeros(make_batch, fusion_layer: int) -> None:
    fusion = make_classifier("concatenation", fusion_layer).fusion.eval()
    features = fusion.features(make_batch([5, 9], [False, True]))
    ehr = fusion.ehr_encoder.feature_dim
    assert not features[0, ehr:].any() and features[1, ehr:].any() and features[:, :ehr].any(dim=1).all()


@pytest.mark.parametrize("fusion", WITH_IMAGES)
def test_each_image_goes_to_its_own_sample(make_batch, fusion: str) -> None:
    classifier = make_classifier(fusion).eval()
    batch = make_batch([4, 4, 4, 4], [True, False, True, True])
    whole = classifier.predict(batch)
    alone = make_batch([4, 4, 4, 4], [False, False, True, False])._replace(cxr=batch.cxr[1:2], ehr=batch.ehr)
    assert torch.allclose(whole[2], classifier.predict(alone)[2], atol=1e-6)


def test_concatenation_is_both_features_side_by_side(make_batch) -> None:
    fusion, batch = make_classifier("concatenation").fusion.eval(), make_batch([5, 9], [True, True])
    expected = torch.cat([fusion.ehr_encoder(batch.ehr), fusion.cxr_encoder(batch.cxr)], dim=1)
    assert torch.equal(fusion.features(batch), expected)
    assert fusion.linear.in_features == expected.shape[1] == 16 + 512


@pytest.mark.parametrize(("fusion", "missing"), [("ehr", "cxr"), ("cxr", "ehr")])
def test_one_modality_needs_no_other(make_batch, fusion: str, missing: str) -> None:
    batch = make_batch([5, 9], [True, True], labels=3)._replace(**{missing: None})
    assert make_classifier(fusion)(batch)["loss"].isfinite()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("fusion_layer", [0, 3])
def test_the_parts_hold_every_weight_once(fusion: str, fusion_layer: int) -> None:
    classifier = make_classifier(fusion, fusion_layer)
    parts = classifier.parts()
    saved = [value.data_ptr() for part in parts.values() for value in part.state_dict().values()]
    assert sorted(saved) == sorted(value.data_ptr() for value in classifier.state_dict().values())
    modalities = FUSIONS[fusion].modalities
    names = [f"{m}_encoder" for m in modalities] + [f"{m}_head" for m in modalities if fusion_layer]
    assert set(names) <= set(parts)


def test_fusion_layer_3_classifies_from_projection_heads() -> None:
    fusion = make_classifier("concatenation", fusion_layer=3).fusion
    assert isinstance(fusion.ehr_encoder, HeadedEncoder) and isinstance(fusion.cxr_encoder, HeadedEncoder)
    assert fusion.linear.in_features == 128 + 128
