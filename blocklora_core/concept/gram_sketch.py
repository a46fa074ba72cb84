"""Grams collected as they come, in memory that grows with the width of an input and not with its square."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch
from torch import Tensor

from .gram import EIGENPAIRS, Gram

# For up to so many eigenpairs. On the demo's inputs that loses nothing to the whole Gram's best 96: own error .087 for
# both.
COLUMNS, PAIRS = 160, 96

_OMEGAS: WeakValueDictionary[tuple[int, int, str], Tensor] = WeakValueDictionary()


class GramAccumulator:
    """Collects the mean Gram G of an input of `size` features in float32: Y = G Omega (n, s), for a random Omega, and
    the exact diagonal; narrow inputs whole.

    (Tropp et al., Fixed-rank approximation of a positive-semidefinite matrix from streaming data, arXiv 1706.05736,
    algorithm 3.)
    """

    def __init__(self, size: int, device: torch.device | str | None = None, pairs: int = EIGENPAIRS) -> None:
        """pairs: how many eigenpairs will be asked for at most; more of them take a wider sketch."""
        columns = COLUMNS * max(pairs, PAIRS) // PAIRS
        self.rows = 0
        self.omega = _omega(size, columns, device) if size > 2 * columns else None
        self.total = torch.zeros(size, size if self.omega is None else columns, dtype=torch.float32, device=device)
        self.diagonal = torch.zeros(size, dtype=torch.float32, device=device)

    @property
    def size(self) -> int:
        return self.diagonal.shape[0]

    def add(self, x: Tensor) -> None:
        """Adds every vector of `x` (..., n). ValueError when n is another."""
        if x.ndim < 1 or x.shape[-1] != self.size:
            raise ValueError(f"Gram: expected inputs of {self.size} features, got {tuple(x.shape)}.")
        flat = x.detach().reshape(-1, x.shape[-1]).to(self.total)
        self.total += flat.T @ (flat if self.omega is None else flat @ self.omega)
        self.diagonal += flat.square().sum(0)
        self.rows += flat.shape[0]

    def mean(self) -> Tensor:
        """G Omega (n, s), or G (n, n) of a narrow input. ValueError before any input came."""
        if self.rows == 0:
            raise ValueError("Gram: expected at least one input, got none. Run the model before asking.")
        return self.total / self.rows

    def gram(self, k: int = EIGENPAIRS) -> Gram:
        """The mean Gram's leading `k` eigenpairs, at most `pairs`, and the diagonal of the rest.

        ValueError for input that is not finite.
        """
        mean = self.mean()
        if self.omega is None:
            return Gram.compress(mean, k)
        if not bool(mean.isfinite().all()):
            raise ValueError("Gram: expected finite numbers, got NaN or infinity. Did the training diverge?")
        values, vectors = _nystroem(_exact(mean), _exact(self.omega), k)
        return Gram.of_pairs(values, vectors, _exact(self.diagonal) / self.rows)


def _omega(size: int, columns: int, device: torch.device | str | None) -> Tensor:
    """One for all sketches of that size, as it is as large as a sketch; it goes with the last of them."""
    key = (size, columns, str(torch.device(device or "cpu")))
    omega = _OMEGAS.get(key)
    if omega is None:
        omega = torch.randn(size, columns, generator=torch.Generator().manual_seed(size)).to(device or "cpu")
        _OMEGAS[key] = omega
    return omega


def _exact(tensor: Tensor) -> Tensor:
    # Apple's GPUs have neither float64 nor these decompositions.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _nystroem(sketch: Tensor, omega: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The top `k` eigenvalues of G, descending, and their vectors, from G omega."""
    basis, r = torch.linalg.qr(omega)
    # The sketch of the orthonormal basis, moved by a shift that keeps the Cholesky factor real.
    sketch = torch.linalg.solve_triangular(r, sketch, upper=True, left=False)
    shift = sketch.shape[0] ** 0.5 * torch.finfo(torch.float32).eps * torch.linalg.matrix_norm(sketch)
    moved = sketch + shift.clamp(min=torch.finfo(torch.float32).tiny) * basis
    core = basis.T @ moved
    factor = torch.linalg.cholesky((core + core.T) / 2)
    root = torch.linalg.solve_triangular(factor, moved.T, upper=False)
    vectors, singular, _ = torch.linalg.svd(root.T, full_matrices=False)
    return (singular.square() - shift).clamp(min=0)[:k], vectors[:, :k]
