"""ComfyUI-BlockLoRA: concepts in row blocks of the weights, trained and merged inside ComfyUI."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .blocklora_core.host.disk import sweep_leftovers
from .blocklora_core.host.queued import listen
from .blocklora_core.host.routes.serving import register
from .blocklora_core.host.train.live.routes import add_routes
from .nodes import NODES

WEB_DIRECTORY = "./web"


class BlockLoRAExtension(ComfyExtension):
    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> BlockLoRAExtension:
    sweep_leftovers()
    add_routes()
    register()
    listen()
    return BlockLoRAExtension()
