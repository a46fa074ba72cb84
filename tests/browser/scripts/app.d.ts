export const app: import("@comfyorg/comfyui-frontend-types").ComfyApp;
