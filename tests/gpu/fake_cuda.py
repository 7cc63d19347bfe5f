"""A GPU that computes nothing: the road through CUDA, rehearsed where there is no GPU.

CUDA tensors are PyTorch's fake tensors: they have a device, a type, a shape and strides, but no values. The
Python of a training step runs on them as it would on a GPU, so a tensor on the wrong device or of the wrong
type fails here too, and so does an operation for which the host waits. Tensors on the CPU stay real. What
PyTorch cannot do with fake tensors has stand-ins with the checks of the CUDA code: cuDNN's LSTM, batch norm
over processes, bf16 autocast (which `torch.autocast("cuda")` switches off without a GPU), and the backward
pass.

Not rehearsed: the status of cuDNN and NCCL, streams and races, memory, time, the reducer of
DistributedDataParallel, which is C++ (tests with two processes run it on CPUs), and what Inductor generates.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from datasets.batches import packed_rows
from datasets.schema import Batch, Triplets, channel_count
from training.loop import _Trainer
from training.metrics_accumulator import AsyncMetrics, MetricSums, StepMetrics

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
READ_BY_HOST = (
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten.is_nonzero.default, aten._unique2.default, aten.masked_scatter_backward.default, aten.equal.default,
)  # fmt: skip
MASKED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class HostWaits(AssertionError):
    """An operation for which the host waits until the GPU has done all its work."""


class Dispatch(TorchDispatchMode):
    """Run operations on CPU tensors for real; unless `may_wait`, refuse those for which the host waits."""

    may_wait = True

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = torch.device(kwargs.get("device") or "cpu")
        if target.type == "cpu" and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return on_host(func, args, kwargs)
        if not self.may_wait and waits(func, args, kwargs):
            raise HostWaits(f"the host waits for the GPU in {func.name()}")
        if func is aten._fused_sgd_.default:  # in place; fake tensors do not know it
            devices = {tensor.device for tensor in tensors}
            assert devices == {CUDA}, f"fused SGD of tensors on {devices}"
            return None
        if func in BATCH_NORM:
            with FAKE:
                return BATCH_NORM[func](*args)
        if func is aten.index.Tensor and mask_of(args[1]) is not None:  # of SyncBatchNorm: all have images
            with FAKE:
                return args[0].new_empty(args[0].shape)
        return func(*args, **kwargs)


def on_host(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on real tensors; none is pinned, for which CUDA would be needed."""
    if func is aten._pin_memory.default:
        return args[0].clone()
    if func is aten.is_pinned.default:
        return False
    with _disable_current_modes():
        return func(*args, **kwargs)


def waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether CUDA's implementation of an operation makes the host wait."""
    if func in READ_BY_HOST:
        return True
    if func in MASKED:
        return mask_of(args[1]) is not None
    if func is aten._to_copy.default:
        to = torch.device(kwargs.get("device") or args[0].device)
        return to.type != args[0].device.type and not kwargs.get("non_blocking")
    if func is aten.copy_.default:
        is_async = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        return args[0].device.type != args[1].device.type and args[1].dim() > 0 and not is_async
    return False


def mask_of(indices: list[Tensor | None]) -> Tensor | None:
    """Return the index that is a mask: how many rows it selects is known to the device alone."""
    return next((i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)), None)


def _statistics(x: Tensor, count: int) -> tuple[Tensor, ...]:
    accumulated = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    return tuple(x.new_empty(x.shape[1], dtype=accumulated) for _ in range(count))


def _batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, ...]:
    assert x.numel() > 0, "batch_norm_stats of no value"
    return _statistics(x, 2)


def _batch_norm_gather(x: Tensor, mean: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    running_mean, counts = rest[1], rest[5]
    assert counts.dtype == running_mean.dtype, "counts and running statistics must have one type"
    return _statistics(x, 2)


BATCH_NORM: dict[Any, Callable[..., Any]] = {  # as ATen/native/cuda/Normalization.cu; fake tensors have none
    aten.batch_norm_stats.default: _batch_norm_stats,
    aten.batch_norm_gather_stats_with_counts.default: _batch_norm_gather,
    aten.batch_norm_elemt.default: lambda x, *_: torch.empty_like(x),
    aten.batch_norm_backward_reduce.default: lambda gradient, x, *_: _statistics(x, 4),
    aten.batch_norm_backward_elemt.default: lambda gradient, x, *_: torch.empty_like(x),
}


class CuDNNLSTM(torch.autograd.Function):
    """Shapes and checks of cuDNN's LSTM (check_attributes in aten/src/ATen/native/cudnn/RNN.cpp)."""

    @staticmethod
    def forward(
        ctx: Any, data: Tensor, hidden: Tensor, cell: Tensor, train: bool, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        for tensor in (hidden, cell, *weights):
            assert tensor.device == data.device, f"LSTM: input on {data.device}, weights on {tensor.device}"
            assert tensor.dtype == data.dtype, f"LSTM: input {data.dtype}, weights {tensor.dtype}"
        assert hidden.is_contiguous() and cell.is_contiguous(), "LSTM: the initial state is not contiguous"
        ctx.train = train
        ctx.save_for_backward(data, hidden, cell, *weights)
        states = data.new_empty((*data.shape[:-1], hidden.shape[-1]))
        return states, torch.empty_like(hidden), torch.empty_like(cell)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.train, "cudnn RNN backward can only be called in training mode"
        data, hidden, cell, *weights = map(torch.empty_like, ctx.saved_tensors)
        assert all(g.device == data.device and g.dtype == data.dtype for g in gradients), "LSTM: gradients"
        return data, hidden, cell, None, *weights


class Kernels:
    """torch._VF with cuDNN's LSTM for CUDA tensors."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch._VF, name)

    def lstm(self, data: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        """As torch._VF.lstm, of a packed or a padded input."""
        if data.device.type != "cuda":
            return torch._VF.lstm(data, *args)
        if isinstance(args[0], Tensor):
            sizes, state, weights, _, _, _, train, _ = args
            assert sizes.device.type == "cpu" and sizes.dtype == torch.int64, "sizes: int64 on the CPU"
        else:
            state, weights, _, _, _, train, _, _ = args
        return CuDNNLSTM.apply(data, *state, train, *weights)


def empty_like(tensor: Tensor) -> Tensor:
    """Return a tensor on the fake GPU with the shape, the strides and the type of another."""
    with FAKE:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def to_fake(module: nn.Module) -> nn.Module:
    """Put the weights and buffers of a module on the fake GPU, in place, with their strides."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    fake = empty_like(tensor)
                    is_weight = tensors is part._parameters
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
        if isinstance(part, nn.RNNBase):
            part._flat_weights = [part._parameters[name] for name in part._flat_weights_names]
            part.flatten_parameters = lambda: None
    return module


def fake_batch(hours: list[int], images: int, labels: int = 1, size: int = 64) -> Batch:
    """Return a batch as datasets.batches makes it: hours, sizes and rows on the CPU, the rest on the GPU."""
    bins = np.array(hours)
    order = np.argsort(-bins, kind="stable")
    rows, sizes = packed_rows(np.zeros(len(bins), np.int64), bins[order], np.full(len(bins), -1))
    count = len(hours)
    real = [torch.from_numpy(array) for array in (sizes, bins, np.arange(count))]
    first, counts = 2 * (real[1].cumsum(0) - real[1]), 2 * real[1]  # two triplets in an hour
    with FAKE:
        order_on_gpu, place = (torch.empty(count, dtype=torch.int64, device=CUDA) for _ in range(2))
        data = torch.empty(len(rows), channel_count(), device=CUDA)
        return Batch(
            ehr=PackedSequence(data, real[0], order_on_gpu, place),
            stay=torch.empty(count, dtype=torch.int64, device=CUDA),
            last=torch.empty(count, dtype=torch.int64, device=CUDA),
            hours=real[1],
            cxr=torch.empty(images, 1, size, size, device=CUDA),
            image=torch.empty(count, dtype=torch.int64, device=CUDA),
            paired=torch.empty(images, dtype=torch.int64, device=CUDA),
            has_ehr=torch.empty(count, dtype=torch.bool, device=CUDA),
            has_cxr=torch.empty(count, dtype=torch.bool, device=CUDA),
            labels=torch.empty(count, labels, device=CUDA),
            row=real[2],
            gap_days=torch.empty(count, device=CUDA),
            triplets=Triplets(
                *(
                    torch.empty(2 * len(rows), dtype=t, device=CUDA)
                    for t in (torch.float32, torch.int64, None)
                ),
                first=first,
                counts=counts,
                end=torch.empty(count, device=CUDA),
            ),
        )


def backward(loss: Tensor, *_: object, **__: object) -> None:
    """Tensor.backward: walk the graph in Python, because the engine wants a real GPU for its streams."""
    root = loss.grad_fn
    assert root is not None
    waiting = _uses(root)
    gradients: dict[Any, dict[int, Tensor]] = {root: {0: torch.ones_like(loss)}}
    ready = [root]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            for gradient, (following, place) in zip(
                _apply(node, gradients.pop(node, {})), node.next_functions, strict=False
            ):
                if following is None:
                    continue
                if gradient is not None:
                    slots = gradients.setdefault(following, {})
                    gradient = gradient.sum_to_size(following._input_metadata[place].shape)
                    slots[place] = slots[place] + gradient if place in slots else gradient
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)


def _uses(root: Any) -> Counter[Any]:
    """Count the uses of each node's results."""
    uses: Counter[Any] = Counter()
    seen, stack = {root}, [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                uses[node] += 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    return uses


def _apply(node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a node's inputs; at a leaf, add to the leaf's own."""
    if type(node).__name__ == "AccumulateGrad":
        if given:
            weight = node.variable
            gradient = given[0].sum_to_size(weight.shape).to(weight.dtype)
            assert gradient.device == weight.device, f"{gradient.device} for a weight on {weight.device}"
            before = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = before + gradient
        return ()
    is_python = isinstance(node, torch.autograd.function.BackwardCFunction)
    gradients = []
    for place, meta in enumerate(node._input_metadata):
        gradient = given.get(place)
        if gradient is not None:
            assert gradient.device == meta.device, f"{node.name()}: {gradient.device} for {meta.device}"
            gradient = gradient.sum_to_size(meta.shape).to(meta.dtype)
        elif is_python:
            gradient = torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)
        gradients.append(gradient)
    if all(gradient is None for gradient in gradients):
        return (None,) * len(node.next_functions)
    results = node.apply(*gradients) if is_python else node(*gradients)
    results = results if isinstance(results, tuple) else (results,)
    if is_python and len(results) > len(node.next_functions):  # of arguments that are no tensors
        results = tuple(result for result in results if result is not None)
    return results


def gradients_within_a_step(loss: Tensor, inputs: list[Tensor], **_: object) -> list[Tensor]:
    """torch.autograd.grad, of smil's inner steps: only what it returns is as on a GPU, not its kernels."""
    return [torch.empty_like(x) + 0 * loss for x in inputs]


class Event:
    """torch.cuda.Event."""

    def record(self) -> None:
        """Nothing is queued."""

    def synchronize(self) -> None:
        """Nothing is awaited."""


@contextlib.contextmanager
def bf16_autocast() -> Iterator[None]:
    """torch.autocast("cuda", torch.bfloat16), which switches itself off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Act as a machine with a GPU. In the steps of training and validation, the host must not wait for it."""
    autocast, to, no_grad = torch.autocast, nn.Module.to, {}
    dispatch = Dispatch()

    def without_waits(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            dispatch.may_wait = False
            try:
                return step(*args)
            finally:
                dispatch.may_wait = True

        return run

    def fake_autocast(device_type: str, dtype: Any = None, enabled: bool = True, **more: Any) -> Any:
        is_fake = device_type == "cuda" and enabled
        return bf16_autocast() if is_fake else autocast(device_type, dtype, enabled, **more)

    def move(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        is_device = bool(args) and isinstance(args[0], str | torch.device)
        is_fake = is_device and torch.device(args[0]).type == "cuda"
        return to_fake(module) if is_fake else to(module, *args, **kwargs)

    def enter(mode: Any) -> None:  # fake tensors cannot enter the inference mode without a driver
        no_grad[mode] = torch.no_grad()
        no_grad[mode].__enter__()

    def leave(mode: Any, *error: Any) -> None:
        no_grad.pop(mode).__exit__(*error)

    numbers = StepMetrics(terminate=0, interrupt=0, save=0, rows=1, count=1, loss=1)
    replaced = [
        mock.patch.object(torch, "autocast", fake_autocast),
        mock.patch.object(torch.autograd.grad_mode.inference_mode, "__enter__", enter),
        mock.patch.object(torch.autograd.grad_mode.inference_mode, "__exit__", leave),
        mock.patch.object(_Trainer, "_train_step", without_waits(_Trainer._train_step)),
        mock.patch.object(_Trainer, "_val_step", without_waits(_Trainer._val_step)),
        mock.patch.object(torch.nn.modules.rnn, "_VF", Kernels()),
        mock.patch.object(torch.cuda, "Event", Event),
        mock.patch.object(torch.cuda, "manual_seed", lambda seed: None),
        mock.patch.object(torch.cuda, "mem_get_info", lambda device=None: (1 << 36, 1 << 36)),
        mock.patch.object(torch.cuda, "get_device_name", lambda device=None: "fake"),
        mock.patch.object(nn.Module, "to", move),
        mock.patch.object(Tensor, "backward", backward),
        mock.patch.object(torch.autograd, "grad", gradients_within_a_step),
        mock.patch.object(AsyncMetrics, "read_and_check_finite", lambda *_: numbers),
        mock.patch.object(MetricSums, "to_dict", lambda sums: dict.fromkeys(sums.names, 1.0)),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        for patch in replaced:
            stack.enter_context(patch)
        stack.enter_context(FAKE)
        stack.enter_context(dispatch)
        yield
