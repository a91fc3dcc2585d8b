"""Makes a quantized bundle from a bundle: recipes, calibration, quantized weights and graphs."""
