"""A few steps of training on a real, tiny base: what is learnt, what is left alone, what is left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.text.layerwise import cross_attention_layers
from blocklora.blocklora_core.host.train import pictures as training_pictures
from blocklora.blocklora_core.host.train.precision import compute_dtype
from blocklora.blocklora_core.host.train.train import AUTO_SLOT, TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.host.weights.names import model_stems
from blocklora.blocklora_core.training import TrainConfig
from blocklora.blocklora_core.training.loop import NonFiniteLossError, Trainer

from tests.host.tiny import Base, loaded, same

SLOT = 5
CONFIG = TrainConfig.of(
    steps=3, batch_size=2, niche_negatives=2, gram_pictures=1, gram_steps=2, preview_every=0, preview_steps=1, seed=11
)
Hook = Callable[..., None]


def pictures() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.rand(1, 64, 64, 3, generator=random) for _ in range(3)]


def train(
    base: Base,
    slot: int = SLOT,
    name: str = "<ada>",
    captions: Sequence[str] = ("a person",),
    precision: str = "fp32",
    layers: str = "attention",
    checkpointing: bool = False,
    **changes: Any,
) -> TrainResult:
    config = CONFIG.changed(**changes)
    # again: what these tests compare is training, not what a run before them left.
    job = TrainJob(
        Concept(name, "person"), pictures(), captions, config, slot,
        layers=layers, precision=precision, checkpointing=checkpointing, resume=False, again=True,
    )  # fmt: skip
    with torch.inference_mode():
        return train_concept(base.model, base.clip, base.vae, job)


@torch.inference_mode()
def prediction(base: Base) -> torch.Tensor:
    """What the base model predicts for a fixed input, loaded as a sampler does."""
    random = torch.Generator().manual_seed(2)
    noisy, context = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 77, 768, generator=random)
    with loaded(base.model):
        return base.model.model.apply_model(noisy, torch.tensor([3.0]), c_crossattn=context)


def hooks(base: Base) -> int:
    parts = [*base.model.model.modules(), *base.clip.cond_stage_model.modules()]
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)


def weights(base: Base) -> dict[str, torch.Tensor]:
    parts = {**base.model.model.state_dict(), **base.clip.cond_stage_model.state_dict()}
    return {name: tensor.detach().clone() for name, tensor in parts.items()}


def equal(a: BlockLoRA, b: BlockLoRA) -> bool:
    assert a.grams and b.grams
    assert a.layers.keys() == b.layers.keys()
    pairs = [(a.layers[name].up, b.layers[name].up) for name in a.layers]
    pairs += [(a.layers[name].down, b.layers[name].down) for name in a.layers]
    pairs += [(a.embeddings[name], b.embeddings[name]) for name in a.embeddings]
    pairs += [(a.grams.of(name).dense(), b.grams.of(name).dense()) for name in a.grams.input_of]
    return all(torch.equal(x, y) for x, y in pairs)


def test_masks_reach_the_loss_in_the_pictures_own_order(base: Base) -> None:
    masks = [torch.zeros(64, 64) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[: 16 * (number + 1)] = 1.0
    job = TrainJob(Concept("<ada>", "person"), pictures(), ("a person",), CONFIG, SLOT, precision="fp32", masks=masks)
    with torch.inference_mode():
        masked = train_concept(base.model, base.clip, base.vae, job)
    assert masked.losses != train(base).losses


def test_masks_for_other_pictures_are_refused(base: Base) -> None:
    one, other, none = torch.ones(1, 64, 64), torch.ones(1, 32, 64), torch.zeros(1, 64, 64)
    for masks, message in (
        ([torch.ones(2, 64, 64)], "one for each of the 3"),
        ([one, one, other], "Picture 3: expected a mask of its size, 64 x 64, got 64 x 32. Connect the masks"),
        ([one, none, one], "Picture 2: expected a mask that holds some .* or leave the picture out"),
    ):
        job = TrainJob(Concept("<ada>", "person"), pictures(), ("a person",), CONFIG, SLOT, masks=masks)
        with pytest.raises(ValueError, match=message):
            train_concept(base.model, base.clip, base.vae, job)


@contextmanager
def progress_hook(hook: Hook) -> Iterator[None]:
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)


@pytest.fixture(scope="module")
def trained(base: Base) -> TrainResult:
    return train(base)


def test_training_leaves_the_base_as_it_was(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    before, hooked = weights(base), hooks(base)
    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)
    seen: list[bool] = []
    step = Trainer._step

    def watch(self: Trainer) -> None:
        step(self)
        frozen = [*self.port.model.model.parameters(), *self.port.clip.cond_stage_model.parameters()]
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in frozen)
        seen.append(comfy.model_management.in_training)

    monkeypatch.setattr(Trainer, "_step", watch)
    train(base)
    assert seen == [True] * CONFIG.steps and comfy.model_management.in_training is False
    assert hooks(base) == hooked
    assert same(before, weights(base))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_computes_as_before_afterwards(base: Base, precision: str) -> None:
    before = prediction(base)
    train(base, precision=precision, steps=1)
    after = prediction(base)
    assert after.dtype == before.dtype and torch.equal(before, after)


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32), (None, torch.float32)])
def test_a_cpu_computes_in_bf16_only_with_matrix_tiles(
    has: bool | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has is None:
        monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has, raising=False)
    assert compute_dtype(torch.device("cpu")) == dtype


def test_refuses_an_unknown_precision(base: Base) -> None:
    with pytest.raises(ValueError, match="expected auto or one of fp32, bf16, got 'fp8'"):
        train(base, precision="fp8")


def test_gradients_reach_adapters_and_token(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[bool] = []
    update = Trainer._update

    def watch(self: Trainer) -> None:
        ups = [adapter.up for adapter in self.adapters.adapters.values()]
        reached.append(all(p.grad is not None and bool(p.grad.any()) for p in [*ups, *self.token.parameters()]))
        update(self)

    monkeypatch.setattr(Trainer, "_update", watch)
    # At the first step B is zero and nothing else can learn from the adapters' path; the token always can.
    train(base, steps=2, niche_weight=0.0)
    assert reached == [True, True]


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, torch.Tensor]]]:
    """The adapters' gradients at each step."""
    seen: list[dict[str, torch.Tensor]] = []
    update = Trainer._update

    def watch(self: Trainer) -> None:
        pairs = self.adapters.adapters.items()
        seen.append({f"{n}.{k}": p.grad.clone() for n, a in pairs for k, p in a.named_parameters()})
        update(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", watch)
        yield seen


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_checkpointing_changes_no_gradient(
    base: Base, monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    erasure = dataclasses.replace(CONFIG.erasure, probability=0.5)
    with watched(monkeypatch) as expected:
        train(base, precision=precision, erasure=erasure, steps=2)
    with watched(monkeypatch) as found:
        train(base, precision=precision, erasure=erasure, steps=2, checkpointing=True)
    assert len(expected) == 2 and any(bool(gradient.any()) for gradient in expected[1].values())
    # The same numbers, added up in another order.
    for a, b in zip(expected, found, strict=True):
        assert all(float((a[name] - b[name]).norm()) <= tolerance * float(a[name].norm()) for name in a)


def test_checkpointing_recomputes_the_blocks_in_the_backward_pass_only(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = base.model.model.diffusion_model
    blocks = [m for m in unet.modules() if type(m).__name__ in ("ResBlock", "BasicTransformerBlock")]
    seen: dict[bool, list[int]] = {True: [], False: []}
    original = type(blocks[0]).forward

    for checkpointing, counts in seen.items():
        calls: list[int] = []

        def count(self: Any, *args: Any, calls: list[int] = calls) -> Any:
            calls.append(1)
            return original(self, *args)

        monkeypatch.setattr(type(blocks[0]), "forward", count)
        with progress_hook(lambda *_args, counts=counts, calls=calls, **_more: counts.append(len(calls))):
            train(base, checkpointing=checkpointing, steps=1, niche_weight=0.0)
    plain, again = seen[False][0], seen[True][0]
    # Nothing before the first block is learnt, and no gradient passes through it. Twice: memory is told beforehand.
    assert again == 2 * plain - 2


def wrapped(base: Base) -> int:
    return sum("forward" in vars(module) for module in base.model.model.modules())


@pytest.mark.parametrize("ending", ["success", "error", "interrupt", "interrupt in backward"])
@pytest.mark.usefixtures("folders")
def test_checkpointing_leaves_no_wrapper(base: Base, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    before, during = wrapped(base), []
    errors: dict[str, type[BaseException]] = {
        "error": ValueError,
        "interrupt": comfy.model_management.InterruptProcessingException,
        "interrupt in backward": comfy.model_management.InterruptProcessingException,
    }

    def stop(*_args: Any, **_more: Any) -> None:
        during.append(wrapped(base))
        if ending in ("error", "interrupt"):
            raise errors[ending]

    backward = torch.Tensor.backward

    def interrupted(self: torch.Tensor) -> None:
        # As the cancel button does: the next layer that is computed raises.
        comfy.model_management.interrupt_current_processing(ending == "interrupt in backward")
        backward(self)

    monkeypatch.setattr(torch.Tensor, "backward", interrupted)
    with progress_hook(stop), pytest.raises(errors[ending]) if ending in errors else nullcontext():
        train(base, checkpointing=True, steps=2, niche_weight=0.0)
    assert wrapped(base) == before
    assert during or ending == "interrupt in backward"
    assert all(count > before for count in during)


def test_the_result_holds_its_slot_and_its_grams(base: Base, trained: TrainResult) -> None:
    lora, names = trained.lora, set(model_stems(base.model).values())
    attention = [name for name in names if ".attn" in name and name.endswith(".weight")]
    assert len(lora.layers) == trained.layers == len(attention)
    assert lora.slot == SLOT and lora.scheme == CONFIG.adapter.scheme
    for layer in lora.layers.values():
        assert layer.rows == CONFIG.adapter.scheme.rows(SLOT, layer.out_features)
        assert bool(layer.up.any()) and bool(layer.down.isfinite().all())
    assert lora.grams is not None and lora.grams.covers(lora.layers)
    assert lora.embeddings["clip_l"].shape == (len(cross_attention_layers(base.model.model.diffusion_model)), 2, 768)
    assert (lora.training["steps_done"], lora.training["images"]) == (3, 3)
    assert len(trained.losses) == 3


def test_q_k_and_v_share_one_gram(trained: TrainResult) -> None:
    assert trained.lora.grams is not None
    groups = trained.lora.grams.input_of
    query = next(name for name in groups if name.endswith("attn1_to_q"))
    assert groups[query] == groups[query.replace("to_q", "to_k")] == groups[query.replace("to_q", "to_v")]
    assert groups[query] != groups[query.replace("to_q", "to_out_0")]


def test_the_stock_loader_reads_the_trained_file(base: Base, trained: TrainResult, tmp_path: Path) -> None:
    path = save(tmp_path / "c.safetensors", trained.lora)
    stock = comfy.utils.load_torch_file(str(path), safe_load=True)
    model, _ = comfy.sd.load_lora_for_models(base.model, base.clip, stock, 1.0, 1.0)
    assert len(model.patches) == trained.layers
    name = next(iter(model.patches))
    with loaded(base.model) as plain:
        before = plain[name].clone()
    with loaded(model) as merged:
        change = (merged[name] - before).abs().amax(1).nonzero().flatten()
    (rows,) = CONFIG.adapter.scheme.rows(SLOT, 320)
    assert change.tolist() == list(rows)


def test_the_same_seed_gives_the_same_file(base: Base, trained: TrainResult, tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, result in zip(paths, (trained, train(base)), strict=True):
        save(path, result.lora)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_seed_gives_another_file(base: Base, trained: TrainResult) -> None:
    assert not equal(trained.lora, train(base, seed=12).lora)


def test_previews_do_not_change_what_is_learnt(base: Base, trained: TrainResult) -> None:
    previews: list[Any] = []
    with progress_hook(lambda _value, _total, preview, **_node: previews.append(preview)):
        result = train(base, preview_every=1)
    assert len(result.samples) == CONFIG.steps and result.samples[0].size == (64, 64)
    assert [preview[0] for preview in previews] == ["JPEG"] * CONFIG.steps
    assert equal(trained.lora, result.lora)


def test_niche_is_measured_only_when_it_is_on(base: Base, trained: TrainResult) -> None:
    assert all(loss >= 0 for loss in trained.niche_losses) and trained.niche_losses[-1] > 0
    without = train(base, niche_weight=0.0)
    assert without.niche_losses == [0.0] * CONFIG.steps
    assert not equal(trained.lora, without.lora)


def test_erasure_trains(base: Base, trained: TrainResult) -> None:
    erasure = dataclasses.replace(CONFIG.erasure, probability=0.5)
    assert not equal(trained.lora, train(base, erasure=erasure).lora)


def test_a_cancelled_training_is_kept(base: Base, folders: Path, trained: TrainResult) -> None:
    def cancel(value: int, *_rest: Any, **_more: Any) -> None:
        if value == 2:
            raise comfy.model_management.InterruptProcessingException

    hooked = hooks(base)
    with progress_hook(cancel), pytest.raises(comfy.model_management.InterruptProcessingException):
        train(base, AUTO_SLOT)
    assert hooks(base) == hooked
    (kept,) = (folders / "user" / "blocklora" / "interrupted").glob("ada_step2.*.safetensors")
    assert not list((folders / "models" / "loras").rglob("*.safetensors"))
    lora = load(kept)
    assert lora.training["steps_done"] == 2 and lora.grams is None and len(lora.layers) == trained.layers
    stock = comfy.utils.load_torch_file(str(kept), safe_load=True)
    model, _ = comfy.sd.load_lora_for_models(base.model, base.clip, stock, 1.0, 1.0)
    assert len(model.patches) == trained.layers


def test_a_training_cancelled_again_is_kept_again(base: Base, folders: Path) -> None:
    def cancel(*_rest: Any, **_more: Any) -> None:
        raise comfy.model_management.InterruptProcessingException

    for _ in range(2):
        with progress_hook(cancel), pytest.raises(comfy.model_management.InterruptProcessingException):
            train(base, niche_weight=0.0)
    assert len(list(folders.rglob("*.safetensors"))) == 1


def test_a_diverging_training_says_what_to_do_and_is_kept(base: Base, folders: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="Lower the learning rate"):
        train(base, steps=5, learning_rate=1e30, niche_weight=0.0)
    (kept,) = folders.rglob("*.safetensors")
    assert load(kept).training["steps_done"] >= 1


@pytest.mark.parametrize(
    ("shape", "number", "message"),
    [
        ((1, 64, 64, 3), float("nan"), "Picture 2: expected numbers from 0 to 1, got NaN"),
        ((1, 64, 64, 2), 0.5, "Picture 2: expected 3 channels, 4 with alpha or 1 of grey, got 2"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_number(
    base: Base, shape: tuple[int, ...], number: float, message: str
) -> None:
    images = [torch.rand(1, 64, 64, 3), torch.full(shape, number)]
    with pytest.raises(ValueError, match=message):
        train_concept(base.model, base.clip, base.vae, TrainJob(Concept("<ada>"), images, ["a"], CONFIG, SLOT))


def test_a_vae_that_gives_no_numbers_is_told(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_pictures, "encode_images", lambda *_: torch.full((1, 4, 8, 8), float("nan")))
    with pytest.raises(ValueError, match=r"the VAE gave numbers that are not finite\. Connect the VAE"):
        train(base)


def test_a_grey_picture_is_one_of_three_equal_channels() -> None:
    grey = torch.rand(1, 8, 8, 1)
    coloured, with_alpha = training_pictures.single_images([grey, torch.rand(1, 8, 8, 4)])
    assert torch.equal(coloured, grey.repeat(1, 1, 1, 3)) and with_alpha.shape == (1, 8, 8, 3)


def test_captions_must_match_the_pictures(base: Base) -> None:
    with pytest.raises(ValueError, match="expected one for each of the 3 pictures, or one for all, got 2"):
        train(base, captions=["a person", "a person in a hat"])


def test_refuses_a_slot_that_the_scheme_has_not(base: Base) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0 to 15, got 16"):
        train(base, slot=16)
