"""A cast on ComfyUI: started without its server, trained by Train's own function, merged, evaluated."""
