"""DAFT: the image scales and shifts the EHR's hidden states (Pölsterl et al. 2021, roles exchanged)."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, HourlyStates
from models.fusion.settings import StagedSettings
from models.fusion.staged import StagedFusion, squeeze

RATIO = 7  # width of the bottleneck: its input divided by this


class ScaleAndShift(nn.Module):
    """Scale and shift of each channel of the EHR, computed from the means of both modalities."""

    def __init__(self, image_dim: int, ehr_dim: int) -> None:
        super().__init__()
        bottleneck = (image_dim + ehr_dim) // RATIO
        self.bottleneck = nn.Linear(image_dim + ehr_dim, bottleneck, bias=False)
        self.scale_and_shift = nn.Linear(bottleneck, 2 * ehr_dim, bias=False)

    def forward(self, maps: Tensor, hours: HourlyStates, image: Tensor) -> tuple[Tensor, HourlyStates]:
        """Return the unchanged maps [P, C, H, W] and the changed hours; image: int64 [B], as in `squeeze`."""
        squeezed = self.bottleneck(squeeze(maps, hours, image)).relu()
        scale, shift = hours.of_each_hour(self.scale_and_shift(squeezed)).chunk(2, dim=1)
        return maps, hours._replace(states=hours.states * scale + shift)


class DAFT(StagedFusion):
    """A linear layer on the EHR feature, whose hours the image scales and shifts.

    It does so after stage `layer_after` of the image encoder (-1: all); later stages are not run. Without an
    image its mean is zero. Samples share all image stages.
    """

    title = "DAFT"

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int, settings: StagedSettings) -> None:
        super().__init__(encoders, settings, ScaleAndShift)
        self.linear = nn.Linear(self.ehr_dim, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        _, hours, _ = self.fuse(batch, self.last_fusion_stage)
        logits: Tensor = self.linear(self.ehr_encoder.encode_top_layer(hours))
        return logits
