"""Base class of the fusions that act between the layers of both encoders."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import CXREncoder, EHREncoder, Encoder, HourlyStates
from models.fusion.base import Fusion
from models.rows import scatter_rows

ALL_STAGES = -1  # --layer_after for a fusion block after every stage


class StagedFusion(Fusion):
    """Fusion blocks after one stage of the image encoder, or after every stage.

    A fusion block is a module (maps [P, C, H, W], hours, has_cxr [B]) -> (maps, hours). Its hours are the
    hidden states below the last layer of the EHR encoder (of the only layer, if it has one).
    `block` builds one from the widths of image and EHR at its stage.
    """

    settings = ("layer_after",)
    intermediate = True
    ehr_encoder: EHREncoder
    cxr_encoder: CXREncoder

    def __init__(
        self, encoders: Mapping[str, Encoder], layer_after: int, block: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__(encoders)
        self.image_dims = self.cxr_encoder.stage_dims
        self.ehr_dim = self.ehr_encoder.feature_dim
        stages = range(len(self.image_dims)) if layer_after == ALL_STAGES else [layer_after]
        self.last_fusion_stage = stages[-1]
        self.fusion_blocks = nn.ModuleDict(
            {str(stage): block(self.image_dims[stage], self.ehr_dim) for stage in stages}
        )

    def fuse(self, batch: Batch, last_stage: int) -> tuple[Tensor, HourlyStates]:
        """Return the maps [P, C, H, W] after an image stage, and the hours after all blocks up to it."""
        assert batch.ehr is not None and batch.cxr is not None, "a batch has the modalities of its fusion"
        hours = self.ehr_encoder.encode_lower_layers(batch.ehr)
        maps = self.cxr_encoder.prepare(batch.cxr)
        with self.cxr_encoder.safe_batch_norm(len(maps)):
            for stage in range(last_stage + 1):
                maps = self.cxr_encoder.stages[stage](maps)
                if str(stage) in self.fusion_blocks:
                    maps, hours = self.fusion_blocks[str(stage)](maps, hours, batch.has_cxr)
        return maps, hours


def squeeze(maps: Tensor, hours: HourlyStates, has_cxr: Tensor) -> Tensor:
    """Average maps [P, C, H, W] over the image and hours over the stay: [B, C + D].

    has_cxr: bool [B], True for P samples; the mean of an absent image is zero.
    """
    return torch.cat([scatter_rows(CXREncoder.pool(maps), has_cxr), hours.mean()], dim=1)
