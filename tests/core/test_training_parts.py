"""What stands around the loss: schedules, optimisers, accumulation, clipping, averages, weighting."""

from __future__ import annotations

import dataclasses
import importlib
import math
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from blocklora_core.concept.concept import Concept
from blocklora_core.concept.names import Names
from blocklora_core.training import Dataset, Example, Progress, TrainConfig, Trainer, TrainSettings
from blocklora_core.training.optimisation.ema import Ema, warmed
from blocklora_core.training.optimisation.learner import Learner
from blocklora_core.training.optimisation.optimizers import OPTIMIZERS, Group, MissingOptimizerError
from blocklora_core.training.optimisation.schedules import SCHEDULES, factor
from blocklora_core.training.port import Conditioning
from blocklora_core.training.prompts import Negatives, make_token
from blocklora_core.training.regularisers.attention import _scaled
from blocklora_core.training.terms import Term, term_losses
from blocklora_core.training.weighting import WEIGHTINGS
from tests.core.fake_port import CHANNELS, SIDE, FakePort

CONFIG = TrainConfig.of(steps=20, batch_size=4, rank=2, learning_rate=0.02, preview_every=0, niche_weight=0.0)
SCHEDULE = st.sampled_from(list(SCHEDULES))
IN_FILES_OF_0_1 = """
steps batch_size rank learning_rate embedding_learning_rate text_learning_rate token embedding_share
weight_decay embedding_norm_limit erasure niche_weight niche_share niche_negatives niche_class_word
niche_captions prior_pictures prior_weight prior_share attention_weight noise_offset captions gram_pictures
gram_steps preview_every preview_steps preview_cfg sample_prompt optimizer scheduler warmup_steps
scheduler_cycles accumulation max_grad_norm ema_decay weighting snr_gamma save_every seed scheme slot
orthogonal
"""


def trainer(config: TrainConfig = CONFIG) -> Trainer:
    random = torch.Generator().manual_seed(7)
    examples = [Example(torch.randn(CHANNELS, SIDE, SIDE, generator=random) * 0.1 + 1, "a <hero>") for _ in range(8)]
    return Trainer(FakePort(), Dataset(examples, config.batch_size), Concept("<hero>", "man"), config)


def learner(**changes: Any) -> tuple[Learner, nn.Parameter, nn.Parameter]:
    adapter, token = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((2,), 2.0))
    config = CONFIG.changed(**changes)
    groups = [Group([adapter], config.optimizer.learning_rate), Group([token], config.token.learning_rate)]
    return Learner(groups, config), adapter, token


@st.composite
def plans(draw: st.DrawFn) -> dict[str, int]:
    """Steps, warm-up and cycles that go together."""
    steps = draw(st.integers(1, 5000))
    return {
        "steps": steps,
        "warmup_steps": draw(st.integers(0, steps - 1)),
        "cycles": draw(st.integers(1, 9)),
    }


@given(SCHEDULE, plans(), st.data())
def test_factors_are_between_0_and_1(name: str, plan: dict[str, int], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, plan["steps"]))
    assert 0 <= factor(name, step, **plan) <= 1


@given(SCHEDULE, plans())
def test_warm_up_climbs_evenly_and_meets_the_shape_at_its_top(name: str, plan: dict[str, int]) -> None:
    warmup = plan["warmup_steps"]
    climb = [factor(name, step, **plan) for step in range(warmup + 1)]
    assert climb[-1] == 1 and climb[0] > 0
    assert all(math.isclose(b - a, 1 / (warmup + 1), abs_tol=1e-12) for a, b in pairwise(climb))


@given(SCHEDULE, plans())
def test_all_but_constant_end_at_zero(name: str, plan: dict[str, int]) -> None:
    assert factor(name, plan["steps"], **plan) == (1 if name == "constant" else pytest.approx(0, abs=1e-12))


@given(st.integers(1, 9), st.integers(1, 50))
def test_restarts_repeat_one_cosine(cycles: int, length: int) -> None:
    steps = cycles * length
    for step in range(steps):
        expected = factor("cosine", step % length, length)
        assert factor("cosine_restarts", step, steps, 0, cycles) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 100000), st.data())
def test_linear_without_warm_up_is_the_plain_decay(steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps))
    assert factor("linear", step, steps) == 1 - step / steps


def test_rates_follow_the_schedule_in_both_groups() -> None:
    part, adapter, token = learner(scheduler="cosine", warmup_steps=2, steps=6, embedding_learning_rate=0.5)
    for step in range(6):
        adapter.grad, token.grad = torch.ones(3), torch.ones(2)
        part.step(step)
        scale = factor("cosine", step, 6, 2)
        assert [group["lr"] for group in part.optimizer.param_groups] == [0.02 * scale, 0.5 * scale]


def test_the_default_optimizer_is_adamw_with_linear_decay() -> None:
    part, adapter, _ = learner(steps=9)
    twin = nn.Parameter(adapter.detach().clone())
    plain = torch.optim.AdamW([twin], lr=CONFIG.optimizer.learning_rate, weight_decay=CONFIG.optimizer.weight_decay)
    decay = torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1 - step / 9)
    for step in range(9):
        adapter.grad = torch.tensor([1.0, -2.0, 0.1 * step])
        twin.grad = adapter.grad.clone()
        part.step(step)
        plain.step()
        decay.step()
    assert torch.equal(adapter, twin)


@pytest.mark.parametrize("name", [name for name, kind in OPTIMIZERS.items() if kind.package])
def test_a_missing_package_is_named_with_the_way_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named '{module}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingOptimizerError, match=rf"pip install {OPTIMIZERS[name].package}.*choose adamw"):
        learner(optimizer=name, scheduler="constant", embedding_learning_rate=CONFIG.optimizer.learning_rate)


@pytest.mark.parametrize("name", ["prodigy", "schedulefree"])
def test_optional_optimizers_learn_when_installed(name: str) -> None:
    pytest.importorskip(OPTIMIZERS[name].module)
    # Prodigy finds the rate itself and takes its first hundred steps or so to do it.
    rate, steps = (1.0, 200) if name == "prodigy" else (0.05, 80)
    config = CONFIG.changed(
        steps=steps, optimizer=name, scheduler="constant", learning_rate=rate, embedding_learning_rate=rate
    )
    run = trainer(config)
    run.run(lambda _: None)
    idle = trainer(config.changed(optimizer="adamw", learning_rate=0.0, embedding_learning_rate=0.0))
    idle.run(lambda _: None)
    assert sum(run.losses[-20:]) < 0.9 * sum(idle.losses[-20:])


def test_schedulefree_shows_its_average_and_learns_on_as_before() -> None:
    pytest.importorskip("schedulefree")
    part, adapter, token = learner(optimizer="schedulefree", scheduler="constant")
    for step in range(5):
        adapter.grad, token.grad = torch.ones(3), torch.ones(2)
        part.step(step)
    before = adapter.detach().clone()
    with part.averaged():
        assert not torch.equal(adapter, before)
    assert torch.equal(adapter, before)
    assert part.optimizer.param_groups[0]["train_mode"] is True


def test_accumulated_batches_give_the_mean_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(Trainer, "_update", lambda self: seen.append(self.adapters.parameters()[1].grad.clone()))
    four = trainer(CONFIG.changed(accumulation=4, steps=1, gram_steps=1))
    four.run(lambda _: None)
    single = trainer(CONFIG.changed(steps=4, gram_steps=1))
    # Without an update, gradients add up over the steps.
    single.run(lambda _: None)
    torch.testing.assert_close(seen[0], seen[-1] / 4)
    assert four.losses == [pytest.approx(sum(single.losses) / 4)]


def test_progress_counts_optimiser_steps() -> None:
    seen: list[Progress] = []
    run = trainer(CONFIG.changed(accumulation=3, steps=5))
    run.run(seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5]
    assert run.result().training["steps_done"] == 5


@given(st.floats(0.01, 10), st.lists(st.floats(-100, 100, width=32), min_size=5, max_size=5))
def test_clipping_bounds_the_global_norm_and_keeps_the_direction(limit: float, values: list[float]) -> None:
    part, adapter, token = learner(max_grad_norm=limit)
    gradient = torch.tensor(values)
    adapter.grad, token.grad = gradient[:3].clone(), gradient[3:].clone()
    norm = part.clip()
    clipped = torch.cat([adapter.grad, token.grad])
    assert norm == pytest.approx(float(gradient.norm()), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(clipped, gradient * min(1, limit / (norm + 1e-6)), rtol=1e-5, atol=1e-6)


def test_without_a_limit_gradients_stay_bit_for_bit() -> None:
    part, adapter, _ = learner()
    gradient = torch.tensor([1e6, 1e-6, 3.0])
    adapter.grad = gradient.clone()
    part.clip()
    assert torch.equal(adapter.grad, gradient)


def test_average_follows_its_definition() -> None:
    value = nn.Parameter(torch.zeros(2))
    ema, expected = Ema([value], 0.5), torch.zeros(2)
    for update in range(12):
        value.data.fill_(float(update))
        ema.update([value])
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value.detach()
    torch.testing.assert_close(ema.values[0], expected)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_decay_warms_up_to_what_was_asked(decay: float, updates: int) -> None:
    assert 0 <= warmed(decay, updates) <= warmed(decay, updates + 1) <= decay


def test_the_result_is_the_average_and_learning_is_not_touched() -> None:
    averaged, plain = trainer(CONFIG.changed(ema_decay=0.9)), trainer()
    averaged.run(lambda _: None)
    plain.run(lambda _: None)
    assert averaged.losses == plain.losses
    learnt, shown = averaged.adapters.adapters["q"].up, averaged.result().layers["q"].up
    assert torch.equal(learnt, plain.adapters.adapters["q"].up)
    assert averaged.learner.ema is not None
    assert torch.equal(shown, averaged.learner.ema.values[1]) and not torch.equal(shown, learnt)
    first, second = averaged.result().grams, plain.result().grams
    assert first is not None and second is not None
    # Grams are collected from the averaged model as well.
    assert not torch.equal(first.of("q").dense(), second.of("q").dense())


def test_a_token_that_rests_rests_at_its_average() -> None:
    run = trainer(CONFIG.changed(ema_decay=0.9, embedding_share=0.5, embedding_norm_limit=1e9))
    run.run(lambda _: None)
    live = run.token.embeddings()["fake"].detach()
    assert torch.equal(run.result().embeddings["fake"], live)
    assert run.learner.optimizer.param_groups[1]["params"] == []


@pytest.mark.parametrize("sigma", [0.05, 0.4472, 1.0, 7.0])
def test_min_snr_from_first_principles(sigma: float) -> None:
    """x_t = alpha x0 + s eps with alpha^2 + s^2 = 1 is ComfyUI's x0 + sigma eps divided by sqrt(1 + sigma^2)."""
    gamma, error = 5.0, 0.37  # of the clean estimate
    alpha, s = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    snr = alpha**2 / s**2
    x0, eps = 0.8, -1.3
    noisy = alpha * x0 + s * eps

    def noise_of(clean: float) -> float:
        return (noisy - alpha * clean) / s

    def velocity_of(clean: float) -> float:
        return alpha * noise_of(clean) - s * clean

    noise_loss = (noise_of(x0 + error) - noise_of(x0)) ** 2 * min(snr, gamma) / snr
    velocity_loss = (velocity_of(x0 + error) - velocity_of(x0)) ** 2 * min(snr, gamma) / (snr + 1)
    (weight,) = WEIGHTINGS["min_snr"](FakePort(), torch.tensor([sigma], dtype=torch.float64), gamma).tolist()
    assert noise_loss == pytest.approx(weight * error**2)
    assert velocity_loss == pytest.approx(weight * error**2)


def test_the_weight_multiplies_the_squared_error_of_the_clean_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    weighted = trainer(CONFIG.changed(steps=1, weighting="min_snr", snr_gamma=0.01))
    weighted.run(lambda _: None)
    monkeypatch.setattr(FakePort, "loss_scale", lambda _self, sigma: torch.ones_like(sigma))
    unit = trainer(CONFIG.changed(steps=1))
    unit.run(lambda _: None)
    # The stand-in's SNR is above 0.01 at every noise level.
    assert weighted.losses == [pytest.approx(0.01 * unit.losses[0])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer: expected one of adamw, prodigy"),
        ({"scheduler": "step"}, "scheduler: expected one of linear"),
        ({"weighting": "p2"}, "weighting: expected one of plain"),
        ({"accumulation": 0}, "accumulation: expected at least 1"),
        ({"max_grad_norm": -1.0}, "max_grad_norm: expected at least 0"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0 or more and less than 1"),
        ({"snr_gamma": 0.0}, "snr_gamma: expected more than 0"),
        ({"warmup_steps": 20}, "warmup_steps: expected fewer than the 20 steps"),
        ({"optimizer": "prodigy"}, "to be equal, best 1"),
        ({"optimizer": "schedulefree"}, "expected scheduler constant"),
        ({"optimizer": "schedulefree", "scheduler": "constant", "ema_decay": 0.9}, "ema_decay 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONFIG.changed(**changes)


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [
        ("auto", 16, 16), ("auto", 17, None), ("auto", 70, None), ("auto", 0, None),
        ("single", 16, None), ("layer-wise", 70, 70),
    ],
)  # fmt: skip
def test_a_token_is_layer_wise_by_itself_where_that_costs_little(
    kind: str, layers: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePort, "prompt_layers", layers)
    token = make_token(FakePort(), "man", kind, torch.Generator().manual_seed(0))
    assert token.layers == expected
    (vector,) = token.embeddings().values()
    assert vector.shape[:-1] == ((2,) if expected is None else (expected, 2))


def test_a_layer_wise_token_is_refused_where_no_layer_reads_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakePort, "prompt_layers", 0)
    with pytest.raises(ValueError, match=r"such as SD1.5 or SDXL, got .* Choose single"):
        make_token(FakePort(), "man", "layer-wise", torch.Generator())


def test_files_call_settings_what_they_always_did() -> None:
    assert TrainConfig().to_dict().keys() == set(IN_FILES_OF_0_1.split())
    values = TrainConfig.of(niche_weight=2.0, token="none", scheduler="cosine", sample_prompt="a cat", rank=8)
    assert (values.niche.weight, values.token.kind, values.schedule.name) == (2.0, "none", "cosine")
    assert (values.preview.prompt, values.adapter.rank) == ("a cat", 8)
    assert TrainConfig.of(**values.flat()) == values and TrainConfig() == TrainConfig.of()


def test_a_setting_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="settings it has, got nich_weight"):
        TrainConfig.of(nich_weight=1.0)


def test_settings_of_a_node_change_only_what_they_name() -> None:
    changed = TrainSettings({"accumulation": 2}, {"per_sample": True}).apply(CONFIG)
    assert changed == CONFIG.changed(accumulation=2, erasure=dataclasses.replace(CONFIG.erasure, per_sample=True))
    assert TrainSettings().apply(CONFIG) == CONFIG


def test_class_pictures_stand_beside_pictures_of_any_shape() -> None:
    random, config = torch.Generator().manual_seed(7), CONFIG.changed(prior_pictures=2, steps=6, batch_size=2)
    shapes = [(CHANNELS, SIDE, SIDE)] * 2 + [(CHANNELS, SIDE, SIDE - 1)] * 2
    examples = [Example(torch.randn(shape, generator=random), "a <hero>") for shape in shapes]
    run = Trainer(FakePort(), Dataset(examples, 2), Concept("<hero>", "man"), config)
    run.run(lambda _: None)
    assert len(run.losses) == 6 and all(map(math.isfinite, run.losses))


def test_terms_of_several_sizes_lose_what_each_would_alone() -> None:
    port, random = FakePort(), torch.Generator().manual_seed(3)

    def term(height: int, pictures: int) -> Term:
        noisy = torch.randn(pictures, CHANNELS, height, SIDE, generator=random)
        prompts = Conditioning.cat([port.encode(f"a man {at}", "", {}) for at in range(pictures)])
        return Term(noisy, torch.full((pictures,), 0.5), prompts, torch.zeros_like(noisy))

    terms = [term(SIDE, 2), term(SIDE - 1, 3), term(SIDE, 1)]
    losses, passes = term_losses(port, terms, lambda sigma: torch.ones_like(sigma))
    alone = [term_losses(port, [one], lambda sigma: torch.ones_like(sigma))[0][0] for one in terms]
    torch.testing.assert_close(losses, alone)
    assert passes == [[0, 1, 2], [3, 4, 5]], "pictures of one size go together, the first term's first"


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 4))
def test_masks_take_the_size_of_any_level(height: int, width: int, level: int) -> None:
    below = (height, width)
    for _ in range(level):
        below = (-(-below[0] // 2), -(-below[1] // 2))
    assert _scaled(torch.ones(1, 1, height, width), below[0] * below[1]).shape == (1, below[0] * below[1])


@pytest.mark.parametrize("kind", ["none", "single"])
def test_a_negative_never_holds_the_name_in_any_case(kind: str) -> None:
    port, random = FakePort(), torch.Generator().manual_seed(0)
    token = make_token(port, "man", kind, random)
    pool = Negatives(
        port=port, captions=["Hero in a park", "heroes and a HERO"], concept=Concept("hero", "man"), token=token,
        config=CONFIG.changed(niche_weight=1.0, niche_negatives=4).niche, generator=random,
    ).pool  # fmt: skip
    texts = [one.text for one in pool if not one.embeddings]
    assert texts and not any(Names(["hero"]).within(text) for text in texts)
    assert kind == "single" or any("heroes" in text for text in texts)
