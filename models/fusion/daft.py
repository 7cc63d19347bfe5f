"""DAFT: the image scales and shifts the hours of the EHR (Pölsterl et al. 2021, roles exchanged)."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, HourlyStates
from models.fusion.staged import StagedFusion, squeeze

RATIO = 7  # by which the bottleneck is narrower than its input


class ScaleAndShift(nn.Module):
    """Both modalities, squeezed to their means, make a scale and a shift for each channel of the EHR."""

    def __init__(self, image_dim: int, ehr_dim: int) -> None:
        super().__init__()
        bottleneck = (image_dim + ehr_dim) // RATIO
        self.bottleneck = nn.Linear(image_dim + ehr_dim, bottleneck, bias=False)
        self.scale_and_shift = nn.Linear(bottleneck, 2 * ehr_dim, bias=False)

    def forward(self, maps: Tensor, hours: HourlyStates, has_cxr: Tensor) -> tuple[Tensor, HourlyStates]:
        """Maps [P, C, H, W] of the samples with an image, hours and bool [B] -> the maps, changed hours."""
        narrow = self.bottleneck(squeeze(maps, hours, has_cxr)).relu()
        scale, shift = self.scale_and_shift(narrow).chunk(2, dim=1)
        return maps, hours._replace(states=hours.states * scale + shift)


class DAFT(StagedFusion):
    """The EHR's hours, scaled and shifted by the image after stage `layer_after` (-1: after each), then read.

    The image acts through scale and shift alone, later stages not at all. Without an image zeros stand in its
    place.
    """

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, layer_after: int = 4) -> None:
        super().__init__(encoders, layer_after, ScaleAndShift)
        self.linear = nn.Linear(self.ehr_dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        _, hours = self.fuse(batch, self.last_fusion_stage)
        logits: Tensor = self.linear(self.ehr_encoder.encode_top_layer(hours))
        return logits
