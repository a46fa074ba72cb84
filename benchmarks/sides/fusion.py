"""How exact a fused result is: packed Grams against full ones, and against LBFGS. Import after `import_comfyui`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from benchmarks.common.shared import say
from blocklora_core.concept.concept import BlockLoRA, Concept, Stack
from blocklora_core.concept.gram import Gram, Grams
from blocklora_core.concept.gram_sketch import GramAccumulator
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, all_rows, count
from blocklora_core.host.train.collect import CollectJob, collect
from blocklora_core.host.weights.names import model_stems, preferred_stems
from blocklora_core.merge.methods.fused import DAMPING, OWN_WEIGHT, fused
from blocklora_core.merge.methods.gradient_fusion import gradient_fusion
from demo.base import write_checkpoint

RANK = 4

Shapes = Mapping[str, tuple[int, int]]


def linears(model: Any, wanted: Callable[[str], bool]) -> dict[str, tuple[int, int]]:
    """Stem -> shape of the Linears whose weight's name is wanted."""
    weights, found = model.model.state_dict(), {}
    for name, stem in preferred_stems(model_stems(model)).items():
        if wanted(name) and name.endswith(".weight") and weights[name].ndim == 2:
            found[stem] = tuple(weights[name].shape)
    return found


@dataclass(frozen=True)
class Trial:
    """Fused results on the demo's trained base, 20 steps of 4 pictures for each of fifteen words.

    Its activations are those of a model that draws; random weights would flatter any packing. Each down is half a draw
    of the concept's own inputs, half noise, as training leaves it; ups have orthonormal columns, so that norms of downs
    are norms of changes. exact: stack with all eigenpairs; goal: fused from it.
    """

    exact: Stack
    goal: Stack

    @classmethod
    def make(cls, folder: Path, words: Sequence[str], job: CollectJob, wanted: Callable[[str], bool]) -> Trial:
        path = folder / "demo.safetensors"
        write_checkpoint(path)
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=[])
        shapes = linears(model, wanted)
        stack = tuple(zero_concept(word, shapes) for word in words)
        collected = collect(model, clip, stack, job).stack
        exact = tuple(trained(lora, number) for number, lora in enumerate(collected))
        return cls(exact, fused(exact))

    def packed(self, k: int) -> Stack:
        return tuple(replace(lora, grams=packed(lora.grams, k)) for lora in self.exact if lora.grams)

    def sketched(self, k: int) -> Stack:
        """What a collection keeps: eigenpairs of the streaming sketch in place of the whole Gram's."""
        return tuple(replace(lora, grams=sketched(lora.grams, k)) for lora in self.exact if lora.grams)

    def errors(self, result: Stack) -> dict[str, float]:
        """weights: of the change itself. outputs: of what it does to the concept's own inputs. leak: what it does to
        another's inputs, over what it does to its own. own: how far it is, on the concept's own inputs, from what was
        trained; the others look at the goal. All are ratios of root mean squares."""
        lost = trained = wrong = right = wrong_outputs = right_outputs = other = own = 0.0
        for number, name, gram in self._grams():
            goal, got = (stack[number].layers[name].down.double() for stack in (self.goal, result))
            wrong, right = wrong + energy(got - goal), right + energy(goal)
            wrong_outputs, right_outputs = wrong_outputs + energy(got - goal, gram), right_outputs + energy(goal, gram)
            own += energy(got, gram)
            before = self.exact[number].layers[name].down.double()
            lost, trained = lost + energy(got - before, gram), trained + energy(before, gram)
            others = [lora.grams.of(name) for at, lora in enumerate(self.exact) if at != number and lora.grams]
            other += sum(energy(got, foreign) for foreign in others) / len(others)
        pairs = {
            "weights": (wrong, right), "outputs": (wrong_outputs, right_outputs), "leak": (other, own),
            "own": (lost, trained),
        }  # fmt: skip
        return {name: round((top / bottom) ** 0.5, 4) for name, (top, bottom) in pairs.items()}

    def _grams(self) -> Iterator[tuple[int, str, Gram]]:
        for number, lora in enumerate(self.exact):
            if lora.grams:
                for name in lora.layers:
                    yield number, name, lora.grams.of(name)


def packed(grams: Grams, k: int) -> Grams:
    return Grams({key: Gram.compress(gram.dense(), k) for key, gram in grams.inputs.items()}, grams.input_of)


def sketched(grams: Grams, k: int) -> Grams:
    return Grams({key: of_sketch(gram.dense(), k) for key, gram in grams.inputs.items()}, grams.input_of)


def of_sketch(dense: Tensor, k: int) -> Gram:
    """As a collector gives it that has seen inputs of this Gram."""
    sketch = GramAccumulator(dense.shape[0], pairs=k)
    sketch.total.copy_(dense if sketch.omega is None else dense.float() @ sketch.omega)
    sketch.diagonal.copy_(dense.diagonal())
    sketch.rows = 1
    return sketch.gram(k)


def energy(change: Tensor, gram: Gram | None = None) -> float:
    """|change|^2, or the mean of |change x|^2 over the inputs of `gram`."""
    return float(((change if gram is None else gram.applied_to(change)) * change).sum())


def zero_concept(word: str, shapes: Shapes) -> BlockLoRA:
    """A plain LoRA of no effect that is called `word`."""
    layers = {
        stem: Layer(torch.zeros(out, RANK), torch.zeros(RANK, size), all_rows(out), out)
        for stem, (out, size) in shapes.items()
    }
    return BlockLoRA(Concept(word), layers)


def trained(lora: BlockLoRA, seed: int) -> BlockLoRA:
    random, layers = torch.Generator().manual_seed(seed), {}
    assert lora.grams is not None
    for name, layer in sorted(lora.layers.items()):
        gram = lora.grams.of(name)
        seen = torch.randn(RANK, gram.values.shape[0], generator=random) * gram.values.sqrt() @ gram.vectors.float().T
        noise = torch.randn(RANK, gram.size, generator=random)
        down = sum(part / part.norm(dim=1, keepdim=True) for part in (seen, noise))
        up = torch.linalg.qr(torch.randn(layer.out_features, RANK, generator=random)).Q
        layers[name] = Layer(up, down, layer.rows, layer.out_features)
    return lora.with_layers(layers)


def against_lbfgs() -> float:
    """Largest relative error of the closed forms against torch's LBFGS run to convergence, 4 concepts of 64 inputs.

    The objectives of `fused` and of `gradient_fusion`, each with its ridge, and the paper's own, which has none.
    """
    scheme, found = Scheme(slots=4), []
    blocks = [small_concept(number, scheme) for number in range(4)]
    plain = [small_concept(number, None) for number in range(4)]
    cases = (
        (blocks, fused, DAMPING, OWN_WEIGHT, lambda goals: [sum(goals)]),
        (plain, gradient_fusion, DAMPING, 1.0, list),
        (plain, gradient_fusion, 1e-10, 1.0, lambda _: []),
    )
    for stack, method, damping, weight, anchors in cases:
        closed = sum(lora.layers["x"].dense().double() for lora in method(tuple(stack), damping))
        found.append(float((closed - minimised(stack, damping, weight, anchors)).norm() / closed.norm()))
    say(f"against LBFGS: {', '.join(f'{error:.1e}' for error in found)}")
    return max(found)


def small_concept(number: int, scheme: Scheme | None) -> BlockLoRA:
    random, (m, n) = torch.Generator().manual_seed(number), (32, 64)
    rows = scheme.rows(number, m) if scheme else all_rows(m)
    x = torch.randn(n, n, generator=random).double() @ torch.randn(n, 400, generator=random).double()
    layer = Layer(
        torch.randn(count(rows), 3, generator=random).double(), torch.randn(3, n, generator=random).double(), rows, m
    )
    grams = Grams.from_full({"x": x @ x.T / 400 / n}, {"x": "x"}, n)
    return BlockLoRA(Concept(f"<c{number}>"), {"x": layer}, scheme, number if scheme else None, grams=grams)


def minimised(
    stack: Sequence[BlockLoRA], damping: float, weight: float, anchors: Callable[[list[Tensor]], list[Tensor]]
) -> Tensor:
    """argmin_D sum_i |(goal_i - D) X_i|^2 + delta * mean_j |anchor_j - D|^2; rows that belong to concept i count
    `weight` times on X_i."""
    goals = [lora.layers["x"].dense().double() for lora in stack]
    grams = [lora.grams.of("x").dense() for lora in stack if lora.grams]
    counted = [torch.where(goal.any(1, keepdim=True), weight, 1.0) for goal in goals]
    held = anchors(goals)
    delta = damping * float(sum(gram.diagonal().mean() for gram in grams)) if held else 0.0
    change = torch.zeros_like(goals[0], requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [change], max_iter=5000, max_eval=10000, history_size=100, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimiser.zero_grad()
        apart = [goal - change for goal in goals]
        value = sum((((one @ gram) * one) * rows).sum() for one, gram, rows in zip(apart, grams, counted, strict=True))
        value = value + sum((delta / len(held) * (anchor - change).square().sum() for anchor in held), torch.zeros(()))
        value.backward()
        return value

    optimiser.step(loss)
    return change.detach()
