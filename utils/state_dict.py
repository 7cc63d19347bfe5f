"""Weights from elsewhere: a state dict in a file of PyTorch or of safetensors, read without pickle."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # settings look at names of files, and need no torch
    from torch import Tensor

EXTERNAL = "external"  # the objective of such weights in tables
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")  # our own checkpoints end in .ckpt
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "module",
)  # keys under which training programs keep state dicts
DTYPES = {  # names of safetensors and of torch
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def is_state_dict_file(path: Path | str) -> bool:
    """Return whether a file is, by its name, weights from elsewhere and no checkpoint of ours."""
    return Path(path).suffix.lower() in SUFFIXES


def check_weights_file(path: str, cure: str) -> None:
    """Raise ValueError if --cxr_weights is given, and is by its name no file of weights from elsewhere."""
    if path and not is_state_dict_file(path):
        raise ValueError(f"--cxr_weights {path}: takes files that end in {', '.join(SUFFIXES)}; {cure}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state dict by name.

    A .safetensors file is read as its format says (https://github.com/huggingface/safetensors), any other by
    torch.load with weights_only=True. A state dict that a training program has put under one of the keys
    WRAPPERS is found.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds pickled code, no state dict, or a number that is not finite.
    """
    from torch import Tensor

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    content: Any = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    is_mapping = isinstance(content, dict) and len(content) > 0
    if not is_mapping or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path}: holds no state dict, a tensor for each name; save one with torch.save")
    if wrong := [name for name, tensor in content.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{path}: {wrong[0]} has numbers that are not finite; use another file")
    return dict(content)


def _read_torch(path: Path) -> object:
    import torch

    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        cure = "save a state_dict() with torch.save, or as safetensors"
        raise ValueError(f"{path}: refused, as it holds more than tensors, and is not run; {cure}") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises all kinds of errors on damaged bytes
        raise ValueError(f"{path}: damaged, or no file of torch.save; copy it again") from error
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read 8 bytes with the length of a JSON header, the header, and the tensors that it lists."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:end])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _tensor(data, end, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise ValueError(f"{path}: damaged, or no safetensors file; copy it again") from None


def _tensor(data: bytes, end_of_header: int, entry: dict[str, Any]) -> Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[entry["dtype"]])
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    part = bytearray(data[end_of_header + begin : end_of_header + end])
    if len(part) != math.prod(shape) * dtype.itemsize:
        raise ValueError("a tensor has another size than its shape says")
    return torch.frombuffer(part, dtype=dtype).reshape(shape) if part else torch.empty(shape, dtype=dtype)
