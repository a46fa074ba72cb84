"""How much the loss of each noise level counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from .port import Port

Weighting = Callable[[Port, Tensor, float], Tensor]
"""(port, sigma (B,), gamma) -> (B,): factor of the squared error of the clean estimate."""


def _plain(port: Port, sigma: Tensor, _gamma: float) -> Tensor:
    """Every error in units of the model's own output, as the model was trained: SNR for noise prediction."""
    return port.loss_scale(sigma).square()


def _min_snr(port: Port, sigma: Tensor, gamma: float) -> Tensor:
    """Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556): the clean estimate's error counts min(SNR, gamma).

    Written for the clean estimate the rule is the same for every objective. In terms of the model's own output it is
    the paper's min(SNR, gamma) / SNR for noise and min(SNR, gamma) / (SNR + 1) for v.
    """
    return port.snr(sigma).clamp(max=gamma)


WEIGHTINGS: Mapping[str, Weighting] = {"plain": _plain, "min_snr": _min_snr}
