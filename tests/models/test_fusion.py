"""Every fusion classifies batches with and without images, and no result depends on absent pixels."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_sequence

from datasets.schema import Batch
from models.classifier import Classifier, ClassifierConfig, build_classifier
from models.encoders import EncoderConfig, HourlyStates, cxr
from models.encoders.resnet import ResNet, Shape
from models.fusion import FUSIONS, FusionConfig
from models.fusion.daft import ScaleAndShift
from models.fusion.mmtm import Gates
from models.heads import HeadedEncoder
from models.rows import gather_rows
from tests.random_batches import random_batch, take_samples

SMALL = EncoderConfig(ehr_dim=16, vision_backbone="resnet18")
WITH_IMAGES = [name for name, fusion in FUSIONS.items() if "cxr" in fusion.modalities]
BOTH = [name for name in WITH_IMAGES if "ehr" in FUSIONS[name].modalities]
WITH_HEADS = [(name, layer) for name, f in FUSIONS.items() for layer in ((0,) if f.intermediate else (0, 3))]
BORROWING = ("m3care",)  # in training, a sample without an image borrows from others of its batch
DEFAULT = FusionConfig()
ONE_BLOCK_EACH = Shape((1, 1, 1, 1), has_bottlenecks=False)  # as wide as ResNet-18, for half its work
IN_EVERY_SETTING = [
    *((name, DEFAULT) for name in FUSIONS),
    *((name, FusionConfig(layer_after=stage)) for name in ("mmtm", "daft") for stage in (-1, 0, 3)),
    ("medfuse_tokens", FusionConfig(missing_token="learned")),
]


@cache
def small_resnet() -> nn.Module:
    """A ResNet with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet(ONE_BLOCK_EACH)


@pytest.fixture(autouse=True)
def resnet18_is_small_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy a network with random weights: to draw them anew is half of a test's time."""
    monkeypatch.setattr(cxr, "torchvision_network", lambda name: copy.deepcopy(small_resnet()))


def make_classifier(
    fusion: str,
    fusion_layer: int = 0,
    outputs: int = 3,
    settings: FusionConfig = DEFAULT,
    encoders: EncoderConfig = SMALL,
    kind: str = "multilabel",
) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(fusion, kind, outputs, encoders, fusion_layer, fusion_settings=settings)
    return build_classifier(config)


def each_alone(batch: Batch) -> list[Batch]:
    """Split a batch into batches of one sample."""
    return [take_samples(batch, [row]) for row in range(len(batch.row))]


@pytest.mark.parametrize(("fusion", "fusion_layer"), WITH_HEADS)
@pytest.mark.parametrize("has_cxr", [[True, False, True], [False, True, False], [False] * 3, [True] * 3])
def test_every_parameter_learns_from_every_batch(make_batch, fusion: str, fusion_layer: int, has_cxr) -> None:
    classifier = make_classifier(fusion, fusion_layer).train()
    loss = classifier(make_batch([5, 1, 48], has_cxr, labels=3, size=32))["loss"]
    loss.backward()
    assert loss.isfinite()
    learning = [weight for weight in classifier.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learning)


@pytest.mark.parametrize(("fusion", "settings"), IN_EVERY_SETTING)
@pytest.mark.parametrize("has_cxr", [[True], [False]])
@pytest.mark.parametrize("training", [False, True])
def test_a_single_sample_is_classified(make_batch, fusion: str, settings, has_cxr, training) -> None:
    classifier, batch = (
        make_classifier(fusion, settings=settings).train(training),
        make_batch([1], has_cxr, 3, size=32),
    )
    assert classifier(batch)["loss"].isfinite()
    assert classifier.predict(batch).shape == (1, 3)


@pytest.mark.parametrize("fusion", WITH_IMAGES)
@pytest.mark.parametrize("has_cxr", [[True, False], [False, False]])
def test_fewer_than_two_images_leave_the_statistics_alone(make_batch, fusion: str, has_cxr) -> None:
    classifier = make_classifier(fusion).train()
    before = {name: value.clone() for name, value in classifier.named_buffers() if "encoder" in name}
    classifier(make_batch([5, 9], has_cxr, labels=3, size=32))
    after = dict(classifier.named_buffers())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("fusion", "settings"), IN_EVERY_SETTING)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_sample_is_classified_as_if_alone(make_batch, fusion: str, settings, layers: int) -> None:
    """Neither other samples, nor their images, nor the hours that pad a shorter stay matter."""
    encoders = EncoderConfig(ehr_dim=16, ehr_layers=layers, vision_backbone="resnet18")
    classifier = make_classifier(fusion, settings=settings, encoders=encoders).eval()
    batch = make_batch([5, 48, 1, 17], [False, True, True, False])
    alone = torch.cat([classifier.predict(one) for one in each_alone(batch)])
    assert torch.allclose(classifier.predict(batch), alone, atol=1e-5)


def shared_batch() -> Batch:
    """Nine samples in float64 that together read three stays and two X-rays."""
    batch = random_batch([7, 12, 2], [True, True, False], labels=3, size=32)
    stay = torch.tensor([1, 0, 0, 1, 1, 2, 0, 1, 2])
    hours = torch.tensor([12, 3, 7, 1, 5, 2, 7, 6, 1])
    image = torch.tensor([1, -1, 0, -1, 1, 1, 1, 0, -1])
    return batch._replace(
        ehr=batch.ehr.double(),
        stay=stay,
        last=hours - 1,
        hours=hours,
        cxr=batch.cxr.double(),
        image=image,
        paired=(image >= 0).nonzero()[:, 0],
        has_ehr=torch.ones(9, dtype=torch.bool),
        has_cxr=image >= 0,
        labels=torch.randint(0, 2, (9, 3), generator=torch.Generator().manual_seed(0)).float(),
        row=torch.arange(9),
        gap_days=torch.where(image >= 0, 0.5, torch.nan),
    )


def loss_and_gradients(classifier: Classifier, batch: Batch) -> dict[str, torch.Tensor]:
    classifier.zero_grad()
    loss = classifier(batch)["loss"]
    loss.backward()
    weights = classifier.named_parameters()
    gradients = {name: weight.grad for name, weight in weights if weight.grad is not None}
    return {"loss": loss, **gradients}


@pytest.mark.parametrize(
    ("fusion", "fusion_layer", "settings", "layers"),
    [
        *((*named, DEFAULT, 2) for named in WITH_HEADS),
        *((name, 0, chosen, 1) for name, chosen in IN_EVERY_SETTING),
    ],
)
def test_samples_that_share_a_stay_and_an_image_learn_as_if_each_had_its_own(
    fusion: str, fusion_layer: int, settings: FusionConfig, layers: int
) -> None:
    encoders = EncoderConfig(ehr_dim=16, ehr_layers=layers, vision_backbone="resnet18")
    classifier = make_classifier(fusion, fusion_layer, settings=settings, encoders=encoders).double().eval()
    batch = shared_batch()
    alone = take_samples(batch, range(9))
    assert len(alone.ehr.data) == batch.hours.sum() > len(batch.ehr.data) and len(alone.cxr) == 6
    shared, expected = (loss_and_gradients(classifier, one) for one in (batch, alone))
    assert shared.keys() == expected.keys()
    # A gradient that is 0, as that of a key which has no other beside it, is the rounding of larger ones.
    rounding = torch.finfo(torch.float64).eps * max(value.norm() for value in expected.values())
    for name, value in expected.items():
        assert (shared[name] - value).norm() <= 1e-5 * value.norm() + rounding, name
    assert torch.allclose(classifier.predict(batch), classifier.predict(alone), atol=1e-9)


@pytest.mark.parametrize(("fusion", "fusion_layer"), [f for f in WITH_HEADS if f[0] in WITH_IMAGES])
@pytest.mark.parametrize("training", [False, True])
def test_a_sample_without_an_image_depends_on_no_pixel(make_batch, fusion, fusion_layer, training) -> None:
    if training and fusion in BORROWING:
        return
    classifier = make_classifier(fusion, fusion_layer).train(training)
    batch = make_batch([5, 9, 3], [True, False, True], labels=3, size=32)
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
    expected = classifier.predict(batch)
    assert torch.allclose(expected[2], classifier.predict(take_samples(batch, [2]))[0], atol=1e-6)


def test_concatenation_is_both_features_side_by_side(make_batch) -> None:
    fusion, batch = make_classifier("concatenation").fusion.eval(), make_batch([5, 9], [True, True])
    expected = torch.cat([fusion.ehr_encoder(batch.ehr), fusion.cxr_encoder(batch.cxr)], dim=1)
    assert torch.equal(fusion.features(batch), expected)
    assert fusion.linear.in_features == expected.shape[1] == 16 + 512


@pytest.mark.parametrize(("fusion", "missing"), [("ehr", "cxr"), ("cxr", "ehr")])
def test_one_modality_needs_no_other(make_batch, fusion: str, missing: str) -> None:
    batch = make_batch([5, 9], [True, True], labels=3)._replace(**{missing: None})
    assert make_classifier(fusion)(batch)["loss"].isfinite()


@pytest.mark.parametrize(
    ("fusion", "fusion_layer", "settings"),
    [*((*named, DEFAULT) for named in WITH_HEADS), *((name, 0, chosen) for name, chosen in IN_EVERY_SETTING)],
)
def test_the_parts_hold_every_weight_once(fusion: str, fusion_layer: int, settings: FusionConfig) -> None:
    classifier = make_classifier(fusion, fusion_layer, settings=settings)
    parts = classifier.parts()
    saved = [value.data_ptr() for part in parts.values() for value in part.state_dict().values()]
    assert sorted(saved) == sorted(value.data_ptr() for value in classifier.state_dict().values())
    modalities = FUSIONS[fusion].encoder_names()
    names = [f"{m}_encoder" for m in modalities] + [f"{m}_head" for m in modalities if fusion_layer]
    assert set(names) <= set(parts)


def test_fusion_layer_3_classifies_from_projection_heads() -> None:
    fusion = make_classifier("concatenation", fusion_layer=3).fusion
    assert isinstance(fusion.ehr_encoder, HeadedEncoder) and isinstance(fusion.cxr_encoder, HeadedEncoder)
    assert fusion.linear.in_features == 128 + 128


@pytest.mark.parametrize("fusion", BOTH)
def test_both_modalities_have_a_say(make_batch, fusion: str) -> None:
    classifier = make_classifier(fusion).eval()
    batch = make_batch([5, 9], [True, True])
    hours = batch.ehr.data.requires_grad_()
    batch.cxr.requires_grad_()
    gradients = torch.autograd.grad(classifier.predict(batch).sum(), [hours, batch.cxr])
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("fusion", ["joint", "unified", "early"])
def test_joint_fusions_are_one_layer_on_features_of_equal_width(make_batch, fusion: str) -> None:
    fused, batch = make_classifier(fusion).fusion.eval(), make_batch([5, 9, 4], [True, False, True])
    image = fused.projection(fused.cxr_encoder(batch.cxr))
    image = torch.stack([image[0], torch.zeros(16), image[1]])
    expected = fused.linear(torch.cat([fused.ehr_encoder(batch.ehr), image], dim=1))
    assert torch.allclose(fused(batch), expected, atol=1e-6)
    assert fused.projection.weight.shape == (16, 512) and fused.linear.weight.shape == (3, 32)


def test_early_fusion_leaves_the_encoders_as_they_are(make_batch) -> None:
    encoders = EncoderConfig(ehr_dim=16, ehr_dropout=0.5, vision_backbone="resnet18")
    classifier = make_classifier("early", encoders=encoders).train()
    before = copy.deepcopy(classifier.state_dict())
    optimizer = torch.optim.AdamW([w for w in classifier.parameters() if w.requires_grad], lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        classifier(make_batch([5, 9, 4], [True, True, False], labels=3, seed=seed))["loss"].backward()
        optimizer.step()
    changed = {name for name, now in classifier.state_dict().items() if not torch.equal(before[name], now)}
    assert changed == {
        f"fusion.{part}.{name}" for part in ("projection", "linear") for name in ("weight", "bias")
    }
    fusion = classifier.fusion
    assert not any(part.training for e in (fusion.ehr_encoder, fusion.cxr_encoder) for part in e.modules())
    assert fusion.training and fusion.linear.training


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 1), ("multilabel", 3), ("ordinal", 10)])
def test_late_fusion_averages_the_probabilities_of_those_who_can_judge(make_batch, kind, outputs) -> None:
    classifier = make_classifier("late", outputs=outputs, kind=kind).eval()
    fusion, batch = classifier.fusion, make_batch([5, 9, 4], [True, False, True])
    ehr = fusion.ehr_linear(fusion.ehr_encoder(batch.ehr))
    image = fusion.cxr_linear(fusion.cxr_encoder(batch.cxr))
    ehr, image = (x.softmax(dim=1) if kind == "ordinal" else x.sigmoid() for x in (ehr, image))
    expected = torch.stack([(ehr[0] + image[0]) / 2, ehr[1], (ehr[2] + image[1]) / 2])
    assert torch.allclose(classifier.predict(batch), expected.double(), atol=1e-6)


def test_late_fusion_teaches_each_modality_by_its_own_loss(make_batch) -> None:
    classifier = make_classifier("late").eval()
    fusion, batch = classifier.fusion, make_batch([5, 9, 4], [True, False, True], labels=3)
    batch.labels[0, 1] = torch.nan
    ehr = fusion.ehr_linear(fusion.ehr_encoder(batch.ehr))
    image = fusion.cxr_linear(fusion.cxr_encoder(batch.cxr))
    logits, labels = torch.cat([ehr, image]), torch.cat([batch.labels, batch.labels[[0, 2]]])
    known = ~labels.isnan()
    terms = classifier(batch)
    assert terms["count"] == known.sum() == 8 + 5
    expected = functional.binary_cross_entropy_with_logits(logits[known], labels[known])
    assert torch.allclose(terms["loss"], expected, atol=1e-6)


def test_medfuse_reads_one_step_more_where_there_is_an_image(make_batch) -> None:
    fusion, batch = make_classifier("medfuse").fusion.eval(), make_batch([5, 9], [True, False])
    ehr, image = fusion.both(batch)
    steps = pack_sequence([torch.stack([ehr[0], image[0]]), ehr[1:]])
    _, (last, _) = fusion.lstm(steps)
    assert torch.allclose(fusion(batch), fusion.linear(last[0]), atol=1e-6)
    assert fusion.lstm.hidden_size == 512


@pytest.mark.parametrize("missing_token", ["zero", "learned"])
def test_tokens_stand_between_behind_and_in_place_of_the_modalities(make_batch, missing_token: str) -> None:
    fusion = make_classifier("medfuse_tokens", settings=FusionConfig(missing_token=missing_token)).fusion
    batch = make_batch([5, 9], [True, False])
    fusion.eval()
    ehr, image = fusion.both(batch)
    absent = fusion.tokens["missing"] if missing_token == "learned" else torch.zeros(16)
    sep, end = fusion.tokens["sep"], fusion.tokens["cls"]
    stays = [torch.stack([ehr[0], sep, image[0], end]), torch.stack([ehr[1], sep, absent, end])]
    _, (last, _) = fusion.lstm(torch.stack(stays))
    assert torch.allclose(fusion(batch), fusion.linear(last[0]), atol=1e-6)
    assert len(fusion.tokens) == (3 if missing_token == "learned" else 2)


def test_mmtm_gates_each_channel_by_the_means_of_both() -> None:
    gates, maps, states = Gates(8, 4), torch.rand(1, 8, 3, 3), [torch.randn(5, 4), torch.randn(2, 4)]
    hours = HourlyStates.of(pack_sequence(states, enforce_sorted=False))
    gated, after = gates(maps, hours, torch.tensor([-1, 0]))
    assert gates.joint.out_features == 2 * (8 + 4) // 4
    for sample, image in enumerate([torch.zeros(8), maps[0].mean(dim=(1, 2))]):
        joint = gates.joint(torch.cat([image, states[sample].mean(dim=0)])).clamp(min=0)
        ehr_gate = gates.ehr_gate(joint).sigmoid()
        assert torch.allclose(after.states[hours.stay == sample], states[sample] * ehr_gate, atol=1e-6)
    assert torch.allclose(gated[0], maps[0] * gates.image_gate(joint).sigmoid()[:, None, None], atol=1e-6)


def test_daft_scales_and_shifts_each_hour_by_the_means_of_both() -> None:
    block, maps, states = ScaleAndShift(8, 6), torch.rand(1, 8, 3, 3), [torch.randn(5, 6), torch.randn(2, 6)]
    hours = HourlyStates.of(pack_sequence(states, enforce_sorted=False))
    same, after = block(maps, hours, torch.tensor([-1, 0]))
    assert same is maps and block.bottleneck.out_features == (8 + 6) // 7
    for sample, image in enumerate([torch.zeros(8), maps[0].mean(dim=(1, 2))]):
        squeezed = torch.cat([image, states[sample].mean(dim=0)])
        scale, shift = block.scale_and_shift(block.bottleneck(squeezed).clamp(min=0)).split(6)
        assert torch.allclose(after.states[hours.stay == sample], states[sample] * scale + shift, atol=1e-6)


@pytest.mark.parametrize("fusion", ["mmtm", "daft"])
@pytest.mark.parametrize(("layer_after", "stages"), [(0, "0"), (3, "3"), (-1, "01234")])
def test_modalities_meet_after_the_asked_stages(fusion: str, layer_after: int, stages: str) -> None:
    fused = make_classifier(fusion, settings=FusionConfig(layer_after=layer_after)).fusion
    assert "".join(fused.fusion_blocks) == stages
    for stage, block in fused.fusion_blocks.items():
        first = next(block.children())
        assert first.in_features == 16 + (64, 64, 128, 256, 512)[int(stage)]


def test_fusions_add_weights_of_the_stated_widths() -> None:
    """Weights outside the encoders, for an EHR of 256, an image of 512 and one output."""
    encoders = EncoderConfig(ehr_dim=256, ehr_layers=2, vision_backbone="resnet18")
    projection, lstm = 512 * 256 + 256, 4 * 512 * (256 + 512 + 2)
    added = {
        "joint": projection + 2 * 256 + 1,
        "late": 256 + 1 + 512 + 1,
        "medfuse": projection + lstm + 512 + 1,
        "medfuse_tokens": projection + lstm + 512 + 1 + 2 * 256,
        "mmtm": (768 * 384 + 384) + (384 * 512 + 512) + (384 * 256 + 256) + 768 + 1,
        "daft": 768 * 109 + 109 * 512 + 256 + 1,
    }
    for name, expected in added.items():
        parts = make_classifier(name, outputs=1, encoders=encoders).parts()
        modules = [part for part_name, part in parts.items() if not part_name.endswith("_encoder")]
        assert sum(weight.numel() for module in modules for weight in module.parameters()) == expected, name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_changes_a_probability_little(make_batch, fusion: str) -> None:
    classifier, batch = make_classifier(fusion).eval(), make_batch([5, 9, 4], [True, False, True], 3)
    exact = classifier.predict(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = classifier.predict(batch)
        assert classifier(batch)["loss"].dtype == torch.float32
    assert torch.allclose(exact, rough, atol=0.03)


@pytest.mark.parametrize("present", [[True, False, True], [False, False, False], [True, True, True]])
def test_rows_of_the_present_are_taken_in_their_order(present: list[bool]) -> None:
    values = torch.randn(3, 4)
    assert torch.equal(
        gather_rows(values, torch.tensor(present), sum(present)), values[torch.tensor(present)]
    )
