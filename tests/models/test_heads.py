"""Projection heads have the published shape, and sit on their encoder."""

import pytest
import torch

from models.encoders import EHREncoder
from models.heads import HeadedEncoder, ProjectionHead


def test_a_head_is_three_linear_layers_the_last_without_bias() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in ProjectionHead(512, width=2).named_parameters()}
    assert shapes == {
        "0.weight": (256, 512),
        "0.bias": (256,),
        "2.weight": (256, 256),
        "2.bias": (256,),
        "4.weight": (256, 256),
    }


def test_a_head_needs_a_width() -> None:
    with pytest.raises(ValueError, match="--width 0"):
        ProjectionHead(512, width=0)


def test_a_headed_encoder_gives_the_heads_output(make_batch) -> None:
    encoder, batch = EHREncoder(feature_dim=16), make_batch([3, 5], [False, False])
    headed = HeadedEncoder(encoder, ProjectionHead(16))
    assert headed.feature_dim == 128
    assert torch.equal(headed(batch.ehr), headed.head(encoder(batch.ehr)))
