"""Attention within packed sequences: the scores are computed in blocks of sequences of similar length."""

from torch import Tensor
from torch.nn import functional

from models.encoders.hours import Blocks


def attend_to_earlier(blocks: Blocks, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the attention of each packed row [N, D] to itself and to the earlier rows of its sequence."""

    def of_block(_: Tensor, *rows: Tensor) -> Tensor:
        parts = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in rows]
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)  # no row sees padding
        return mixed.transpose(1, 2).flatten(2)

    return blocks.apply(of_block, query, key, value)
