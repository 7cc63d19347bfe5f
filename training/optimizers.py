"""PyTorch's optimizers, without the time that PyTorch's compiler takes to import.

The first call of most methods of `torch.optim.Optimizer` imports PyTorch's compiler, to be left alone by it:
1.4 of the 2 seconds that PyTorch itself takes. No optimizer is compiled here, so that the methods are taken
as they are below that layer.
"""

from __future__ import annotations

from inspect import unwrap

import torch


class Uncompiled(torch.optim.Optimizer):
    """An optimizer that does not import PyTorch's compiler."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class Adam(Uncompiled, torch.optim.Adam):
    """Adam (Kingma and Ba 2015)."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class AdamW(Uncompiled, torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class SGD(Uncompiled, torch.optim.SGD):
    """Stochastic gradient descent with momentum."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))
