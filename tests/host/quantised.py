"""Quantised bases: the host's own formats, and Linears that keep packed bytes, as packs for GGUF have them."""

from __future__ import annotations

import json
from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.quant_ops
import comfy.supported_models as supported
import torch
from torch import nn

from tests.host.architectures import ARCHITECTURES, CPU, build
from tests.host.dynamic import patcher_of, with_weights

_MANY = hasattr(comfy.ops, "_load_quantized_module")
FORMATS = ["float8_e4m3fn", *(["float8_e5m2", "int8_tensorwise", "mxfp8", "nvfp4"] if _MANY else [])]
"""Those of the host's formats that it computes with on a CPU."""


@with_weights()
def quantised(name: str, kind: str) -> Any:
    """A MODEL of architecture `name` whose Linears are all of `kind`, as the host loads them from a checkpoint."""
    plain = build(name).model.diffusion_model
    state, layers = dict(plain.state_dict()), {}
    for at, module in plain.named_modules():
        if isinstance(module, nn.Linear):
            layers[at] = {"format": kind}
            state |= _stored(at, state.pop(f"{at}.weight"), kind)
    architecture, settings, *_ = ARCHITECTURES[name]
    config = getattr(supported, architecture)(dict(settings))
    config.set_inference_dtype(torch.float32, torch.float32)
    config.layer_quant_config, config.quant_config = layers, {"mixed_ops": True}
    model = config.get_model({}, "", device=CPU)
    model.diffusion_model.load_state_dict(state, strict=False)
    model.requires_grad_(False).eval()
    return patcher_of(model)


def _stored(at: str, weight: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    if not _MANY:
        scale = (weight.abs().max() / 448).float()
        return {f"{at}.weight": (weight / scale).to(torch.float8_e4m3fn), f"{at}.weight_scale": scale}
    layout = comfy.quant_ops.QUANT_ALGOS[kind]["comfy_tensor_layout"]
    made = comfy.quant_ops.QuantizedTensor.from_float(weight, layout, scale="recalculate")
    said = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    return {**made.state_dict(f"{at}.weight"), f"{at}.comfy_quant": said}


class PackedLinear(nn.Module):
    """A Linear whose weight is (m, bytes of a row): n of int8, then the row's scale in float32."""

    def __init__(self, plain: nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = plain.in_features, plain.out_features, plain.bias
        weight = plain.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True) / 127
        packed = torch.cat([(weight / scale).round().to(torch.int8).view(torch.uint8), scale.view(torch.uint8)], 1)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers, scale = self.weight.split([self.in_features, 4], 1)
        weight = numbers.contiguous().view(torch.int8).to(x) * scale.contiguous().view(torch.float32).to(x)
        return nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x))


def packed(name: str) -> Any:
    """A MODEL whose Linears are packed: those in its blocks, as the host looks at the shapes of some of the others."""
    model = build(name)
    for path, module in list(model.model.diffusion_model.named_modules()):
        for at, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and "block" in path:
                setattr(module, at, PackedLinear(child))
    return model
