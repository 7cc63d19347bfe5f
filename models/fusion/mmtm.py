"""MMTM: image and EHR gate each other's channels (multimodal transfer module, Joze et al. 2020)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import CXREncoder, Encoder, HourlyStates
from models.fusion.settings import StagedSettings
from models.fusion.staged import StagedFusion, squeeze
from models.rows import gather_rows, take_rows

RATIO = 4  # width of the joint layer: twice its input divided by this


class Gates(nn.Module):
    """Sigmoid gates for the channels of both modalities, computed from the means of both."""

    def __init__(self, image_dim: int, ehr_dim: int) -> None:
        super().__init__()
        joint_dim = 2 * (image_dim + ehr_dim) // RATIO
        self.joint = nn.Linear(image_dim + ehr_dim, joint_dim)
        self.image_gate = nn.Linear(joint_dim, image_dim)
        self.ehr_gate = nn.Linear(joint_dim, ehr_dim)

    def forward(self, maps: Tensor, hours: HourlyStates, image: Tensor) -> tuple[Tensor, HourlyStates]:
        """Return the gated maps [Q, C, H, W] and hours; image: int64 [B], as in `squeeze`."""
        joint = self.joint(squeeze(maps, hours, image)).relu()
        gate = gather_rows(self.image_gate(joint).sigmoid(), image >= 0, len(maps))
        states = hours.states * hours.of_each_hour(self.ehr_gate(joint).sigmoid())
        return maps * gate[:, :, None, None], hours._replace(states=states)


class MMTM(StagedFusion):
    """Gates after stage `layer_after` of the image encoder (-1: all), then a linear layer on both features.

    Without an image its mean and its feature are zero. Samples share the image stages up to the first gates.
    """

    title = "MMTM"
    changes_maps = True

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: StagedSettings) -> None:
        super().__init__(encoders, settings, Gates)
        self.linear = nn.Linear(self.ehr_dim + self.image_dims[-1], outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        maps, hours, image = self.fuse(batch, len(self.image_dims) - 1)
        features = self.ehr_encoder.encode_top_layer(hours), take_rows(CXREncoder.pool(maps), image)
        logits: Tensor = self.linear(torch.cat(features, dim=1))
        return logits
