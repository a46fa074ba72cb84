"""Sets up the demo inside a ComfyUI: the base checkpoint, and the training pictures of the concepts.

Quick when everything is there already. Run as `python demo/prepare.py --comfyui PATH`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.base import WEIGHTS, write_checkpoint
from demo.concepts import CONCEPTS, PICTURES

CHECKPOINT = "blocklora_demo.safetensors"
FOLDER = "blocklora_demo"
WORKFLOW = Path(__file__).parent / "workflows" / "train_merge_sample.json"
SAVED = Path("user", "default", "workflows", "BlockLoRA demo.json")


def _key(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _done(stamp: Path, key: str, product: Path) -> bool:
    return product.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8").split()[:1] == [key]


def _stamp(stamp: Path, key: str) -> None:
    partial = stamp.with_suffix(".part")
    partial.write_text(key, encoding="utf-8")
    partial.replace(stamp)


def prepare_checkpoint(comfyui: Path) -> None:
    here = Path(__file__).parent
    target = comfyui / "models" / "checkpoints" / CHECKPOINT
    stamp, key = target.with_suffix(".stamp"), _key(WEIGHTS, here / "text_encoder.py", here / "base.py")
    if _done(stamp, key, target):
        print(f"Base model is ready: {target.name}")
        return
    print(f"Writing the base model {target.name}", flush=True)
    write_checkpoint(target)
    _stamp(stamp, key)


def prepare_pictures(comfyui: Path) -> None:
    root = comfyui / "input" / FOLDER
    stamp, key = comfyui / "input" / f"{FOLDER}.stamp", _key(*sorted(PICTURES.rglob("*.*")))
    if _done(stamp, key, root):
        print(f"Training pictures are ready: input/{FOLDER}")
        return
    ours = stamp.read_text(encoding="utf-8").split()[1:] if stamp.is_file() else []
    for concept in CONCEPTS:
        folder = root / concept.folder
        _set_aside(folder, ours)
        print(f"{concept.name}: {concept.write(folder)} training pictures", flush=True)
    _stamp(stamp, "\n".join([key, *(_folder_key(root / concept.folder) for concept in CONCEPTS)]))


def _folder_key(folder: Path) -> str:
    return _key(*sorted(path for path in folder.rglob("*") if path.is_file()))


def _set_aside(folder: Path, ours: list[str]) -> None:
    """What somebody changed in the folder, or put there, stays under another name."""
    if folder.is_dir() and _folder_key(folder) not in ours:
        name = next(name for n in count(1) if not (name := folder.with_name(f"{folder.name}_{n}")).exists())
        folder.rename(name)
        print(f"input/{FOLDER}/{folder.name} was changed: it is now {name.name}", flush=True)


def prepare_workflow(comfyui: Path) -> None:
    """Puts the demo's graph among the saved workflows; one that is there already is its user's."""
    target = comfyui / SAVED
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(WORKFLOW.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder")
    options = parser.parse_args()
    prepare_checkpoint(options.comfyui)
    prepare_pictures(options.comfyui)
    prepare_workflow(options.comfyui)


if __name__ == "__main__":
    main()
