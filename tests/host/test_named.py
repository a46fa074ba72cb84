"""Plain LoRAs that are kept apart: the text encoder's part of each reads the prompts that name it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.sd
import pytest
import safetensors.torch
import torch
from blocklora.blocklora_core.files.io import load
from blocklora.blocklora_core.host.text.named import NamingClip, Readers, calls_of
from blocklora.blocklora_core.host.weights.patching import apply_merge

from tests.host.dynamic import equal
from tests.host.tiny import Base, adaptable, make_lora
from tests.host.tiny_clip import make_dual_text

QUICK = {"pictures": 2, "steps": 2, "size": 64}
LIST = "ada | 0.8 | on | ohwx\nbob | 1 / 0.5 | on | zwx man, bobby\n"


@pytest.fixture
def files(base: Base, folders: Path) -> dict[str, Path]:
    """Three plain LoRAs, with layers of the text encoder."""
    found = {}
    for seed, name in enumerate(("ada", "bob", "eve")):
        lora = make_lora(
            base, f"<{name}>", seed, scheme=None, stems=[stem for stem in adaptable(base) if "attn" in stem]
        )
        assert lora.text_only().layers and lora.model_only().layers
        tensors = {}
        for stem, layer in lora.layers.items():
            tensors |= {f"{stem}.lora_up.weight": layer.up, f"{stem}.lora_down.weight": layer.down}
        found[name] = folders / "models" / "loras" / f"{name}.safetensors"
        safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, found[name])
    return found


@pytest.fixture
def merged(pack: ModuleType, base: Base, files: dict[str, Path]) -> Any:
    """By a list -> CLIP and the report."""
    (node,) = (one for one in pack.NODES if one.__name__ == "BlockLoRALoader")
    assert files

    def run(text: str = LIST, clip: Any = base.clip, **more: Any) -> tuple[Any, str]:
        result = node.execute(base.model, clip, text, **QUICK, **more).result
        return result[1], result[3]

    return run


def read(clip: Any, prompt: str) -> torch.Tensor:
    cross: torch.Tensor = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]
    assert equal(cross, clip.encode_from_tokens(clip.tokenize(prompt)))
    return cross.clone()


def alone(base: Base, path: Path, strength: float) -> Any:
    lora = load(path).with_strength(1.0, strength)
    return apply_merge((lora,), base.model, base.clip).clip


def test_a_prompt_is_read_as_by_the_one_that_it_names_and_as_by_the_base_where_it_names_none(
    base: Base, files: dict[str, Path], merged: Any
) -> None:
    clip, report = merged()
    assert "read only prompts that name them: ohwx, bob" in report
    own = {"ada": alone(base, files["ada"], 0.8), "bob": alone(base, files["bob"], 0.5)}
    for prompt, name in (
        ("a photo of OHWX on a hill", "ada"), ("(ohwx:1.3), night", "ada"), ("zwx man", "bob"), ("hello bobby", "bob"),
    ):  # fmt: skip
        torch.testing.assert_close(read(clip, prompt), read(own[name], prompt), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(read(clip, prompt), read(base.clip, prompt), atol=1e-3)
    for prompt in ("", "a man", "zwx", "bobbys"):
        assert equal(read(clip, prompt), read(base.clip, prompt)), prompt


def test_a_prompt_that_names_two_is_read_as_by_both_kept_apart(base: Base, files: dict[str, Path], merged: Any) -> None:
    clip, _ = merged()
    both = read(clip, "ohwx and bobby")
    for name, strength in (("ada", 0.8), ("bob", 0.5)):
        assert not torch.allclose(both, read(alone(base, files[name], strength), "ohwx and bobby"), atol=1e-3)
    assert not torch.allclose(both, read(base.clip, "ohwx and bobby"), atol=1e-3)


def test_whose_words_nobody_knows_reads_every_prompt(base: Base, files: dict[str, Path], merged: Any) -> None:
    clip, report = merged(f"{LIST}eve")
    assert "eve" not in report.partition("read only prompts that name them")[2].partition("\n")[0]
    own = alone(base, files["eve"], 1.0)
    torch.testing.assert_close(read(clip, "a man"), read(own, "a man"), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(read(clip, "ohwx"), read(own, "ohwx"), atol=1e-3)


def test_copies_clip_skip_and_loras_that_follow_are_as_with_any_clip(
    base: Base, files: dict[str, Path], merged: Any
) -> None:
    clip, _ = merged()
    own = alone(base, files["ada"], 0.8)
    copy, skipped = clip.clone(), own.clone()
    copy.clip_layer(-2)
    skipped.clip_layer(-2)
    torch.testing.assert_close(read(copy, "ohwx"), read(skipped, "ohwx"), rtol=1e-4, atol=1e-5)
    more = safetensors.torch.load_file(files["eve"])
    _, copy = comfy.sd.load_lora_for_models(None, clip, dict(more), 0.0, 0.7)
    _, followed = comfy.sd.load_lora_for_models(None, own, dict(more), 0.0, 0.7)
    torch.testing.assert_close(read(copy, "ohwx"), read(followed, "ohwx"), rtol=1e-4, atol=1e-5)
    assert equal(read(base.clip, "ohwx"), read(base.clip.clone(), "ohwx"))


def test_a_second_merge_reads_beside_the_first(base: Base, files: dict[str, Path], merged: Any) -> None:
    clip, _ = merged()
    twice, _ = merged("ada | 0.3 | on | first\neve | 1 | on | third", clip=clip)
    assert len(twice.readers) == 2
    torch.testing.assert_close(read(twice, "ohwx"), read(alone(base, files["ada"], 0.8), "ohwx"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        read(twice, "third"), read(alone(base, files["eve"], 1.0), "third"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "more", [{"keep_apart": "off (plain sum, as chained loaders)"}, {"text": "ada | 1 | on | ohwx\nbob | 1 | off"}]
)
def test_the_plain_sum_and_a_single_file_are_the_stock_clip(merged: Any, more: dict[str, Any]) -> None:
    clip, report = merged(**more)
    assert not isinstance(clip, NamingClip) and "read only prompts" not in report


def test_two_encoders_are_asked_by_their_own_tokens() -> None:
    clip = make_dual_text(64, 64)
    phrases = (["ohwx"], ["<zed>", "red hat"], ["Jos\u00e9"], [])
    readers = Readers([calls_of(clip, one) for one in phrases], lambda _: {})
    expected = {
        "ohwx": (0,), "(ohwx:1.2)": (0,), "a <zed>!": (1,), "<ZED>, night": (1,), "a red hat.": (1,), "red": (),
        "red hats": (), "ohwx, red  hat": (0, 1), "zed": (), "jos\u00e9's": (2,), "jose": (), "": (), "ohwxy": (),
    }  # fmt: skip
    assert {text: readers.named(clip.tokenize(text)) for text in expected} == expected
    assert readers.named({"another": [[(5, 1.0)]]}) == (0, 1, 2, 3), "of a tokenizer that nobody knows, all"
