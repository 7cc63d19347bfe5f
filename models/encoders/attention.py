"""Attention within packed sequences: the scores are computed in blocks of sequences of similar length."""

import torch
from torch import Tensor
from torch.nn import functional

from models.encoders.hours import Blocks

LOWEST = torch.finfo(torch.float32).min / 4  # below any score; its double is finite
FAST_WIDTH = 16  # of a head on the CPU: attention takes 1.5 times as long with 4, and with 8 even longer


def attend_to_all(
    blocks: Blocks, query: Tensor, key: Tensor, value: Tensor, present: Tensor, heads: int, dropout: float
) -> Tensor:
    """Return the attention of each packed row [N, D] to the rows of its sequence that are present, bool [N].

    Scores are not scaled. `dropout` is the probability with which a head leaves out a row that is present. A
    sequence of which no row is left attends to all rows.
    """

    def of_block(in_block: Tensor, kept: Tensor, *rows: Tensor) -> Tensor:
        query, key, value = (_of_heads(part, heads) for part in rows)
        is_key = (in_block & kept[..., 0])[:, None].expand(-1, heads, -1)
        if dropout:
            is_key = is_key & (torch.rand(is_key.shape, device=is_key.device) >= dropout)
        absent = torch.where(is_key, 0.0, torch.where(in_block[:, None], LOWEST, 2 * LOWEST))
        mask = absent[:, :, None].to(rows[0].dtype)
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
        return mixed[..., : rows[0].shape[-1] // heads].transpose(1, 2).flatten(2)

    return blocks.apply(of_block, present[:, None], query, key, value)


def _of_heads(rows: Tensor, heads: int) -> Tensor:
    """Split rows [S, T, D] into heads, [S, heads, T, D / heads]; on the CPU narrow ones get zeros to 16."""
    parts = rows.unflatten(-1, (heads, -1)).transpose(1, 2)
    missing = FAST_WIDTH - parts.shape[-1] if rows.device.type == "cpu" else 0
    return functional.pad(parts, (0, missing)) if missing > 0 else parts


def attend_to_earlier(blocks: Blocks, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the attention of each packed row [N, D] to itself and to the earlier rows of its sequence."""

    def of_block(_: Tensor, *rows: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in rows)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )  # no padding is seen
        return mixed.transpose(1, 2).flatten(2)

    return blocks.apply(of_block, query, key, value)
