"""Base class of the fusions that act between the layers of both encoders."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import CausalEncoder, CXREncoder, Encoder, HourlyStates
from models.fusion.base import Fusion
from models.fusion.settings import StagedSettings
from models.rows import take_rows

ALL_STAGES = -1  # --layer_after for a fusion block after every stage


class StagedFusion(Fusion):
    """Fusion blocks after one stage of the image encoder, or after every stage.

    A fusion block is a module (maps [P, C, H, W], hours, image [B]) -> (maps, hours), where `image` is the
    index of each sample's map, -1 without one. Its hours are the hidden states below the last layer of the
    EHR encoder (of the only layer, if it has one). `block` builds one from the widths of image and EHR at its
    stage.

    Samples of one stay share its pass through the layers below the last, and the image stages up to the first
    block that changes maps. They cannot share what comes after: a block changes the hours of each sample by
    what this sample has seen, so that the last of several layers reads all hours of each sample.

    Attributes:
        changes_maps: Whether the blocks change maps, so that each sample then has maps of its own.
    """

    changes_maps: ClassVar[bool] = False
    settings = StagedSettings
    intermediate = True
    ehr_encoder: CausalEncoder
    cxr_encoder: CXREncoder

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        settings: StagedSettings,
        block: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__(encoders)
        self.image_dims = self.cxr_encoder.stage_dims
        self.ehr_dim = self.ehr_encoder.feature_dim
        stages = range(len(self.image_dims)) if settings.layer_after == ALL_STAGES else [settings.layer_after]
        self.last_fusion_stage = stages[-1]
        self.fusion_blocks = nn.ModuleDict(
            {str(stage): block(self.image_dims[stage], self.ehr_dim) for stage in stages}
        )

    def fuse(self, batch: Batch, last_stage: int) -> tuple[Tensor, HourlyStates, Tensor]:
        """Return maps [P, C, H, W] after an image stage, and hours and `image` after all blocks up to it."""
        assert batch.ehr is not None and batch.cxr is not None, "a batch has the modalities of its fusion"
        hours = self.ehr_encoder.encode_lower_layers(batch.ehr, batch.stay, batch.hours)
        maps, image = self.cxr_encoder.prepare(batch.cxr), batch.image
        with self.cxr_encoder.safe_batch_norm(len(maps)):
            for stage in range(last_stage + 1):
                maps = self.cxr_encoder.stages[stage](maps)
                if str(stage) not in self.fusion_blocks:
                    continue
                if self.changes_maps and image is batch.image:
                    maps = maps.index_select(0, image[batch.paired])
                    image = torch.where(batch.has_cxr, batch.has_cxr.cumsum(0) - 1, -1)
                maps, hours = self.fusion_blocks[str(stage)](maps, hours, image)
        return maps, hours, image


def squeeze(maps: Tensor, hours: HourlyStates, image: Tensor) -> Tensor:
    """Average maps [P, C, H, W] over the image and hours over the stay: [B, C + D].

    image: int64 [B], the index of each sample's map; -1 for an absent image, whose mean is zero.
    """
    return torch.cat([take_rows(CXREncoder.pool(maps), image), hours.mean()], dim=1)
