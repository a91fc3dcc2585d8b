"""The samples that the small Kontext is calibrated on."""

from pathlib import Path

from kontext_trt.examples.small_kontext.calibration import write_samples
from kontext_trt.export.quantize.samples import read_samples


def test_samples_to_calibrate_on(tmp_path: Path):
    write_samples(tmp_path, 12)
    samples, skipped = read_samples(tmp_path)
    assert (len(samples), skipped) == (12, [])
    assert 0 < sum(sample.picture is None for sample in samples) < 12
