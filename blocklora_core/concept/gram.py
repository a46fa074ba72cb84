"""Grams: the fingerprint of the inputs that a concept's layers see, and its packed form in a file.

The Gram of an input is G = X X^T / columns, (n, n), for the input features X of that layer. The `fused`
merge solves with the sum of all concepts' Grams, so each file carries its own: the leading eigenpairs plus
the exact diagonal of the rest. The rest must stay, or the inverse blows up where the sum has lost its energy; and
every use must be of the packed form, or the two sides of the solve disagree and blow up just the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..cancel import patiently

EIGENPAIRS = 48

# Eigenvectors have entries within [-1, 1], where float16 is safe; whatever has a scale stays float32.
SCALES = torch.float32

# Above this many features the leading eigenpairs are found by iteration.
_LARGE, _SPARE, _ITERATIONS = 512, 16, 4


@dataclass(frozen=True, eq=False)
class Gram:
    """G ~= vectors @ diag(values) @ vectors.T + diag(diagonal): (n, n), positive semi-definite.

    vectors (n, k), orthonormal columns; values (k,) and diagonal (n,), not negative. Raises ValueError
    otherwise.
    """

    vectors: Tensor
    values: Tensor
    diagonal: Tensor

    def __post_init__(self) -> None:
        n, k = self.vectors.shape if self.vectors.ndim == 2 else (-1, -1)
        if tuple(self.values.shape) != (k,) or tuple(self.diagonal.shape) != (n,):
            shapes = [tuple(t.shape) for t in (self.vectors, self.values, self.diagonal)]
            raise ValueError(f"Gram: expected shapes (n, k), (k,) and (n,), got {shapes}.")
        if not all(bool(t.isfinite().all()) for t in (self.vectors, self.values, self.diagonal)):
            raise ValueError("Gram: expected finite numbers, got NaN or infinity.")
        if bool((self.values < 0).any()) or bool((self.diagonal < 0).any()):
            raise ValueError("Gram: expected no negative energy, got some.")

    @classmethod
    def compress(cls, full: Tensor, k: int = EIGENPAIRS) -> Gram:
        """The top `k` eigenpairs of `full` (n, n) and the diagonal of the remainder; exact when k >= n.

        Trace and diagonal of `full` are kept. Computed where `full` is; the Gram comes on the CPU. ValueError unless
        `full` is symmetric and finite.
        """
        full = _symmetric(full)
        k = min(max(k, 0), full.shape[0])
        values, vectors = _leading(full, k)
        return cls.of_pairs(values, vectors, full.diagonal(), whole=k == full.shape[0])

    @classmethod
    def of_pairs(cls, values: Tensor, vectors: Tensor, diagonal: Tensor, whole: bool = False) -> Gram:
        """From eigenpairs in float64, (k,) and (n, k), and the matrix's own diagonal (n,). whole: they are it all."""
        # Rounded before the remainder is taken, so that the remainder makes up for the rounding.
        vectors = vectors.to(torch.float32 if whole else torch.float16)
        kept = (vectors.double().square() * values).sum(1)
        rest = (diagonal - kept).clamp(min=0)
        return cls(vectors.cpu(), values.to("cpu", SCALES), rest.to("cpu", SCALES))

    @classmethod
    def silent(cls, size: int) -> Gram:
        """Of no input at all: of a layer that nobody asks."""
        none = torch.zeros(size, 0, dtype=torch.float16)
        return cls(none, torch.zeros(0, dtype=SCALES), torch.zeros(size, dtype=SCALES))

    @property
    def size(self) -> int:
        """n."""
        return self.vectors.shape[0]

    @property
    def trace(self) -> float:
        """Energy of the input: the mean of |x|^2."""
        norms = self.vectors.double().square().sum(0)
        return float((norms * self.values.double()).sum() + self.diagonal.double().sum())

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The (n, n) matrix."""
        vectors = self.vectors.to(dtype)
        return (vectors * self.values.to(dtype)) @ vectors.T + self.diagonal.to(dtype).diag()

    def applied_to(self, x: Tensor) -> Tensor:
        """x @ G for x (r, n), in its dtype, without the (n, n) matrix."""
        vectors = self.vectors.to(x)
        return (x @ vectors * self.values.to(x)) @ vectors.T + x * self.diagonal.to(x)


@dataclass(frozen=True, eq=False)
class Grams:
    """A concept's Grams.

    inputs: by input id. input_of: layer name -> input id; layers that read the same input share one Gram
        (q, k, v).
    Raises ValueError when these disagree.
    """

    inputs: Mapping[str, Gram]
    input_of: Mapping[str, str]

    def __post_init__(self) -> None:
        for name, key in self.input_of.items():
            if key not in self.inputs:
                raise ValueError(f"Grams: expected a Gram for the input {key!r} of {name}, got none.")

    @classmethod
    def from_full(
        cls,
        full: Mapping[str, Tensor],
        input_of: Mapping[str, str],
        k: int = EIGENPAIRS,
    ) -> Grams:
        """From full Grams by input id, (n, n). Inputs that no layer reads are dropped."""
        keys = sorted(set(input_of.values()))
        grams = {key: patiently(partial(Gram.compress, full[key], k), 10.0 * full[key].shape[0] ** 3) for key in keys}
        return cls(grams, dict(input_of))

    def covers(self, names: Iterable[str]) -> bool:
        """Whether every layer in `names` has its Gram."""
        return all(name in self.input_of for name in names)

    def of(self, name: str) -> Gram:
        """The Gram of the input of layer `name`; KeyError when it has none."""
        return self.inputs[self.input_of[name]]

    def renamed(self, names: Mapping[str, str]) -> Grams:
        """The same Grams for layers renamed old -> new; names that `names` leaves out stay."""
        input_of = {names.get(name, name): key for name, key in self.input_of.items()}
        return Grams(self.inputs, input_of)


def _leading(full: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The top `k` eigenvalues, descending and not negative, and their eigenvectors (n, k)."""
    if k == 0:
        return full.new_zeros(0), full.new_zeros(full.shape[0], 0)
    if full.shape[0] <= _LARGE or 4 * k > full.shape[0]:
        values, vectors = torch.linalg.eigh(full)
    else:
        values, vectors = _iterated(full, k + _SPARE)
    return values[-k:].flip(0).clamp(min=0), vectors[:, -k:].flip(1)


def _iterated(full: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """About the top `size` eigenpairs, ascending, by subspace iteration (Halko et al., arXiv 0909.4061, section 4.5).

    A whole decomposition of a feed-forward input, 5120 wide in SD1.5, takes minutes on a CPU. What these vectors miss
    is in the diagonal of the remainder.
    """
    start = torch.randn(full.shape[0], size, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(full @ start.to(full)).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(full @ basis).Q
    values, rotation = torch.linalg.eigh(basis.T @ full @ basis)
    return values, basis @ rotation


def _symmetric(full: Tensor) -> Tensor:
    if full.ndim != 2 or full.shape[0] != full.shape[1] or full.shape[0] == 0:
        raise ValueError(f"Gram: expected a square matrix, got {tuple(full.shape)}.")
    full = full.detach()
    # Apple's GPUs have neither float64 nor these decompositions.
    full = (full.cpu() if full.device.type == "mps" else full).double()
    if not bool(full.isfinite().all()):
        raise ValueError("Gram: expected finite numbers, got NaN or infinity. Did the training diverge?")
    tolerance = 1e-4 * float(full.abs().max())
    if not torch.allclose(full, full.T, rtol=1e-3, atol=tolerance):
        raise ValueError("Gram: expected a symmetric matrix, got another.")
    return (full + full.T) / 2
