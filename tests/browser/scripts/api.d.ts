export const api: import("@comfyorg/comfyui-frontend-types").ComfyApi;
