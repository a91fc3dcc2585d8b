"""From a bundle to a quantized one: recipes, calibration, quantized weights and graphs."""
