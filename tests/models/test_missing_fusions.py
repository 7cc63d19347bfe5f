"""The fusions that cope with a missing X-ray: what all must fulfil, and the known faults of their kind."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from datasets.schema import Batch, variables
from models.classifier import Classifier
from models.encoders import Encoder, LSTMEncoder
from models.fusion import FUSIONS, FusionConfig, build_fusion, losses
from models.fusion.base import raw_hours
from models.fusion.flexmoe import EHR_ONLY, FULL, TOKENS, Gates, combinations
from models.fusion.healnet import fourier_features
from models.fusion.smil import CENTRES, Features, Prior
from models.fusion.umse import observed_triplets
from tests.models.test_fusion import each_alone
from tests.random_batches import random_batch, take_samples
from tests.utils.ranks import run_on_ranks
from utils import distributed
from utils.distributed import Process

NEW = ("drfuse", "shaspec", "m3care", "flexmoe", "healnet", "smil", "umse", "utde", "aug", "inforeg")
SMALL = FusionConfig(
    flexmoe_experts=4, flexmoe_top_k=2, flexmoe_routers=2, flexmoe_warmup=0, healnet_latents=4, smil_draws=3,
    smil_inner_steps=2, smil_lr=0.05, m3care_bank=5, utde_steps=6, umse_triplets=40, inforeg_steps=2,
    aug_every=1, aug_delta=0.0, aug_layers=2,
)  # fmt: skip
KINDS = {"binary": (1, 1), "multilabel": (3, 3), "ordinal": (5, 1)}  # outputs and labels
HOURS, HAS_CXR = [5, 1, 9, 3, 7, 2], [True, False, True, True, False, True]


class TinyCXR(Encoder):
    """A convolution with the methods of the image encoder."""

    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 16, stride=16)

    def maps(self, cxr: Tensor) -> Tensor:
        return self.convolution(cxr - 0.5)

    def forward(self, cxr: Tensor) -> Tensor:
        return self.maps(cxr).mean(dim=(2, 3))


def make(name: str, kind: str = "multilabel", settings: FusionConfig = SMALL, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    encoders: dict[str, Encoder] = {"ehr": LSTMEncoder(dim=8), "cxr": TinyCXR()}
    return Classifier(build_fusion(name, encoders, KINDS[kind][0], kind, settings), kind).double()


def make_batch(hours=HOURS, has_cxr=HAS_CXR, kind: str = "multilabel", seed: int = 0) -> Batch:
    """A batch in float64, with masks of 0 and 1 and a class for an ordinal task."""
    batch = random_batch(hours, has_cxr, KINDS[kind][1], size=32, seed=seed)
    first_mask = variables()[0].mask_channel
    data = batch.ehr.data.double()
    data[:, first_mask:] = (data[:, first_mask:] > 0.3).double()
    labels = batch.labels.double()
    if kind == "ordinal":
        labels = torch.arange(len(hours), dtype=torch.float64)[:, None] % 5
    gaps = torch.arange(len(hours), dtype=torch.float64) / 8
    gaps = torch.where(batch.has_cxr, gaps, torch.nan)
    ehr, cxr = batch.ehr._replace(data=data), batch.cxr.double()
    return batch._replace(ehr=ehr, cxr=cxr, labels=labels, gap_days=gaps)


def step(
    classifier: Classifier, optimizer: torch.optim.Optimizer, batch: Batch, model: nn.Module | None = None
) -> None:
    """Take a training step as the loop does."""
    terms = (model or classifier)(batch)
    share = terms["count"].item() * distributed.world() / distributed.all_reduce_sum(terms["count"].item())
    optimizer.zero_grad()
    (terms["loss"] * share).backward()
    classifier.after_backward()
    optimizer.step()


def trained(name: str, kind: str = "multilabel", epochs: int = 2) -> Classifier:
    """A fusion after some epochs of one step, with what it keeps of them."""
    classifier = make(name, kind).train()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.05)
    for epoch in range(epochs):
        step(classifier, optimizer, make_batch(kind=kind, seed=epoch))
        classifier.end_epoch(epoch)
    return classifier


def test_all_new_fusions_are_tested() -> None:
    assert set(NEW) == {name for name, fusion in FUSIONS.items() if fusion.published_like == name} - {
        "medfuse", "mmtm", "daft", "joint",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NEW)
def test_each_kind_of_task_and_batch_is_learnt(name: str, kind: str) -> None:
    classifier = trained(name, kind)
    for has_cxr in (HAS_CXR, [True] * 6, [False] * 6, [True], [False]):
        batch = make_batch(HOURS[: len(has_cxr)], has_cxr, kind)
        for training in (True, False):
            terms = classifier.train(training)(batch)
            own = {key: value for key, value in terms.items() if key not in ("loss", "count")}
            assert all(term.isfinite() and term.ndim == 0 for term in terms.values())
            if own:
                assert terms["loss"].item() == pytest.approx(sum(term.item() for term in own.values()))
        evaluated, probability = classifier.evaluate(batch)
        assert torch.equal(probability, classifier.predict(batch))
        assert evaluated["loss"] == terms["loss"]
        assert (
            probability.shape == (len(has_cxr), KINDS[kind][0])
            and ((probability >= 0) & (probability <= 1)).all()
        )


@pytest.mark.parametrize("name", NEW)
def test_every_parameter_has_a_gradient_in_a_mixed_batch(name: str) -> None:
    classifier = trained(name)
    if name == "aug":
        classifier.fusion.boosting.added.fill_(2)
    classifier.zero_grad()
    for seed in range(3):
        classifier(make_batch(seed=10 + seed))["loss"].backward()
    assert not [key for key, weight in classifier.named_parameters() if weight.grad.abs().max() < 1e-12]


@pytest.mark.parametrize("name", NEW)
def test_no_sample_depends_on_others_after_training(name: str) -> None:
    classifier = trained(name).eval()
    batch = make_batch(seed=5)
    alone = torch.cat([classifier.predict(one) for one in each_alone(batch)])
    torch.testing.assert_close(classifier.predict(batch), alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NEW)
def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(name: str) -> None:
    classifier = trained(name)
    resumed = make(name, seed=1).train()
    resumed.load_state_dict(classifier.state_dict())
    for one in (classifier, resumed):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
        for epoch in (2, 3):
            torch.manual_seed(epoch)
            step(one, optimizer, make_batch(seed=epoch))
            one.end_epoch(epoch)
    after = resumed.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in classifier.state_dict().items())


def rows_of(batch: Batch, rows: slice) -> Batch:
    return take_samples(batch, range(len(batch.row))[rows])


def train_three_steps(name: str, process: Process | None) -> dict[str, Tensor]:
    """Train on all rows, or on a rank's rows as the loop does; return the losses and the state."""
    classifier = make(name).train()
    batch, model = make_batch(), classifier
    if process is not None:
        model = DistributedDataParallel(classifier, find_unused_parameters=True)
        batch = rows_of(batch, slice(4) if process.rank == 0 else slice(4, None))
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.05)
    for epoch in range(3):
        torch.manual_seed(epoch + (process.rank if process is not None else 0))
        step(classifier, optimizer, batch, model)
        classifier.end_epoch(epoch)
    return {key: value.detach() for key, value in classifier.state_dict().items()}


def train_all(process: Process, folder: Path) -> dict[str, dict[str, Tensor]]:
    torch.randn_like = torch.zeros_like  # the noise of Flex-MoE is drawn by each process for its own tokens
    return {name: train_three_steps(name, process) for name in NEW}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    return run_on_ranks(train_all, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", NEW)
def test_two_processes_train_like_one(ranks, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    alone = train_three_steps(name, None)
    for rank in ranks:
        for key, value in alone.items():
            torch.testing.assert_close(rank[name][key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_settings_out_of_range_are_refused() -> None:
    for name, value in (
        ("drfuse_ehr", -1.0),
        ("flexmoe_routers", 3),
        ("healnet_depth", 0),
        ("aug_alpha", 2.0),
    ):
        with pytest.raises(ValueError, match=f"--{name} .* is out of range; use"):
            FusionConfig(**{name: value})
    with pytest.raises(ValueError, match="--flexmoe_top_k 4 is out of range"):
        FusionConfig(flexmoe_experts=4, flexmoe_top_k=4)


# DrFuse


def test_drfuse_attends_as_its_formula_says() -> None:
    fusion, batch = make("drfuse").fusion, make_batch()
    tokens = fusion.tokens(batch)
    logits, attention = fusion.attend(tokens, batch.has_cxr)
    parts = fusion.attention(tokens.stack()).view(6, 3, 5, 8)
    for row, has_cxr in enumerate(HAS_CXR):
        seen = 3 if has_cxr else 2
        query = parts[row, :seen, 0].mean(dim=0)
        for label in range(3):
            weights = (parts[row, :seen, 2 + label] @ query / math.sqrt(8)).softmax(dim=0)
            torch.testing.assert_close(attention[row, label, :seen], weights)
            mixed = weights @ parts[row, :seen, 1]
            layer = fusion.values_to_logits
            torch.testing.assert_close(logits[row, label], layer.weight[label] @ mixed + layer.bias[label])
    assert not attention[~batch.has_cxr, :, 2].any()


def test_drfuse_compares_only_features_of_images_that_are_there() -> None:
    fusion, batch = make("drfuse").fusion, make_batch()
    terms = fusion.supervise(batch).losses
    tokens = fusion.tokens(batch)
    present = batch.has_cxr
    expected = losses.jensen_shannon(tokens.ehr_shared[present], tokens.cxr_shared[present]).mean()
    torch.testing.assert_close(terms["shared"], expected)
    cosine = functional.cosine_similarity(tokens.cxr_shared[present], tokens.cxr[present]).abs().mean()
    torch.testing.assert_close(terms["disentangle_cxr"], cosine)
    logits = fusion.token_logits["cxr"](tokens.cxr)[present]
    bce = functional.binary_cross_entropy_with_logits(logits, batch.labels[present])
    torch.testing.assert_close(terms["pred_cxr"], bce)
    without = fusion.supervise(make_batch(has_cxr=[False] * 6)).losses
    assert without["shared"] == without["disentangle_cxr"] == without["pred_cxr"] == without["attention"] == 0


def test_drfuse_ranks_by_class() -> None:
    fusion, batch = make("drfuse").fusion, make_batch()
    tokens = fusion.tokens(batch)
    attention = fusion.attend(tokens, batch.has_cxr)[1]
    token_logits = [fusion.token_logits[name](getattr(tokens, name)) for name in ("ehr", "pooled", "cxr")]
    entropies = torch.stack(
        [
            functional.binary_cross_entropy_with_logits(x, batch.labels, reduction="none")
            for x in token_logits
        ],
        -1,
    )
    valid = batch.has_cxr[:, None].expand(-1, 3)
    expected = losses.attention_ranking(attention, entropies, valid)
    torch.testing.assert_close(fusion.supervise(batch).losses["attention"], expected)


# ShaSpec


def test_shaspec_tells_the_modality_from_specific_features_alone() -> None:
    fusion, batch = make("shaspec").fusion, make_batch()
    terms = fusion.supervise(batch).losses
    shared, specific = fusion.shared_and_specific(batch)
    present = batch.has_cxr
    logits = fusion.domain(torch.cat([specific[0], specific[1][present]]))
    expected = functional.cross_entropy(logits.float(), torch.tensor([0] * 6 + [1] * 4))
    assert terms["domain"].item() == pytest.approx(0.02 * expected.item(), rel=1e-6)
    distance = (shared[0] - shared[1])[present].abs().mean()
    torch.testing.assert_close(terms["shared"], 0.1 * distance)
    gradients = torch.autograd.grad(terms["domain"], list(fusion.shared.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_shaspec_puts_the_shared_feature_of_the_ehr_in_the_images_place() -> None:
    fusion, batch = make("shaspec").fusion, make_batch()
    shared, specific = fusion.shared_and_specific(batch)
    ehr = shared[0] + fusion.residual(torch.cat([shared[0], specific[0]], dim=1))
    expected = fusion.classifier((ehr + shared[0]) / 2)[~batch.has_cxr]
    torch.testing.assert_close(fusion(batch)[~batch.has_cxr], expected)


# M3Care


def test_m3care_starts_with_a_graph_whose_threshold_learns() -> None:
    """The published code divides by 3 too many, so that no similarity ever reaches the threshold."""
    classifier = make("m3care").train()
    fusion, batch = classifier.fusion, make_batch()
    patients = fusion.patients(batch)
    graph = fusion.graph(patients, patients)
    others = graph - graph.diagonal().diag()
    assert (others > 0).sum() >= 6 and torch.allclose(graph.diagonal(), torch.ones(6, dtype=torch.float64))
    classifier(batch)["loss"].backward()
    assert fusion.similarity["threshold"].grad != 0
    default = make("m3care", settings=FusionConfig()).fusion.similarity["threshold"].sigmoid()
    average = sum(math.exp(-1 / factor) for factor in (0.5, 1, 2)) / 3
    mix = 1 / (1 + math.exp(-2))
    assert default < ((1 - mix) * average + mix) * average


def test_m3care_borrows_an_image_from_those_who_have_one() -> None:
    fusion, batch = make("m3care").fusion.train(), make_batch()
    pixels = batch.cxr.requires_grad_()
    (gradient,) = torch.autograd.grad(fusion(batch)[1].sum(), pixels)
    assert gradient.any(dim=(1, 2, 3)).any()
    (gradient,) = torch.autograd.grad(fusion.eval()(batch)[1].sum(), pixels, allow_unused=True)
    assert not gradient.any()


def test_m3care_is_its_formula() -> None:
    fusion, batch = make("m3care").fusion.train(), make_batch()
    patients = fusion.patients(batch)
    graph = fusion.graph(patients, patients)
    expected = []
    for index, layers in enumerate((fusion.ehr_graph, fusion.cxr_graph)):
        h, present = patients.features[index], patients.present[index]
        weights = graph * present
        weights = weights / weights.sum(dim=1, keepdim=True)
        first, second = layers.convolutions
        borrowed = second(weights @ first(weights @ h).relu()).relu()
        gate, own = layers.borrowed_gate(borrowed).sigmoid(), layers.own_gate(h).sigmoid()
        mixed = gate / (gate + own) * borrowed + own / (gate + own) * h
        expected.append(torch.where(present[:, None], mixed, borrowed))
    torch.testing.assert_close(fusion(batch), fusion.classifier(torch.cat(expected, dim=1)))
    sizes = [
        (layers.compared(h).norm(dim=1) - h.norm(dim=1)).abs()[present].sum()
        for layers, h, present in zip(fusion.graphs, patients.features, patients.present, strict=True)
    ]
    expected_size = 0.1 * 2 * sum(sizes) / patients.present.sum()
    torch.testing.assert_close(fusion.supervise(batch).losses["size"], expected_size)


def test_m3care_evaluates_against_the_training_samples_it_kept() -> None:
    """A sample that is evaluated beside a bank is as if it were trained beside the bank's samples."""
    classifier = make("m3care", settings=FusionConfig(m3care_bank=5))
    fusion, batch = classifier.fusion, make_batch()
    fusion.train().supervise(rows_of(batch, slice(5)))
    assert fusion.bank.present[1].tolist() == HAS_CXR[:5]
    together = fusion.eval()(batch)
    patients = fusion.patients(batch)
    kept = fusion.bank.patients()
    torch.testing.assert_close(patients.features[:, :5], kept.features)
    assert not torch.allclose(make("m3care").fusion.eval()(batch), together)
    for seed in range(2):
        fusion.train().supervise(make_batch(HOURS[:4], HAS_CXR[:4], seed=seed))
    assert fusion.bank.next_row == 13
    last = fusion.patients(make_batch(HOURS[:4], HAS_CXR[:4], seed=1)).features
    rows = torch.tensor([9, 10, 11, 12]) % 5
    torch.testing.assert_close(fusion.bank.features[:, rows], last)


# Flex-MoE


def test_flexmoe_takes_complete_samples_for_complete() -> None:
    has_cxr = torch.tensor(HAS_CXR)
    assert combinations(has_cxr).tolist() == [FULL if there else EHR_ONLY for there in HAS_CXR]
    fusion = make("flexmoe").fusion.eval()
    tokens = torch.randn(6 * 2 * TOKENS, 8, dtype=torch.float64)
    gates = fusion.route(tokens, combinations(has_cxr))
    for row, there in enumerate(HAS_CXR):
        own = slice(row * 2 * TOKENS, (row + 1) * 2 * TOKENS)
        assert torch.equal(gates.weights[own], fusion.routers[0 if there else 1](tokens[own]).weights)


def test_flexmoe_balances_complete_samples_and_leads_the_others() -> None:
    fusion, batch = make("flexmoe").fusion.eval(), make_batch()
    gates = fusion.run(batch)[1]
    of_token = batch.has_cxr.repeat_interleave(2 * TOKENS)
    terms = fusion.supervise(batch).losses
    importance = gates.weights[of_token].sum(dim=0)
    expected = 0.01 * importance.var(correction=0) / importance.mean() ** 2
    assert terms["importance"].item() == pytest.approx(expected.item(), rel=1e-6)
    load = gates.load[of_token].sum(dim=0)
    expected = 0.01 * load.var(correction=0) / load.mean() ** 2
    assert terms["load"].item() == pytest.approx(expected.item(), rel=1e-6)
    led = functional.cross_entropy(gates.logits[~of_token], torch.full(((~of_token).sum(),), EHR_ONLY))
    assert terms["specialise"].item() == pytest.approx(0.01 * led.item(), rel=1e-6)
    assert (gates.weights > 0).sum(dim=1).eq(2).all() and torch.allclose(
        gates.weights.sum(dim=1), torch.ones(len(of_token), dtype=torch.float64)
    )


def test_the_balance_of_flexmoe_falls_when_the_experts_are_balanced(monkeypatch) -> None:
    fusion, batch = make("flexmoe").fusion.eval(), make_batch()
    run, found = fusion.run, []
    for weights in (torch.tensor([0.25] * 4), torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.5, 0.5, 0, 0])):
        logits, gates = run(batch)
        fixed = Gates(weights.expand_as(gates.weights), gates.load, gates.logits)
        monkeypatch.setattr(fusion, "run", lambda batch, found=(logits, fixed): found)
        found.append(fusion.supervise(batch).losses["importance"].item())
    assert found == pytest.approx([0.0, 0.03, 0.01])


def test_flexmoe_leads_no_sample_in_the_first_epochs() -> None:
    fusion = make("flexmoe", settings=FusionConfig(flexmoe_warmup=2)).fusion
    led = []
    for epoch in range(3):
        led.append(fusion.supervise(make_batch()).losses["specialise"].item() > 0)
        fusion.end_epoch(epoch)
    assert led == [False, False, True]


def test_the_experts_of_flexmoe_are_mixed_by_their_weights() -> None:
    experts = make("flexmoe").fusion.experts
    tokens, weights = torch.randn(2, 5, 8, dtype=torch.float64)[0], torch.rand(5, 4, dtype=torch.float64)
    expected = torch.zeros_like(tokens)
    for row in range(5):
        for expert in range(4):
            hidden = functional.gelu(tokens[row] @ experts.first[expert] + experts.first_bias[expert, 0])
            output = hidden @ experts.second[expert] + experts.second_bias[expert, 0]
            expected[row] += weights[row, expert] * output
    torch.testing.assert_close(experts(tokens, weights), expected)


# HEALNet


@pytest.mark.parametrize("tokens", ["features", "patches", "pixels"])
def test_healnet_skips_an_absent_image(tokens: str) -> None:
    settings = FusionConfig(healnet_tokens=tokens, healnet_latents=3, healnet_depth=2)
    fusion, batch = make("healnet", settings=settings).fusion.eval(), make_batch()
    hours, present = fusion.hour_tokens(batch)
    latents = fusion.latents["start"].expand(6, -1, -1)
    for layer in fusion.layers:
        latents = layer["latents"](layer["ehr"](latents, hours, present))
    skipped = fusion.linear(fusion.norm(latents.mean(dim=1)))
    logits, absent = fusion(batch), ~batch.has_cxr
    torch.testing.assert_close(logits[absent], skipped[absent])
    assert not torch.isclose(logits[batch.has_cxr], skipped[batch.has_cxr]).any()
    assert fusion.image_tokens(batch).shape[1] == {"features": 4, "patches": 1, "pixels": 1024}[tokens]
    assert ("cxr_encoder" in dict(fusion.named_children())) == (tokens == "features")


def test_positions_are_described_by_the_frequencies_of_the_paper() -> None:
    found = fourier_features(torch.tensor([0.3], dtype=torch.float64), bands=2, max_frequency=10.0)[0]
    angles = [math.pi * 0.3 * frequency for frequency in (1.0, 5.0)]
    expected = [0.3, *map(math.sin, angles), *map(math.cos, angles)]
    assert found.tolist() == pytest.approx(expected)


# SMIL


@pytest.mark.parametrize("training", [True, False])
def test_smil_uses_the_reconstruction_in_training_and_evaluation(training: bool) -> None:
    fusion, batch = trained("smil").fusion.train(training), make_batch()
    features = fusion.features(batch)
    head, centres = fusion.head, fusion.prior.centres
    image = head.weights(head.inference(features.ehr)) @ head.projection(centres)
    own = head.projection(features.image)
    image = torch.where(batch.has_cxr[:, None], own, image)
    expected = head.linear(head.hidden(torch.cat([features.ehr, image], dim=1)).relu())
    found = fusion.classify(features)
    torch.testing.assert_close(found, expected)
    fusion.prior.centres += 1.0
    moved = fusion.classify(features)
    assert torch.equal(moved[batch.has_cxr], found[batch.has_cxr])
    assert (moved - found)[~batch.has_cxr].abs().min() > 0


def test_smil_takes_the_losses_after_the_inner_steps() -> None:
    """With slow plain gradient descent on a copy of the head; the published code drops these weights."""
    fusion, batch = trained("smil").fusion, make_batch()
    features = Features(*(part.detach() for part in fusion.features(batch)))
    torch.manual_seed(3)
    found = fusion.outer_losses(features, batch.labels)
    torch.manual_seed(3)
    noise = fusion.noise(features.ehr)
    head = copy.deepcopy(fusion.head)

    def total(part: slice) -> dict[str, Tensor]:
        return fusion.losses(
            dict(head.named_parameters()), features.take(part), batch.labels[part], noise[:, part]
        )

    for _ in range(2):
        gradients = torch.autograd.grad(sum(total(slice(5)).values()), list(head.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(head.parameters(), gradients, strict=True):
                weight -= 0.05 * gradient
    for key, value in total(slice(5, None)).items():
        torch.testing.assert_close(found[key], value)
    start = fusion.losses(
        dict(fusion.head.named_parameters()), features.take(slice(5, None)), batch.labels[5:], noise[:, 5:]
    )
    assert not torch.isclose(found["meta"], start["meta"])


def test_the_losses_of_smil_are_their_formulas() -> None:
    fusion, batch = trained("smil").fusion, make_batch()
    features, labels = fusion.features(batch), batch.labels
    noise, head = torch.randn(3, 6, 8, dtype=torch.float64), fusion.head
    found = fusion.losses(dict(head.named_parameters()), features, labels, noise)
    clean = head(features, fusion.prior.centres, torch.zeros(1, 6, 8, dtype=torch.float64))
    sums = dict.fromkeys(found, 0.0)
    mean = head.projection(fusion.prior.mean())
    for draw in noise:
        noisy = head(features, fusion.prior.centres, draw[None])
        sums["meta"] += functional.binary_cross_entropy_with_logits(noisy.logits[0], labels)
        sums["consistency"] += (noisy.logits.sigmoid() - clean.logits.sigmoid()).square().mean()
        sums["hidden"] += 0.1 * (noisy.hidden - clean.hidden).square().mean()
        sums["reconstruction"] += 0.1 * (noisy.reconstructed - mean).square().mean()
    for key, value in found.items():
        torch.testing.assert_close(value, sums[key] / 3)


def test_the_prior_finds_the_clusters_of_the_images() -> None:
    prior, draw = Prior(2), torch.Generator().manual_seed(0)
    places = torch.tensor([[x, y] for x in (0.0, 10.0) for y in range(0, 50, 10)])
    prior.update(places + 0.1)  # one image of each
    for _ in range(20):
        chosen = torch.randint(0, 10, (16,), generator=draw)
        prior.update(places[chosen] + 0.1 * torch.randn(16, 2, generator=draw))
    distance = torch.cdist(places, prior.centres).min(dim=1).values
    assert len(prior.centres) == CENTRES and distance.max() < 0.2 and prior.counts.max() <= 100
    expected = (prior.counts[:, None] * prior.centres).sum(dim=0) / prior.counts.sum()
    torch.testing.assert_close(prior.mean(), expected)


def test_the_prior_fills_its_places_first() -> None:
    prior = Prior(1)
    assert prior.mean() == 0
    prior.update(torch.zeros(0, 1))
    prior.update(torch.arange(4.0)[:, None])
    prior.update(torch.arange(4.0, 12.0)[:, None])
    assert prior.centres[:, 0].tolist() == list(range(10)) and prior.counts.tolist() == [1] * 10
    prior.update(torch.tensor([[8.6], [9.4]]))
    assert prior.centres[9, 0].item() == pytest.approx(9.0) and prior.counts[9] == 3


# UMSE


def test_umse_reads_what_was_observed_and_nothing_else() -> None:
    """The published code takes 1 = missing for 1 = observed, and reads the imputed values."""
    batch = make_batch([3, 2], [False, False])
    hours = raw_hours(batch)
    triplets = observed_triplets(hours, most=1000)
    for row, length in enumerate((3, 2)):
        expected = [
            (hour, index, hours.values[row, hour, v.first_channel : v.first_channel + v.width])
            for hour in range(length)
            for index, v in enumerate(variables())
            if hours.values[row, hour, v.mask_channel] == 1
        ]
        kept = triplets.present[row]
        found = zip(
            triplets.hour[row][kept].tolist(), triplets.variable[row][kept].tolist(),
            triplets.value[row][kept].tolist(), strict=True,
        )  # fmt: skip
        for (hour, variable, value), (true_hour, true_variable, values) in zip(found, expected, strict=True):
            assert (hour, variable) == (true_hour, true_variable)
            assert value == (values.item() if len(values) == 1 else values.argmax().item())
    latest = observed_triplets(hours, most=4)
    assert torch.equal(latest.hour[0], triplets.hour[0][triplets.present[0]][-4:]) and latest.present.all()


def test_umse_mixes_in_an_image_that_is_there() -> None:
    """The published code inverts the flag: it skips images that are there, and reads black ones."""
    fusion, batch = make("umse").fusion.eval(), make_batch()
    pixels = batch.cxr.requires_grad_()
    (gradient,) = torch.autograd.grad(fusion(batch).sum(), pixels)
    assert gradient.flatten(1).any(dim=1).all()
    before = fusion(batch)
    fusion.tokens["mix"].data = torch.tensor([-50.0, 50.0], dtype=torch.float64)
    after = fusion(batch)
    assert torch.equal(after[~batch.has_cxr], before[~batch.has_cxr])
    assert not torch.isclose(after[batch.has_cxr], before[batch.has_cxr]).any()


def test_the_bottleneck_of_umse_carries_the_image_to_the_ehr() -> None:
    batch = make_batch()
    pixels = batch.cxr.requires_grad_()
    for layers, reaches in ((1, False), (2, True)):
        settings = FusionConfig(umse_layers=layers, umse_triplets=40)
        fusion = make("umse", settings=settings).fusion.eval()
        fusion.tokens["mix"].data = torch.tensor(
            [1000.0, -1000.0], dtype=torch.float64
        )  # the EHR's CLS alone
        (gradient,) = torch.autograd.grad(fusion(batch).sum(), pixels)
        assert gradient.any() == reaches


# UTDE


def test_mtand_is_its_formula() -> None:
    attention = make("utde").fusion.time_attention
    steps, times = torch.rand(1, 2, dtype=torch.float64), torch.rand(1, 4, dtype=torch.float64)
    values, observed = torch.randn(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, 3, dtype=torch.float64)
    observed[0, :, 0] = torch.tensor([1.0, 0, 1, 0])
    observed[0, :, 2] = 0
    present = torch.tensor([[True, True, True, False]])
    observed[0, 3] = 0
    found = attention(steps, times, values, observed, present).view(2, 4, 3)
    query, key = attention.query(attention.embed(steps[0])), attention.key(attention.embed(times[0]))
    for head in range(4):
        own = slice(16 * head, 16 * head + 16)
        for step_index in range(2):
            scores = key[:, own] @ query[step_index, own] / 4
            for series, seen in enumerate(([0, 2], [0, 1, 2], [])):
                expected = (
                    scores[seen].softmax(dim=0) @ values[0, seen, series] if seen else torch.tensor(0.0)
                )
                assert found[step_index, head, series].item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_time_of_the_image_matters_to_utde() -> None:
    fusion, batch = make("utde").fusion.eval(), make_batch()
    later = fusion(batch._replace(gap_days=batch.gap_days + 1))
    changed = (later - fusion(batch)).abs().amax(dim=1) > 0
    assert torch.equal(changed, batch.has_cxr)


def test_imputed_values_reach_utde_through_the_convolution_alone() -> None:
    fusion, batch = make("utde").fusion.eval(), make_batch([4], [True])
    fusion.gate[2].bias.data += 1e4  # the irregular series alone
    hours = batch.ehr.data.requires_grad_()
    (gradient,) = torch.autograd.grad(fusion(batch).sum(), hours)
    for v in variables():
        of_values = gradient[:, v.first_channel : v.first_channel + v.width].any(dim=1)
        assert torch.equal(of_values, hours[:, v.mask_channel] == 1)


# AUG


def test_the_layers_that_aug_adds_are_trained_and_count() -> None:
    """The published code makes them after the optimiser, which never hears of them."""
    classifier = make("aug").train()
    fusion, batch = classifier.fusion, make_batch()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.01, weight_decay=0.0)
    start = fusion.ehr_layers.weight.detach().clone().view(3, 8, 8)
    step(classifier, optimizer, batch)
    now = fusion.ehr_layers.weight.view(3, 8, 8)
    assert not torch.equal(now[0], start[0]) and torch.equal(now[1:], start[1:])
    before = fusion(batch)
    fusion.boosting.added.copy_(torch.tensor([1, 0]))
    assert not torch.isclose(fusion(batch), before).any()
    step(classifier, optimizer, batch)
    now = fusion.ehr_layers.weight.view(3, 8, 8)
    assert not torch.equal(now[1], start[1]) and torch.equal(now[2], start[2])


@pytest.mark.parametrize(
    ("scores", "epoch", "added"),
    [
        ((6.0, 4.0), 0, [0, 1]), ((4.0, 6.0), 0, [1, 0]), ((5.0, 5.1), 0, [0, 0]), ((6.0, 4.0), 1, [0, 0]),
        ((6.0, 4.0), 10, [0, 1]), ((0.0, 0.0), 0, [0, 0]),
    ],
)  # fmt: skip
def test_aug_strengthens_the_weaker_modality_when_it_is_time(scores, epoch: int, added: list[int]) -> None:
    fusion = make("aug", settings=FusionConfig(aug_delta=0.05)).fusion
    fusion.boosting.scores.copy_(torch.tensor(scores))
    fusion.end_epoch(epoch)
    assert fusion.boosting.added.tolist() == added and not fusion.boosting.scores.any()


def test_aug_adds_no_more_layers_than_it_has() -> None:
    fusion = make("aug").fusion
    for epoch in range(4):
        fusion.boosting.scores.copy_(torch.tensor([2.0, 1.0]))
        fusion.end_epoch(epoch)
    assert fusion.boosting.added.tolist() == [0, 2]


def test_the_losses_and_scores_of_aug_are_their_formulas() -> None:
    classifier = make("aug").train()
    fusion, batch = classifier.fusion, make_batch()
    fusion.boosting.added.copy_(torch.tensor([2, 0]))
    layers = fusion.layer_logits(batch)
    both = torch.stack([layers[0].sum(dim=1), layers[1, :, 0]])
    before = layers[0, :, :2].sum(dim=1)
    terms, present = classifier(batch), batch.has_cxr
    bce = functional.binary_cross_entropy_with_logits
    logits = torch.cat([both[0], both[1][present]])
    labels = torch.cat([batch.labels, batch.labels[present]])
    assert terms["cross_entropy"].item() == pytest.approx(bce(logits, labels).item(), rel=1e-6)
    torch.testing.assert_close(terms["before"], bce(before, batch.labels))
    target = batch.labels * (1 - before.sigmoid() / 2)
    torch.testing.assert_close(terms["added"], bce(layers[0, :, 2], target.detach()))
    probability = torch.where(batch.labels == 1, both.sigmoid(), 1 - both.sigmoid())[:, present].sum(
        dim=(1, 2)
    )
    torch.testing.assert_close(fusion.boosting.scores, probability)
    expected = torch.where(present[:, None], 0.5 * both[0] + 0.5 * both[1], both[0])
    torch.testing.assert_close(fusion(batch), expected)


# InfoReg


def test_inforeg_slows_the_better_encoder_down_in_its_window_alone() -> None:
    classifier = make("inforeg").train()
    fusion, window, batch = classifier.fusion, classifier.fusion.window, make_batch()

    def factors() -> list[float]:
        classifier.zero_grad()
        classifier(batch)["loss"].backward()
        window.scores.copy_(torch.tensor([0.6, 0.3]))  # a gap of 1/3; gamma of the EHR is 1
        encoders = (fusion.ehr_encoder, fusion.cxr_encoder)
        before = [[weight.grad.clone() for weight in encoder.parameters()] for encoder in encoders]
        classifier.after_backward()
        after = [[weight.grad for weight in encoder.parameters()] for encoder in encoders]
        return [(b[0] / a[0]).mean().item() for a, b in zip(before, after, strict=True)]

    assert factors() == pytest.approx([2 / 3, 1])
    expected = sum(weight.grad.square().sum() for weight in fusion.cxr_encoder.parameters())
    torch.testing.assert_close(window.traces[1, -1], expected)
    for _ in range(2):
        assert factors() == pytest.approx([2 / 3, 1])  # in the first 2T - 1 steps, T = 2
    window.traces.fill_(1e6)
    assert factors() == pytest.approx([1, 1])  # the trace falls
    window.traces.fill_(1e-12)
    assert factors() == pytest.approx([2 / 3, 1])  # it grows


def test_the_scores_of_inforeg_are_of_samples_that_have_both() -> None:
    classifier = make("inforeg").train()
    fusion, batch = classifier.fusion, make_batch()
    terms, present = classifier(batch), batch.has_cxr
    ehr, image = fusion.both(batch)
    alone = torch.stack([fusion.ehr_linear(ehr), fusion.cxr_linear(image)])
    probability = torch.where(batch.labels == 1, alone.sigmoid(), 1 - alone.sigmoid())[:, present]
    torch.testing.assert_close(fusion.window.scores, probability.mean(dim=(1, 2)))
    bce = functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(terms["ehr"], bce(alone[0], batch.labels))
    torch.testing.assert_close(terms["cxr"], bce(alone[1][present], batch.labels[present]))
