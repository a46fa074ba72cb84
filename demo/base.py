"""The base model's file formats: one ComfyUI checkpoint, and the small committed form it is built from."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from demo.text_encoder import text_encoder_state

# ComfyUI takes a checkpoint for SD1.5 only if the first convolution has 320 channels, and every level's width is a
# whole multiple of that. Twice as many on the lower level would be 100M parameters, so both levels have 320 and the
# lower one, where a step costs a quarter, has more blocks and all the attention.
UNET_CONFIG: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 2],
    "channel_mult": [1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 0],
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}
UNET, VAE = "model.diffusion_model.", "first_stage_model."
WEIGHTS = Path(__file__).parent / "weights" / "people.int8.xz"


def _quantise(tensor: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(int8 values, fp16 scale per row); small tensors keep fp16 values and an empty scale."""
    array = tensor.detach().float().cpu().numpy()
    if array.ndim < 2 or array.size < 4096:
        return array.astype(np.float16), np.zeros(0, np.float16)
    rows = array.reshape(array.shape[0], -1)
    scale = (np.abs(rows).max(1, keepdims=True) / 127).clip(1e-7).astype(np.float16)
    return np.rint(rows / scale.astype(np.float32)).clip(-127, 127).astype(np.int8).reshape(array.shape), scale[:, 0]


def _restore(values: np.ndarray, scale: np.ndarray) -> torch.Tensor:
    array = values.astype(np.float32)
    if scale.size:
        array *= scale.astype(np.float32).reshape(-1, *([1] * (array.ndim - 1)))
    return torch.from_numpy(array).half()


def write_weights(state: dict[str, torch.Tensor], path: Path = WEIGHTS) -> None:
    """Store UNet and VAE as int8 rows with fp16 scales: a JSON index line, then the arrays, xz-compressed."""
    index, chunks = {}, []
    for name in sorted(state):
        values, scale = _quantise(state[name])
        index[name] = {"shape": list(values.shape), "dtype": values.dtype.name, "rows": int(scale.size)}
        chunks += [values.tobytes(), scale.tobytes()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with lzma.open(partial, "wb", preset=6) as file:
        file.write(json.dumps(index).encode() + b"\n" + b"".join(chunks))
    partial.replace(path)


def read_weights(path: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    with lzma.open(path, "rb") as file:
        header, body = file.read().split(b"\n", 1)
    state, at = {}, 0
    for name, entry in json.loads(header).items():
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(body, np.dtype(entry["dtype"]), count, at).reshape(entry["shape"])
        at += values.nbytes
        scale = np.frombuffer(body, np.float16, entry["rows"], at)
        at += scale.nbytes
        state[name] = _restore(values, scale)
    return state


def write_checkpoint(path: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the checkpoint that CheckpointLoaderSimple loads: UNet, VAE and the generated text encoder, fp16."""
    tensors = {name: tensor.half().contiguous() for name, tensor in (state or read_weights()).items()}
    tensors |= text_encoder_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(tensors, str(partial), metadata={"modelspec.title": "BlockLoRA demo base"})
    partial.replace(path)
