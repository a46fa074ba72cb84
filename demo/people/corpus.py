"""Writes a corpus: pictures, and their scenes as JSON lines.

`python -m demo.people.corpus FOLDER --pool training --count 8000` needs Node 18 or newer and npm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

from demo.people.scenes import POOLS, Pool, Record, draw_scene

HERE = Path(__file__).parent


def scene_records(pool: Pool, seed: int, count: int) -> list[Record]:
    return [draw_scene(pool, seed, number).record(f"{number:06d}.png") for number in range(count)]


def write_records(records: list[Record], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    partial.replace(path)


def read_records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prepare_renderer(folder: Path) -> Path:
    """Install the drawing packages, once, into a working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "render.mjs"):
        shutil.copyfile(HERE / name, folder / name)
    if not (folder / "node_modules" / "@dicebear" / "core").is_dir():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=folder, check=True)
    return folder


def render(scenes: Path, pictures: Path, renderer: Path, scale: float = 1.0) -> None:
    """Draw every scene that has no picture yet; a 128-pixel scene gets 128 * scale pixels."""
    command = ["node", "render.mjs", str(scenes.resolve()), str(pictures.resolve()), str(scale)]
    subprocess.run(command, cwd=renderer, check=True)


def build(folder: Path, pool: str, seed: int, count: int, renderer: Path, scale: float = 1.0) -> Path:
    """Scenes in FOLDER/scenes.jsonl, pictures in FOLDER/pictures."""
    scenes = folder / "scenes.jsonl"
    write_records(scene_records(POOLS[pool], seed, count), scenes)
    render(scenes, folder / "pictures", renderer, scale)
    return folder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", choices=tuple(POOLS), default="training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--renderer", type=Path, help="where the npm packages are kept; FOLDER/renderer if not given")
    options = parser.parse_args(arguments)
    renderer = prepare_renderer(options.renderer or options.folder / "renderer")
    build(options.folder, options.pool, options.seed, options.count, renderer, options.scale)


if __name__ == "__main__":
    main()
