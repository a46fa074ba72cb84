"""ComfyUI in process, on the CPU. Set up on import, so that test modules may import comfy at their top."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT, comfyui_folder
from tests.host import dynamic


def _import_comfy() -> None:
    # Ahead of this repository, whose nodes/ would hide ComfyUI's nodes.py.
    sys.path.insert(0, str(comfyui_folder()))
    from comfy import options

    options.enable_args_parsing(False)
    from comfy.cli_args import args

    # The device is chosen when comfy.model_management is imported, so this comes first.
    args.cpu = True
    if dynamic.WANTED:
        dynamic.enable()


def _import_pack() -> ModuleType:
    start = ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location("blocklora", start, submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["blocklora"] = module
    spec.loader.exec_module(module)
    return module


_import_comfy()
_PACK = _import_pack()

from tests.host.tiny import Base, load_base, write_base  # noqa: E402  (it imports comfy and the pack)


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The pack as ComfyUI imports it: a package of its own, `blocklora`, with relative imports inside.

    Its classes are not those of a plain `import blocklora_core`: take both from `blocklora` when they meet.
    """
    return _PACK


@pytest.fixture(scope="session")
def base() -> Iterator[Base]:
    """The demo's base model with random weights, loaded as CheckpointLoaderSimple does. Leave it as it is."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "base.safetensors")
        write_base(path)
        yield load_base(path)


def _redirect(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    for name in ("output", "input", "temp", "user"):
        (root / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(root / name))
    for name in ("loras", "embeddings"):
        (root / "models" / name).mkdir(parents=True)
        extensions = folder_paths.folder_names_and_paths[name][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(root / "models" / name)], extensions))
    folder_paths.filename_list_cache.clear()


@pytest.fixture(scope="session", autouse=True)
def _no_test_writes_into_comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        _redirect(tmp_path_factory.mktemp("host"), patch)
        yield


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scratch folder in place of ComfyUI's output, input, temp and user folders and its loras and embeddings."""
    import folder_paths
    from blocklora.blocklora_core.host import ledger

    # Slots that other tests' trainings were given in this process, in folders of their own.
    monkeypatch.setattr(ledger, "_given", {})

    _redirect(tmp_path, monkeypatch)
    yield tmp_path
    folder_paths.filename_list_cache.clear()
