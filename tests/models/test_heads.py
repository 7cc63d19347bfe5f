"""Projection heads have the published shape, and sit on their encoder."""

import pytest
import torch

from models.encoders import LSTMEncoder
from models.heads import HeadedEncoder, LinearHead, ProjectionHead, build_heads


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


def test_no_hidden_units_make_one_linear_layer_to_512() -> None:
    heads = build_heads({"ehr": LSTMEncoder(dim=16)}, width=0)
    shapes = {name: tuple(weight.shape) for name, weight in heads["ehr"].named_parameters()}
    assert shapes == {"weight": (512, 16), "bias": (512,)} and heads["ehr"].feature_dim == 512
    with pytest.raises(ValueError, match=r"--width -1: .* or 0 for one linear layer"):
        build_heads({"ehr": LSTMEncoder(dim=16)}, width=-1)


def test_a_headed_encoder_gives_the_heads_output(make_batch) -> None:
    encoder, batch = LSTMEncoder(dim=16), make_batch([3, 5], [False, False])
    for head, feature_dim in ((ProjectionHead(16), 128), (LinearHead(16), 512)):
        headed = HeadedEncoder(encoder, head)
        assert headed.feature_dim == feature_dim == headed(batch.ehr).shape[1]
        assert torch.equal(headed(batch.ehr), head(encoder(batch.ehr)))
