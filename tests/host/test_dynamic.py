"""Dynamic VRAM (ModelPatcherDynamic, from ComfyUI 0.16 on): what the plain patcher gives, bit for bit.

It refuses the CPU, so these tests run in a process of their own, in which tests/dynamic stands in for the GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.sd
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.host.compat import is_dynamic
from blocklora.blocklora_core.host.composer.composer import apply_composer
from blocklora.blocklora_core.host.composer.prompt import concept_prompt
from blocklora.blocklora_core.host.regions.regional import RegionalSampling, apply_regions
from blocklora.blocklora_core.host.train.collect import CollectJob, collect
from blocklora.blocklora_core.host.weights.autograd import with_own_weights
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.regions import Box, Region

from demo.base import UNET
from tests.host import dynamic
from tests.host.dynamic import widen
from tests.host.test_training import train
from tests.host.tiny import Base, make_lora, write_base

if dynamic.WANTED:
    pytest.skip("compares with the plain patcher, which this run does without", allow_module_level=True)
memory_management = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no Dynamic VRAM")

KNOWN = hasattr(comfy.model_patcher, "ModelPatcherDynamic")
DYNAMIC = hasattr(sys.modules.get("comfy_aimdo.model_vbar"), "ROOM")
inside = pytest.mark.skipif(not DYNAMIC, reason="runs in the process that test_on_the_dynamic_patcher starts")
# The plain patcher's results come with the first of them.
pytestmark = pytest.mark.timeout(3600)
COLLECTING = CollectJob(pictures=1, steps=1, size=64, seed=5)
Found = dict[str, list[torch.Tensor]]


@pytest.mark.skipif(not KNOWN, reason="this ComfyUI has no Dynamic VRAM")
@pytest.mark.skipif(DYNAMIC, reason="this process has it already")
def test_on_the_dynamic_patcher(repository: Path) -> None:
    search = [str(repository / "tests" / "dynamic"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))}
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(line, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(not hasattr(comfy.model_management, "get_cast_buffer"), reason="this ComfyUI shares no buffers")
def test_the_plain_patcher_lends_what_it_casts_through_shared_buffers(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert with_own_weights(base.model) is base.model
    monkeypatch.setattr(comfy.model_management, "NUM_STREAMS", 2)
    assert with_own_weights(base.model, whole=True) is base.model
    owning = with_own_weights(base.model)
    (name,) = {name for name in owning.weight_wrapper_patches if name.endswith("time_embed.0.weight")}
    (own,), weight = owning.weight_wrapper_patches[name], torch.ones(2)
    with torch.enable_grad():
        assert own(weight) is not weight and torch.equal(own(weight), weight)
    with torch.no_grad():
        assert own(weight) is weight


class Stream:
    """One of two streams: on a CPU all happens in order. Each has a buffer for what it casts, as on a GPU."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...

    def wait_stream(self, _other: object) -> None: ...

    def synchronize(self) -> None: ...


@torch.inference_mode()
def loaded(path: Path) -> Base:
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=[])
    return Base(model, clip, vae)


@torch.inference_mode()
def sampled(model: Any, clip: Any) -> torch.Tensor:
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a <c1> by a <c2>", "")]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    return comfy.sample.sample(
        model, noise, 2, 3.0, "euler", "normal", *prompts, torch.zeros_like(noise), seed=5, disable_pbar=True
    )


def parts(lora: BlockLoRA) -> list[torch.Tensor]:
    held = [part for name in sorted(lora.layers) for part in (lora.layers[name].up, lora.layers[name].down)]
    return held + [lora.embeddings[name] for name in sorted(lora.embeddings)]


def grams(lora: BlockLoRA) -> list[torch.Tensor]:
    assert lora.grams
    return [lora.grams.of(name).dense() for name in sorted(lora.layers) if lora.grams.covers([name])]


def regions(clip: Any) -> tuple[Region, Region]:
    halves = ((Box(0, 0, 0.5, 1), "<c1>"), (Box(0.5, 0, 0.5, 1), "<c2>"))
    with torch.inference_mode():
        return tuple(Region(box, concept_prompt(clip, f"a {name}", name), concept=name) for box, name in halves)


def everything(base: Base) -> Found:
    """The pack's work, in an order in which each finds the model as another left it."""
    found: Found = {"trained fresh": trained(base)}
    found["sampled after it"] = [sampled(base.model, base.clip)]
    found["trained after sampling"] = trained(base, checkpointing=True, text_learning_rate=0.01)
    stack = tuple(make_lora(base, f"<c{slot}>", slot) for slot in (1, 2))
    merged = apply_merge(stack, base.model, base.clip)
    found["merged"] = [sampled(merged.model, merged.clip)]
    found["trained after a merge"] = trained(replace(base, model=merged.model, clip=merged.clip))
    laid = regions(merged.clip)
    found["regions"] = [sampled(apply_regions(merged.model, RegionalSampling(laid)), merged.clip)]
    found["Composer"] = [sampled(apply_composer(merged.model, laid).model, merged.clip)]
    alone = apply_composer(base.model, regions(merged.clip), stack=stack)
    found["Composer, not merged"] = [sampled(alone.model, merged.clip)]
    bare = tuple(replace(lora, grams=None, scheme=None, slot=None) for lora in stack)
    found["collected"] = [one for lora in collect(base.model, base.clip, bare, COLLECTING).stack for one in grams(lora)]
    comfy.model_management.unload_all_models()
    found["sampled in the end"] = [sampled(base.model, base.clip)]
    comfy.model_management.unload_all_models()
    return found


def trained(base: Base, **settings: Any) -> list[torch.Tensor]:
    result = train(base, **settings)
    assert result.memory and result.memory.model > 1e5, "norms and biases at the least"
    return [torch.tensor(result.losses), *parts(result.lora), *grams(result.lora)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its UNet in what it computes in, so that what is used is the very memory that is lent; the rest in half of it."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    write_base(path)
    widen(path, UNET)
    return path


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> Found:
    base = loaded(checkpoint)
    assert not is_dynamic(base.model) and not is_dynamic(base.clip.patcher)
    return everything(base)


@pytest.fixture(scope="module", params=["all", "none", "fleeting"])
def got(checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[Found]:
    """Room for every page; for none, so that all is cast through the buffers of two streams; for one use of a page."""
    import comfy_aimdo.model_vbar

    cpu = torch.device("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy_aimdo.model_vbar, "ROOM", request.param)
        patch.setattr(comfy.model_management, "NUM_STREAMS", 2)
        patch.setitem(comfy.model_management.STREAMS, cpu, [Stream(), Stream()])
        # As main.py does it for --enable-dynamic-vram.
        patch.setattr(memory_management, "aimdo_enabled", True)
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        base = loaded(checkpoint)
        assert is_dynamic(base.model) and is_dynamic(base.clip.patcher)
        yield everything(base)


@inside
@pytest.mark.parametrize(
    "what", ["trained fresh", "sampled after it", "trained after sampling", "collected", "sampled in the end"]
)
def test_bits_are_those_of_the_plain_patcher(expected: Found, got: Found, what: str) -> None:
    assert expected[what] and len(expected[what]) == len(got[what])
    assert all(map(torch.equal, expected[what], got[what]))


@inside
@pytest.mark.parametrize("what", ["merged", "trained after a merge", "regions", "Composer", "Composer, not merged"])
def test_patches_are_those_of_the_plain_patcher(expected: Found, got: Found, what: str) -> None:
    """But for their rounding, which is random over a weight and seeded in another way; a page's first use has none."""
    assert expected[what] and len(expected[what]) == len(got[what])
    for one, other in zip(expected[what], got[what], strict=True):
        assert float((one - other).norm()) <= 0.01 * float(one.norm())


@inside
def test_each_part_does_something(expected: Found) -> None:
    pictures = ["sampled after it", "merged", "regions", "Composer", "Composer, not merged"]
    assert len({tuple(expected[name][0].flatten().tolist()) for name in pictures}) == len(pictures)
    assert torch.equal(expected["sampled after it"][0], expected["sampled in the end"][0])
    assert not torch.equal(expected["trained fresh"][0], expected["trained after a merge"][0])
