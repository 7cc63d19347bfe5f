"""MMTM: image and EHR gate each other's channels (Joze et al. 2020, multimodal transfer module)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import CXREncoder, Encoder, HourlyStates, gather_rows, scatter_rows
from models.fusion.staged import StagedFusion, squeeze

RATIO = 4  # by which the joint layer is narrower than twice its input


class Gates(nn.Module):
    """Both modalities, squeezed to their means, make a sigmoid gate for each channel of either."""

    def __init__(self, image_dim: int, ehr_dim: int) -> None:
        super().__init__()
        joint_dim = 2 * (image_dim + ehr_dim) // RATIO
        self.joint = nn.Linear(image_dim + ehr_dim, joint_dim)
        self.image_gate = nn.Linear(joint_dim, image_dim)
        self.ehr_gate = nn.Linear(joint_dim, ehr_dim)

    def forward(self, maps: Tensor, hours: HourlyStates, has_cxr: Tensor) -> tuple[Tensor, HourlyStates]:
        """Maps [P, C, H, W] of the samples with an image, hours and bool [B] -> gated maps and hours."""
        joint = self.joint(squeeze(maps, hours, has_cxr)).relu()
        gate = gather_rows(self.image_gate(joint).sigmoid(), has_cxr, len(maps))
        states = hours.states * self.ehr_gate(joint).sigmoid()
        return maps * gate[:, :, None, None], hours._replace(states=states)


class MMTM(StagedFusion):
    """Gates after stage `layer_after` of the image encoder (-1: after each); then both features, one layer.

    Without an image the EHR's gate sees zeros in its place, and the image's feature is zeros.
    """

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, layer_after: int = 4) -> None:
        super().__init__(encoders, layer_after, Gates)
        self.linear = nn.Linear(self.ehr_dim + self.image_dims[-1], outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        maps, hours = self.fuse(batch, len(self.image_dims) - 1)
        image = scatter_rows(CXREncoder.pool(maps), batch.has_cxr)
        logits: Tensor = self.linear(torch.cat([self.ehr_encoder.encode_top_layer(hours), image], dim=1))
        return logits
