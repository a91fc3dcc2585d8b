"""A bundle run by torch: the executor of calibration and comparison, which emulates what is quantized."""
