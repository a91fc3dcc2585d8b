"""Runs a bundle by torch: the executor of calibration and comparison, which emulates what is quantized."""
