"""What the fusions share that act between the layers of both encoders."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import CXREncoder, EHREncoder, Encoder, HourlyStates, scatter_rows
from models.fusion.base import Fusion

ALL_STAGES = -1  # what --layer_after says for a block after every stage


class StagedFusion(Fusion):
    """Modalities that meet after one stage of the image encoder, or after every one.

    A block is a module (maps [P, C, H, W], hours, has_cxr [B]) -> (maps, hours). Its hours are the hidden
    states of all layers of the EHR encoder but the last, which reads them when all fusion_blocks are over; an
    encoder of one layer has its states changed, and its last hour read.
    """

    settings = ("layer_after",)
    intermediate = True
    ehr_encoder: EHREncoder
    cxr_encoder: CXREncoder

    def __init__(
        self, encoders: Mapping[str, Encoder], layer_after: int, block: Callable[[int, int], nn.Module]
    ) -> None:
        """`block` builds a block from the widths of image and EHR there."""
        super().__init__(encoders)
        self.image_dims, self.ehr_dim = self.cxr_encoder.stage_dims, self.ehr_encoder.feature_dim
        stages = range(len(self.image_dims)) if layer_after == ALL_STAGES else [layer_after]
        self.last_fusion_stage = stages[-1]
        self.fusion_blocks = nn.ModuleDict(
            {str(stage): block(self.image_dims[stage], self.ehr_dim) for stage in stages}
        )

    def fuse(self, batch: Batch, last_stage: int) -> tuple[Tensor, HourlyStates]:
        """Maps after an image stage, [P, C, H, W], and hours, after all fusion_blocks up to there."""
        assert batch.ehr is not None and batch.cxr is not None, "a fusion gets the modalities that it names"
        hours, maps = self.ehr_encoder.encode_lower_layers(batch.ehr), self.cxr_encoder.prepare(batch.cxr)
        with self.cxr_encoder.safe_batch_norm(len(maps)):
            for stage in range(last_stage + 1):
                maps = self.cxr_encoder.stages[stage](maps)
                if str(stage) in self.fusion_blocks:
                    maps, hours = self.fusion_blocks[str(stage)](maps, hours, batch.has_cxr)
        return maps, hours


def squeeze(maps: Tensor, hours: HourlyStates, has_cxr: Tensor) -> Tensor:
    """Maps [P, C, H, W], hours of D states, bool [B] -> [B, C + D]: the means over image and stay.

    An absent image has a mean of zeros.
    """
    return torch.cat([scatter_rows(CXREncoder.pool(maps), has_cxr), hours.mean()], dim=1)
