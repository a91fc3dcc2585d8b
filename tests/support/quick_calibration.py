"""Options of calibrations that take a second."""

from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.quantize.calibration import CalibrationOptions

QUICK = CalibrationOptions(steps=2, device=TorchDevice.CPU)
