"""The training loop on a stand-in model: what it learns, what it leaves alone, what it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from blocklora_core.concept.concept import Concept
from blocklora_core.concept.rows import Scheme, index
from blocklora_core.training import AdaptedLayer, Dataset, Example, Progress, TrainConfig, Trainer, prompts
from blocklora_core.training.adapters.trainable import AdapterSet, RowBlockAdapter
from blocklora_core.training.data.captions import CaptionRules
from blocklora_core.training.data.dataset import with_concept
from blocklora_core.training.loop import NonFiniteLossError
from blocklora_core.training.regularisers.erasure import Erasure
from blocklora_core.training.sampling import euler, schedule
from tests.core.fake_port import CHANNELS, SIDE, FakePort

CONFIG = TrainConfig.of(steps=60, batch_size=4, rank=2, learning_rate=0.02, preview_every=0, slot=3, niche_weight=0.0)
HERO = Concept("<hero>", "man")


def examples(count: int = 8, caption: str = "a <hero>") -> list[Example]:
    generator = torch.Generator().manual_seed(7)
    return [Example(torch.randn(CHANNELS, SIDE, SIDE, generator=generator) * 0.1 + 1, caption) for _ in range(count)]


def trained(config: TrainConfig = CONFIG, callback=lambda _: None) -> tuple[Trainer, FakePort]:
    port = FakePort()
    trainer = Trainer(port, Dataset(examples(), config.batch_size), HERO, config)
    trainer.run(callback)
    return trainer, port


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_loss_falls() -> None:
    long = CONFIG.changed(steps=150)
    idle = long.changed(learning_rate=0.0, embedding_learning_rate=0.0)
    # The same seed draws the same pictures and noise, so only what was learnt differs.
    assert mean(trained(long)[0].losses[-50:]) < 0.7 * mean(trained(idle)[0].losses[-50:])


def test_result_holds_only_the_rows_of_its_slot() -> None:
    lora = trained()[0].result()
    expected = CONFIG.adapter.scheme.rows(3, 32)
    assert {name: layer.rows for name, layer in lora.layers.items()} == {"q": expected, "k": expected}
    dense = lora.layers["q"].dense()
    outside = torch.ones(32, dtype=torch.bool)
    outside[index(expected)] = False
    assert dense[outside].abs().max() == 0
    assert dense.abs().max() > 0


def test_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again = trained()[0].result(), trained()[0].result()
    other = trained(CONFIG.changed(seed=1))[0].result()
    assert torch.equal(first.layers["q"].up, again.layers["q"].up)
    assert torch.equal(first.embeddings["fake"], again.embeddings["fake"])
    assert not torch.equal(first.layers["q"].up, other.layers["q"].up)


def test_looking_at_samples_does_not_change_what_is_learnt() -> None:
    seen: list[Progress] = []
    looked = trained(CONFIG.changed(preview_every=5), seen.append)[0].result()
    assert torch.equal(looked.layers["k"].up, trained()[0].result().layers["k"].up)
    assert [progress.step for progress in seen if progress.sample is not None] == list(range(5, 61, 5))


def test_the_sample_prompt_is_what_samples_show(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    encode = FakePort.encode

    def watch(self: FakePort, prompt: str, *rest: object) -> object:
        seen.append(prompt)
        return encode(self, prompt, *rest)

    monkeypatch.setattr(FakePort, "encode", watch)
    short = CONFIG.changed(steps=2, preview_every=1, preview_steps=1, gram_steps=1)
    for prompt in ("", "a <hero> at sea"):
        seen.clear()
        trained(short.changed(sample_prompt=prompt))
        assert ("a <hero> at sea" in seen) == bool(prompt)


def test_a_resting_token_keeps_no_more_than_so_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "KEPT_PROMPTS", 2)
    trainer, port = trained(CONFIG.changed(steps=1, gram_steps=1, embedding_share=0.0))
    with torch.no_grad():
        for _ in range(2):
            before = port.encodings
            trainer.prompts.encode(["one", "two"])
        assert port.encodings == before
        trainer.prompts.encode(["three"])
        assert len(trainer.prompts._kept) == 2
        trainer.prompts.encode(["one"])
    assert port.encodings == before + 2


def test_frozen_weights_stay_and_hooks_go() -> None:
    before = FakePort().q.weight.clone()
    _, port = trained(CONFIG.changed(niche_weight=1.0))
    assert torch.equal(port.q.weight, before)
    assert port.q.weight.grad is None
    assert not port.q._forward_hooks
    assert not port.q._forward_pre_hooks


def test_a_broken_off_run_keeps_what_it_learnt_and_takes_its_hooks_off() -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 10:
            raise KeyboardInterrupt

    port = FakePort()
    trainer = Trainer(port, Dataset(examples(), 4), HERO, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    lora = trainer.result()
    assert lora.training["steps_done"] == 10
    assert lora.layers["q"].up.abs().max() > 0
    assert lora.grams is None
    assert not port.q._forward_hooks


def test_niche_keeps_the_adapter_quiet_for_other_prompts() -> None:
    def drift(weight: float) -> float:
        trainer, port = trained(CONFIG.changed(steps=150, niche_weight=weight))
        noisy, sigma = torch.randn(8, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(3)), torch.ones(8)
        prompt = port.encode("a man", "<hero>", {}).pick([0] * 8)
        frozen = port.predict(noisy, sigma, prompt)
        with trainer.adapters.attached(port.layers), torch.no_grad():
            return float((port.predict(noisy, sigma, prompt) - frozen).square().mean())

    assert drift(3.0) < 0.6 * drift(0.0)


def test_embeddings_freeze_at_the_norm_limit() -> None:
    start = Trainer(FakePort(), Dataset(examples(), 4), HERO, CONFIG).token.embeddings()["fake"].detach().clone()
    frozen = trained(CONFIG.changed(embedding_norm_limit=0.0))[0].result().embeddings["fake"]
    # AdamW decays only what has a gradient, so a frozen token is the token it started with.
    assert torch.equal(frozen, start)


@pytest.mark.parametrize(("share", "moved"), [(0.0, False), (0.5, True)])
def test_a_token_that_rests_is_encoded_once(share: float, moved: bool) -> None:
    config = CONFIG.changed(embedding_share=share, embedding_norm_limit=1e9)
    port = FakePort()
    trainer = Trainer(port, Dataset(examples(), 4), HERO, config)
    start = trainer.token.embeddings()["fake"].detach().clone()
    tokens, encodings = [], []

    def watch(_progress: Progress) -> None:
        tokens.append(trainer.token.embeddings()["fake"].detach().clone())
        encodings.append(port.encodings)

    trainer.run(watch)
    learning = config.embedding_steps
    captions = len(set(trainer.dataset.captions))
    assert torch.equal(tokens[-1], start) is not moved
    assert all(torch.equal(tokens[-1], token) for token in tokens[max(0, learning - 1) :])
    # And the prompt that only its Grams are collected with.
    assert encodings[-1] - (encodings[learning - 1] if learning else 0) <= captions + 1
    assert port.released == 1


@pytest.mark.parametrize(("rate", "shuffle"), [(1e-3, False), (0.0, True)])
def test_the_text_encoder_stays_while_it_is_asked(rate: float, shuffle: bool) -> None:
    port, config = FakePort(), CONFIG.changed(embedding_share=0.0, text_learning_rate=rate, steps=3)
    Trainer(port, Dataset(examples(), 4, CaptionRules(shuffle=shuffle)), HERO, config).run(lambda _progress: None)
    assert port.released == 0


def test_outside_the_masks_a_picture_teaches_nothing() -> None:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 0, 0] = 1.0

    def learnt(outside: float) -> Tensor:
        altered = []
        for example in examples():
            latents = torch.full_like(example.latents, outside)
            latents[:, 0, 0] = example.latents[:, 0, 0]
            altered.append(Example(latents, example.caption, mask))
        trainer = Trainer(FakePort(), Dataset(altered, 4), HERO, CONFIG)
        trainer.run(lambda _: None)
        return trainer.result().layers["q"].up

    # The fake model looks at each pixel alone, so only the loss could let the others in.
    torch.testing.assert_close(learnt(0.0), learnt(5.0), rtol=1e-4, atol=1e-5)


def test_a_full_mask_is_no_mask() -> None:
    whole = [Example(e.latents, e.caption, torch.ones(1, SIDE, SIDE)) for e in examples()]
    results = []
    for given in (examples(), whole):
        trainer = Trainer(FakePort(), Dataset(given, 4), HERO, CONFIG)
        trainer.run(lambda _: None)
        results.append(trainer.losses)
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize(
    ("mask", "message"), [(torch.ones(1, 2, 9), "as the latents"), (torch.zeros(1, 2, 3), "empty")]
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Example(torch.zeros(4, 2, 3), "a hero", mask)


def test_a_picture_without_a_mask_counts_everywhere_beside_one_that_has() -> None:
    examples = [Example(torch.zeros(4, 2, 3), "a"), Example(torch.zeros(4, 2, 3), "a", torch.full((1, 2, 3), 0.5))]
    masks = Dataset(examples, 2).batch(torch.Generator().manual_seed(0)).masks
    assert masks is not None
    assert sorted(masks.mean((1, 2, 3)).tolist()) == [0.5, 1.0]


def test_caption_rules_are_applied_at_each_use() -> None:
    config = CONFIG.changed(captions=CaptionRules(dropout=1.0))
    dataset = Dataset(examples(), 4, config.captions)
    assert set(dataset.batch(torch.Generator().manual_seed(0)).captions) == {""}
    assert dataset.captions == Dataset(examples(), 4).captions


def test_grams_cover_every_layer_and_share_one_input() -> None:
    trainer, _ = trained()
    lora = trainer.result()
    assert lora.grams is not None
    assert lora.grams.covers(lora.layers)
    assert lora.grams.input_of["q"] == lora.grams.input_of["k"]
    assert len(lora.grams.inputs) == 1


def test_non_finite_loss_stops_with_a_remedy_and_keeps_the_last_good_state() -> None:
    port = FakePort()
    trainer = Trainer(port, Dataset(examples(), 4), HERO, CONFIG)

    def poison(progress: Progress) -> None:
        if progress.step == 5:
            port.out.weight.data.fill_(float("nan"))

    with pytest.raises(NonFiniteLossError, match="Lower the learning rate"):
        trainer.run(poison)
    assert all(torch.isfinite(layer.up).all() for layer in trainer.result().layers.values())
    assert len(trainer.losses) == 5


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_adapter_adds_its_dense_delta_to_the_output(probability: float) -> None:
    linear = nn.Linear(10, 32)
    layer = AdaptedLayer(linear, 32, 10)
    rows = Scheme(slots=4).rows(2, 32)
    adapter = RowBlockAdapter(layer, rows, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    nn.init.normal_(adapter.up)
    adapters = AdapterSet({"l": adapter}, Erasure(probability), torch.Generator().manual_seed(1))
    x = torch.randn(2, 5, 10)
    with adapters.attached({"l": layer}):
        adapted = linear(x)
        with adapters.disabled():
            assert torch.equal(linear(x), nn.functional.linear(x, linear.weight, linear.bias))
        with adapters.erasing():
            erased = linear(x)
    dense = adapter.to_layer().dense()
    torch.testing.assert_close(adapted, nn.functional.linear(x, linear.weight + dense, linear.bias))
    plain = nn.functional.linear(x, linear.weight, linear.bias)
    kept = torch.isclose(erased, adapted).all(0).all(0) | torch.isclose(erased, plain).all(0).all(0)
    # Literal erasure: a row is there for every token and sample, or gone for all.
    assert kept.all()
    assert torch.equal(erased, adapted) == (probability == 0.0)


def test_gradients_equal_those_of_a_lora_whose_other_rows_are_zero() -> None:
    linear = nn.Linear(10, 32)
    linear.requires_grad_(False)
    layer = AdaptedLayer(linear, 32, 10)
    rows = Scheme(slots=4).rows(1, 32)
    adapter = RowBlockAdapter(layer, rows, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    nn.init.normal_(adapter.up)
    full_up = adapter.to_layer().full_up().requires_grad_()
    down = adapter.down.detach().clone().requires_grad_()
    x = torch.randn(4, 10)
    with AdapterSet({"l": adapter}, Erasure(), torch.Generator()).attached({"l": layer}):
        linear(x).square().sum().backward()
    nn.functional.linear(x, linear.weight + full_up @ down, linear.bias).square().sum().backward()
    assert full_up.grad is not None and down.grad is not None
    torch.testing.assert_close(adapter.up.grad, full_up.grad[index(rows)])
    torch.testing.assert_close(adapter.down.grad, down.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a <hero> in a hat", "a <hero> in a hat"),
        ("a man in a hat", "a <hero> in a hat"),
        ("in a hat", "a <hero>, in a hat"),
        ("a manly hat", "a <hero>, a manly hat"),
        ("", "a <hero>"),
        ("a man, blue shirt", "a <hero>, blue shirt"),
        ("Man in a park, a man.", "<hero> in a park, a man."),
        ("a photo of <Hero>", "a photo of <Hero>"),
    ],
)
def test_captions_name_the_concept(caption: str, expected: str) -> None:
    assert with_concept(caption, "<hero>", "man") == expected


@pytest.mark.parametrize(
    ("caption", "name", "word", "expected"),
    [
        ("a man in a red shirt", "ed", "man", "a ed in a red shirt"),
        ("a portrait in canada", "ada", "woman", "a ada, a portrait in canada"),
        ("a smiling young man, red tie", "<ben>", "young man", "a smiling <ben>, red tie"),
        ("a dog.", "<rex>", " ", "a <rex>, a dog."),
    ],
)
def test_captions_hold_names_and_class_words_as_whole_words(caption: str, name: str, word: str, expected: str) -> None:
    assert with_concept(caption, name, word) == expected


def test_batches_hold_one_caption_where_it_is_shared_and_one_size_always() -> None:
    shared = examples(6, "a <hero> on white") + examples(6, "a <hero> on blue")
    dataset, generator = Dataset(shared, 4), torch.Generator().manual_seed(0)
    assert all(len(set(dataset.batch(generator).captions)) == 1 for _ in range(12))
    own = [Example(torch.zeros(4, 2 + at % 2, 2), f"caption {at}") for at in range(8)]
    mixed = Dataset(own, 3)
    assert {mixed.batch(generator).latents.shape for _ in range(20)} == {(3, 4, 2, 2), (3, 4, 3, 2)}


def test_every_picture_is_seen_once_an_epoch() -> None:
    own = [Example(torch.full((1, 1, 1), float(at)), f"caption {at}") for at in range(6)]
    dataset, generator = Dataset(own, 2), torch.Generator().manual_seed(0)
    seen = [int(value) for _ in range(3) for value in dataset.batch(generator).latents.flatten()]
    assert sorted(seen) == list(range(6))


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Dataset([], 4)


def test_euler_ends_at_what_the_model_predicts_last() -> None:
    port = FakePort()
    target = torch.full((2, CHANNELS, SIDE, SIDE), 0.5)
    port.predict = lambda *_: target  # type: ignore[method-assign]
    out = euler(port, torch.randn(target.shape), port.encode("a", "", {}), 7)
    torch.testing.assert_close(out, target)
    assert schedule(port, 7)[-1] == 0
    assert (schedule(port, 7).diff() < 0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", 0), ("rank", 0), ("learning_rate", -1.0), ("niche_share", 1.5), ("slot", 16)],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"[Ee]xpected"):
        CONFIG.changed(**{field: value})


def test_model_without_rows_in_the_slot_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows in this slot"):
        Trainer(FakePort(), Dataset(examples(), 4), HERO, CONFIG.changed(scheme=Scheme(slots=200), slot=0))
