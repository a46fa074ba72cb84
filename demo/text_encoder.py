"""The demo's text encoder: CLIP-L's shape, made from a fixed random stream instead of a download.

One attention layer does the work: four shifts look one to four tokens back, so that a word knows its neighbours,
and four averaging heads let every later position know the whole prompt. The remaining layers and all
feed-forward parts add nothing. Token vectors have the spread of the real CLIP-L's (0.0137), so that published
settings for concept embeddings carry over.
"""

from __future__ import annotations

import numpy as np
import torch

VOCABULARY, WIDTH, POSITIONS, LAYERS, HEADS = 49408, 768, 77, 12, 12
HEAD = WIDTH // HEADS
TOKEN_SPREAD = 0.0137
POSITION_DIMENSIONS = 64
PREFIX = "cond_stage_model.transformer.text_model."
SHIFTS = (1, 1, 2, 2, 3, 3, 4, 4)


def _uniform(rng: np.random.RandomState, shape: tuple[int, ...], spread: float) -> np.ndarray:
    """Uniform numbers with standard deviation `spread`; exact on every platform, unlike normal ones."""
    return ((rng.random_sample(shape) * 2 - 1) * spread * 3**0.5).astype(np.float32)


def _frequencies() -> np.ndarray:
    return 1.0 / 4.0 ** (np.arange(POSITION_DIMENSIONS // 2) / (POSITION_DIMENSIONS // 2) * 2)


def _positions() -> np.ndarray:
    angles = np.arange(POSITIONS)[:, None] * _frequencies()[None]
    table = np.zeros((POSITIONS, WIDTH), np.float32)
    table[:, 0:POSITION_DIMENSIONS:2] = np.cos(angles)
    table[:, 1:POSITION_DIMENSIONS:2] = np.sin(angles)
    return table * TOKEN_SPREAD * 2


def _shift_query(shift: int) -> np.ndarray:
    """(HEAD, WIDTH): turns a position's code into that of the position `shift` earlier."""
    query = np.zeros((HEAD, WIDTH), np.float32)
    for i, frequency in enumerate(_frequencies()):
        c, s = np.cos(shift * frequency), np.sin(shift * frequency)
        query[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
    return query * 2.0


def _attention(rng: np.random.RandomState) -> dict[str, np.ndarray]:
    query, key = np.zeros((WIDTH, WIDTH), np.float32), np.zeros((WIDTH, WIDTH), np.float32)
    identity = np.zeros((HEAD, WIDTH), np.float32)
    identity[np.arange(POSITION_DIMENSIONS), np.arange(POSITION_DIMENSIONS)] = 1.0
    for head, shift in enumerate(SHIFTS):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        query[rows], key[rows] = _shift_query(shift), identity
    value = _uniform(rng, (WIDTH, WIDTH), WIDTH**-0.5)
    value[:, :POSITION_DIMENSIONS] = 0.0
    out = _uniform(rng, (WIDTH, WIDTH), WIDTH**-0.5 * TOKEN_SPREAD * 0.8)
    return {"q_proj": query, "k_proj": key, "v_proj": value, "out_proj": out}


def _layer(attention: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    zeros = np.zeros(WIDTH, np.float32)
    tensors = {f"self_attn.{name}.weight": weight for name, weight in attention.items()}
    tensors |= {f"self_attn.{name}.bias": zeros for name in attention}
    for norm in ("layer_norm1", "layer_norm2"):
        tensors |= {f"{norm}.weight": np.ones(WIDTH, np.float32), f"{norm}.bias": zeros}
    tensors |= {
        "mlp.fc1.weight": np.zeros((4 * WIDTH, WIDTH), np.float32),
        "mlp.fc1.bias": np.zeros(4 * WIDTH, np.float32),
    }
    tensors |= {"mlp.fc2.weight": np.zeros((WIDTH, 4 * WIDTH), np.float32), "mlp.fc2.bias": zeros}
    return tensors


def text_encoder_state(seed: int = 768) -> dict[str, torch.Tensor]:
    """The whole encoder under its SD1.5 checkpoint names, fp16."""
    rng = np.random.RandomState(seed)
    tokens = _uniform(rng, (VOCABULARY, WIDTH), TOKEN_SPREAD)
    tokens[:, :POSITION_DIMENSIONS] = 0.0
    working = _attention(rng)
    idle = {name: np.zeros((WIDTH, WIDTH), np.float32) for name in working}
    state = {
        "embeddings.token_embedding.weight": tokens,
        "embeddings.position_embedding.weight": _positions(),
    }
    for number in range(LAYERS):
        for name, tensor in _layer(working if number == 0 else idle).items():
            state[f"encoder.layers.{number}.{name}"] = tensor
    state |= {
        "final_layer_norm.weight": np.ones(WIDTH, np.float32),
        "final_layer_norm.bias": np.zeros(WIDTH, np.float32),
    }
    return {PREFIX + name: torch.from_numpy(tensor).half() for name, tensor in state.items()}


class FastTextEncoder:
    """The same function without the idle layers: (B, 77) token ids -> (B, 77, 768) features."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = {name.removeprefix(PREFIX): tensor.float() for name, tensor in state.items()}

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        state, norm = self.state, torch.nn.functional.layer_norm
        x = state["embeddings.token_embedding.weight"][ids] + state["embeddings.position_embedding.weight"]
        normed = norm(x, (WIDTH,))
        q, k, v = (
            (normed @ state[f"encoder.layers.0.self_attn.{name}.weight"].T).unflatten(-1, (HEADS, HEAD)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).flatten(2)
        x = x + mixed @ state["encoder.layers.0.self_attn.out_proj.weight"].T
        return norm(x, (WIDTH,))
