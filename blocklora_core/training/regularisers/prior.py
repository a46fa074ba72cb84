"""Prior preservation (DreamBooth, Ruiz et al. 2023, section 3.2): the class stays what the frozen model makes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..port import Conditioning, Port
from ..sampling import euler


class ClassPictures:
    """Latents that the frozen model makes of the class word: the prior. Make it while the adapters are silent."""

    def __init__(self, port: Port, class_word: str, latents: Tensor, prompt: Conditioning):
        self.port, self.latents, self.prompt, self.text = port, latents, prompt, _prompt(class_word)

    @classmethod
    @torch.no_grad()
    def sample(
        cls,
        port: Port,
        class_word: str,
        count: int,
        *,
        shape: torch.Size,
        steps: int,
        cfg: float,
        generator: torch.Generator,
    ) -> ClassPictures:
        """`count` pictures of latents' `shape` (C, H, W). ValueError without a class word."""
        if not class_word:
            raise ValueError("Prior preservation: expected a class word, such as man, got none. Set it in Train.")
        prompt, negative = port.encode(_prompt(class_word), "", {}), port.encode("", "", {})
        # One at a time: no more memory than a training step of one picture.
        made = []
        for _ in range(count):
            noise = torch.randn((1, *shape), generator=generator).to(port.device)
            made.append(euler(port, noise, prompt, steps=steps, cfg=cfg, negative=negative).cpu())
        return cls(port, class_word, torch.cat(made), prompt)

    def pick(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` of them, at random: (count, C, H, W)."""
        return self.latents[torch.randint(len(self.latents), (count,), generator=generator)]

    def encode(self, count: int, live: bool) -> Conditioning:
        """Their prompt, `count` times: by the frozen text encoder, or by the one as it is now when it is `live`."""
        prompt = self.port.encode(self.text, "", {}) if live else self.prompt
        return prompt.pick([0] * count)


def _prompt(class_word: str) -> str:
    return f"a {class_word}"
