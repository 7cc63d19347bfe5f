"""M3Care: a missing X-ray is borrowed from similar patients (Zhang et al., KDD 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Supervision
from models.fusion.losses import cut_graph, gaussian_kernel, global_mean, mean_squared_distance
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import M3CareSettings
from models.losses import upcast
from utils.distributed import gather_with_gradient

THRESHOLD = -1.0  # of similarity at the start, before the sigmoid: 0.27, below that of an average pair, 0.34


class Patients(NamedTuple):
    """Features of n samples by modality, [2, n, D], and which of them are there, bool [2, n]."""

    features: Tensor
    present: Tensor

    def gathered(self) -> Self:
        """Return the samples of all processes."""
        features = gather_with_gradient(self.features.transpose(0, 1)).transpose(0, 1)
        return type(self)(features, gather_with_gradient(self.present.T.float()).T > 0)


class Bank(nn.Module):
    """The features of the latest `size` training samples, as buffers: a checkpoint holds them."""

    features: Tensor
    present: Tensor
    next_row: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(2, size, dim))
        self.register_buffer("present", torch.zeros(2, size, dtype=torch.bool))
        self.register_buffer("next_row", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, patients: Patients) -> None:
        """Keep the last samples in place of the oldest."""
        size = self.present.shape[1]
        features, present = patients.features[:, -size:], patients.present[:, -size:]
        count = features.shape[1]
        rows = (self.next_row + torch.arange(count, device=features.device)) % size
        self.features.index_copy_(1, rows, features.to(self.features.dtype))
        self.present.index_copy_(1, rows, present)
        self.next_row += count

    def patients(self) -> Patients:
        """Return the samples; places that are still empty have no modality."""
        return Patients(self.features, self.present)


class M3Care(ProjectedFusion):
    """Two graph convolutions over similar patients for each modality; then two layers.

    With D the width of the EHR feature, h a modality's features [n, D] and G the mean of three Gaussian
    kernels: K = ((1 - s) G(norm(relu(MLP(h)))) + s) G(norm(h)), s learned. The similarity S of two patients
    is the mean of K over the modalities that both have. Similarities above a learned threshold are the graph
    A [n, n]. With each row of A divided by its sum, g = relu(A relu(A h W1) W2), over neighbours that have
    the modality. Then h becomes w g + (1 - w) h, w = sig(Linear g) / (sig(Linear g) + sig(Linear h)).

    Loss: lambda times the mean of | |MLP(h)| - |h| |.

    Without an image, g takes the place of h: the image feature of similar patients. In training, neighbours
    are the batch (of all processes); in evaluation the latest training samples, which are saved with the
    checkpoint, so that no prediction depends on who else is in the batch.

    Other than in the paper: rows of A have sum 1, because bank and batch differ in size, and layer norm takes
    the place of batch norm, for the same reason; there is no transformer above two features. Other than in
    the published code, the similarity is divided by the number of modalities that both have (by a constant it
    never reaches the threshold, and the graph is empty), the threshold starts below the similarity of an
    average pair, and the patient without an image has neighbours, those who have one.
    """

    title = "M3Care"
    data_pairs = "partial"
    published_like = "m3care"
    settings = M3CareSettings

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: M3CareSettings) -> None:
        super().__init__(encoders)
        dim = self.feature_dim
        self.weight = settings.m3care_lambda
        self.bank = Bank(settings.m3care_bank, dim)
        self.ehr_graph, self.cxr_graph = PatientGraph(dim), PatientGraph(dim)
        self.similarity = nn.ParameterDict({"threshold": nn.Parameter(torch.tensor(THRESHOLD))})
        self.classifier = nn.Sequential(
            nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(settings.m3care_dropout), nn.Linear(dim, outputs)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        return self.classify(self.patients(batch))

    def supervise(self, batch: Batch) -> Supervision:
        """Return the logits, and the loss "size"; in training, keep the samples for evaluation."""
        patients = self.patients(batch)
        logits = self.classify(patients)
        if self.training and torch.is_grad_enabled():
            self.bank.add(patients.gathered())
        differences = torch.stack(
            [
                (layers.compared(h).norm(dim=1) - h.norm(dim=1)).abs()
                for layers, h in zip(self.graphs, patients.features, strict=True)
            ]
        )
        size = 2 * global_mean(differences, patients.present)
        return Supervision(logits, {"size": self.weight * size})

    def patients(self, batch: Batch) -> Patients:
        """Return the features of a batch."""
        present = torch.stack([torch.ones_like(batch.has_cxr), batch.has_cxr])
        return Patients(torch.stack(self.both(batch)), present)

    @property
    def graphs(self) -> tuple[PatientGraph, PatientGraph]:
        """The layers of both modalities."""
        return self.ehr_graph, self.cxr_graph

    def classify(self, patients: Patients) -> Tensor:
        """Map the features of B samples to logits [B, outputs]."""
        others, own = self.neighbours(patients)
        graph, graph_of_others = self.graph(patients, others), self.graph(others, others)
        features = [
            layers(
                patients.features[index],
                others.features[index],
                graph * others.present[index],
                graph_of_others * others.present[index],
                patients.present[index],
                own,
            )
            for index, layers in enumerate(self.graphs)
        ]
        logits: Tensor = self.classifier(torch.cat(features, dim=1))
        return logits

    def neighbours(self, patients: Patients) -> tuple[Patients, float]:
        """Return the samples to borrow from, and the weight of a sample itself, which is not among them.

        A sample is as similar to itself as can be: its weight is 1 if it is not among the others.
        """
        if self.training and torch.is_grad_enabled():
            return patients.gathered(), 0.0
        return (patients, 0.0) if self.training else (self.bank.patients(), 1.0)

    def graph(self, patients: Patients, others: Patients) -> Tensor:
        """Return the graph from n samples to m others, [n, m]; 0 where two are not similar enough."""
        total = patients.features.new_zeros(patients.features.shape[1], others.features.shape[1])
        shared = torch.zeros_like(total)
        for index, layers in enumerate(self.graphs):
            both = patients.present[index][:, None] & others.present[index]
            kernel = layers.kernel(patients.features[index], others.features[index], others.present[index])
            total = total + torch.where(both, kernel, 0.0)
            shared = shared + both
        return cut_graph(total / shared.clamp(min=1.0), self.similarity["threshold"].sigmoid())


class PatientGraph(nn.Module):
    """The layers of one modality: how patients are compared, and what they borrow."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.compared = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        self.compared_norm, self.norm = (nn.LayerNorm(dim, bias=False) for _ in range(2))
        self.mix = nn.Parameter(torch.tensor(2.0))
        self.convolutions = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.borrowed_gate, self.own_gate = nn.Linear(dim, 1), nn.Linear(dim, 1)

    def kernel(self, features: Tensor, others: Tensor, present: Tensor) -> Tensor:
        """Return the similarity K of features [n, D] to those of others [m, D], of which some are present."""
        views = [
            upcast(
                self.compared_norm(self.compared(features).relu()),
                self.compared_norm(self.compared(others).relu()),
            ),
            upcast(self.norm(features), self.norm(others)),
        ]
        kernels = [
            gaussian_kernel(mine, theirs, mean_squared_distance(theirs, present)) for mine, theirs in views
        ]
        mix = self.mix.sigmoid()
        return ((1 - mix) * kernels[0] + mix) * kernels[1]

    def forward(
        self, h: Tensor, others: Tensor, graph: Tensor, graph_of_others: Tensor, present: Tensor, own: float
    ) -> Tensor:
        """Return the features [n, D] of n samples after they borrowed from m others.

        h: [n, D]; others: [m, D]; graph: [n, m]; graph_of_others: [m, m]; present: bool [n]; own: weight of
        the sample itself, beside the others.
        """
        first, second = self.convolutions
        weight = own * present[:, None].to(h.dtype)
        their_hidden = first(_mean(graph_of_others, others)).relu()
        own_hidden = first(_mean(graph, others, weight, h)).relu()
        borrowed = second(_mean(graph, their_hidden, weight, own_hidden)).relu()
        gate, own_gate = self.borrowed_gate(borrowed).sigmoid(), self.own_gate(h).sigmoid()
        mixed = (gate * borrowed + own_gate * h) / (gate + own_gate)
        return torch.where(present[:, None], mixed, borrowed)


def _mean(graph: Tensor, values: Tensor, weight: Tensor | float = 0.0, own: Tensor | float = 0.0) -> Tensor:
    """Average the values [m, D] of neighbours, weighted by a graph [n, m], and a sample's own: [n, D].

    It is 0 for a sample that has no neighbour.
    """
    total = graph.sum(dim=1, keepdim=True) + weight
    mean: Tensor = (graph @ values + weight * own) / torch.where(total > 0, total, 1.0)
    return mean
