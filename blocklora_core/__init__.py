"""The BlockLoRA method: row blocks, erasure, files, merging. Nothing outside `host/` imports ComfyUI."""
