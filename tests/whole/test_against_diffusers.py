"""The same weights, noise and request give diffusers' picture."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kontext_trt import Kontext
from kontext_trt.engine.bundle.bundle import Bundle

TOLERANCE = 2e-5  # of 0..1, for a float32 picture; measured: 4e-6
STEPS = 4


def float_decoder(bundle: Bundle) -> onnxruntime.InferenceSession:
    """The decoder with one more output: its picture before rounding."""
    path = bundle.open_graph("vae_decoder").path
    model = onnx.load(path, load_external_data=False)
    (rounding,) = [node for node in model.graph.node if node.op_type == "Round"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(rounding.input[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def our_pictures(kontext: Kontext, noise: np.ndarray, image, prompts, size, guidance: float) -> np.ndarray:
    """(b, H, W, 3) in 0..1, before rounding to uint8."""
    options = {"size": size, "steps": STEPS, "guidance": guidance, "seed": 0, "noise": noise}
    result = kontext.generate(prompts, **options) if image is None else kontext.edit(image, prompts, **options)
    grid = np.stack([output.latents.reshape(size[1] // 16, size[0] // 16, -1) for output in result.outputs])
    return float_decoder(kontext.bundle).run(None, {"latents": grid})[-1].transpose(0, 2, 3, 1) / 255


def their_pictures(pipeline, noise: np.ndarray, image, prompts, size, guidance: float) -> np.ndarray:
    width, height = size
    with torch.no_grad():
        return pipeline(
            image=image,
            prompt=list(prompts),
            latents=torch.from_numpy(noise),
            width=width,
            height=height,
            max_area=width * height,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            output_type="np",
            _auto_resize=False,
        ).images


def noise_for(size: tuple[int, int], batch: int) -> np.ndarray:
    tokens = size[0] * size[1] // 256
    return np.random.default_rng(size[0] + batch).standard_normal((batch, tokens, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "reference_size", "prompts"),
    [
        ((128, 128), (128, 128), ["make it blue"]),
        ((96, 192), (96, 192), ["make it blue", "remove the tree"]),
        ((112, 144), (192, 96), ["a much longer instruction " * 16]),
        ((176, 64), (128, 128), ["make it blue", "Ünïcödé, 日本"]),
    ],
)
def test_edit(kontext: Kontext, pipeline, picture, size, reference_size, prompts):
    noise, image = noise_for(size, len(prompts)), picture(*reference_size)
    ours = our_pictures(kontext, noise, image, prompts, size, 2.5)
    theirs = their_pictures(pipeline, noise, image, prompts, size, 2.5)
    assert theirs.std() > 0.05  # a picture, not a flat field that anything would match
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("size", "prompts"), [((128, 128), ["a cat"]), ((192, 96), ["a cat", "a dog"])])
def test_text_to_image(kontext: Kontext, pipeline, size, prompts):
    noise = noise_for(size, len(prompts))
    ours = our_pictures(kontext, noise, None, prompts, size, 4.0)
    np.testing.assert_allclose(ours, their_pictures(pipeline, noise, None, prompts, size, 4.0), atol=TOLERANCE, rtol=0)


def test_tolerance_can_tell_a_wrong_model(kontext: Kontext, pipeline, picture):
    """Another guidance, prompt or reference moves the picture by far more than the tolerance."""
    size, noise, image = (128, 128), noise_for((128, 128), 1), picture(128, 128)
    theirs = their_pictures(pipeline, noise, image, ["make it blue"], size, 2.5)
    for other in (
        our_pictures(kontext, noise, image, ["make it blue"], size, 3.5),
        our_pictures(kontext, noise, image, ["make it red"], size, 2.5),
        our_pictures(kontext, noise, picture(128, 128, seed=1), ["make it blue"], size, 2.5),
        our_pictures(kontext, noise, None, ["make it blue"], size, 2.5),
    ):
        assert np.abs(other - theirs).max() > 10 * TOLERANCE


def test_seed_gives_diffusers_picture(kontext: Kontext, pipeline, picture):
    """The public call, noise drawn by each side from the same seed: pictures differ by rounding at most."""
    image = picture(144, 112)
    result = kontext.edit(image, "make it blue", steps=STEPS, guidance=2.5, seed=7)
    theirs = pipeline(
        image=image,
        prompt="make it blue",
        width=144,
        height=112,
        max_area=144 * 112,
        num_inference_steps=STEPS,
        guidance_scale=2.5,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
        _auto_resize=False,
    ).images[0]
    assert np.abs(np.asarray(result.image) - 255 * theirs).max() <= 0.5 + 255 * TOLERANCE
