"""NVFP4's layouts: tiles and nibbles against comfy-kitchen's bytes, and against themselves."""
