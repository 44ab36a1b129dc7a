"""The evaluation transform is timm's, bit for bit; augmentation is decided by seed, epoch and image alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.data.transforms import ResizeKeepRatio
from torchvision.transforms import InterpolationMode, Normalize, RandomCrop, Resize

from tests.data.preparing import photo, preprocessing
from tl_kit.images.decode import decode
from tl_kit.images.geometry import Geometry
from tl_kit.images.transforms import Preprocessing, normalize

MODES = ["center", "squash", "border"]
MODELS = ["resnet18", "tf_efficientnet_lite0", "test_vit", "vit_base_patch16_clip_224"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(400, 534), (640, 480), (100, 100), (37, 211)])
def test_evaluation_equals_timms_transform_to_the_last_bit(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    theirs = create_transform(**resolve_model_data_config(model), is_training=False)(photo(*size))
    ours = Preprocessing.from_model(model)
    assert torch.equal(normalize(ours.evaluate(photo(*size)).unsqueeze(0), ours)[0], theirs)


@pytest.mark.parametrize("crop_mode", MODES)
def test_cropping_the_resized_image_gives_the_evaluation_image(crop_mode: str) -> None:
    p = preprocessing(crop_mode=crop_mode, crop_pct=0.875)
    resized, final = p.resize(photo(400, 534)), p.evaluate(photo(400, 534))
    assert final.shape == (3, 224, 224)
    top, left = ((resized.shape[i] - 224) / 2 for i in (1, 2))
    if crop_mode == "border":  # the shorter side is padded, so only the middle can be compared
        assert resized.shape[1] >= 224
        return
    top, left = round(top), round(left)
    assert torch.equal(resized[:, top : top + 224, left : left + 224], final)


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (30_000, 1)])
def test_very_long_images_do_not_blow_up_memory(crop_mode: str, size: tuple[int, int]) -> None:
    p = preprocessing(crop_mode=crop_mode)
    assert p.evaluate(photo(*size)).shape == (3, 224, 224)
    assert p.whole(photo(*size), 1.3).numel() < 3 * 256 * 256 * 25 * 1.3**2


@pytest.mark.parametrize("scale", [1.0, 1.3])
@pytest.mark.parametrize("size", [(400, 200), (200, 401), (100, 100)])
def test_training_draws_from_the_whole_image(size: tuple[int, int], scale: float) -> None:
    """Under center in its own shape, under squash as a square, under border as the square that evaluation pads."""
    image, side = photo(*size), round(scale * 256)
    shapes = {mode: preprocessing(crop_mode=mode, crop_pct=0.875).whole(image, scale) for mode in MODES}
    height, width = shapes["center"].shape[1:]
    assert min(height, width) == side
    assert max(height, width) == int(side * max(size) / min(size))
    assert shapes["squash"].shape == shapes["border"].shape == (3, side, side)
    squashed = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(shapes["squash"].permute(1, 2, 0).numpy() - squashed).max() <= 1
    fill = torch.tensor([round(255 * v) for v in preprocessing().mean], dtype=torch.uint8)
    corner = shapes["border"][:, 0, 0]
    assert torch.equal(corner, fill) == (size[0] != size[1])


@pytest.mark.parametrize("crop_mode", MODES)
def test_the_middle_of_the_whole_image_is_the_evaluation_image(crop_mode: str) -> None:
    p = preprocessing(crop_mode=crop_mode, crop_pct=0.875)
    whole, final = p.whole(photo(400, 300)), p.evaluate(photo(400, 300))
    top, left = (round((n - 224) / 2) for n in whole.shape[1:])
    assert torch.equal(whole[:, top : top + 224, left : left + 224], final)


@pytest.mark.parametrize(
    ("image", "model", "share"),
    [
        ((100, 100), (64, 64), 0.0),
        ((200, 100), (64, 64), 0.5),
        ((100, 400), (64, 64), 0.75),
        ((200, 100), (32, 64), 0.0),
    ],
)
def test_the_share_that_a_centre_crop_hides(image: tuple[int, int], model: tuple[int, int], share: float) -> None:
    assert preprocessing(input_size=(3, *model)).hidden(*image) == pytest.approx(share)


@pytest.mark.parametrize("size", [(1600, 1200), (3000, 4000)])
def test_large_jpegs_stay_close_to_timm_s_pixels(size: tuple[int, int], tmp_path: Path) -> None:
    """A JPEG decoded at a fraction of its size: at most 1 level away on average, 99.9 % of all pixels within 8."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (24, 18, 3), dtype=np.uint8))
    fine = Image.fromarray(rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
    image = Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), fine.resize(size, Image.Resampling.BICUBIC), 0.3)
    image.save(tmp_path / "large.jpg", quality=92)
    p = preprocessing()
    with Image.open(tmp_path / "large.jpg") as whole:
        theirs = p.evaluate(whole.convert("RGB")).int()
    drafted = decode(tmp_path / "large.jpg", min_side=p.min_side)
    assert min(drafted.size) < min(size), "this image is large enough to be decoded at a fraction"
    apart = (p.evaluate(drafted).int() - theirs).abs()
    assert apart.float().mean() <= 1
    assert (apart <= 8).float().mean() >= 0.999


INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    inputs=st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.integers(1, 40).map(lambda side: (side, side)),
    crop_pct=st.sampled_from([0.5, 0.875, 0.95, 1.0, 1.3]),  # above 1 the crop is larger than the resized image
    crop_mode=st.sampled_from(MODES),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_the_direct_way_gives_the_pixels_of_timms_steps(
    size: tuple[int, int], inputs: tuple[int, int], crop_pct: float, crop_mode: str, interpolation: str
) -> None:
    """Whatever the sizes, and for images longer than timm itself takes, of which the middle is taken first."""
    p = Preprocessing((3, *inputs), interpolation, crop_pct, crop_mode, mean=(0.5, 0.4, 0.1), std=(1.0, 1.0, 1.0))
    assume(min(p.sides()) > 0)
    assert p.geometry is not None
    image, out = photo(*size), np.full(p.input_size, 7, np.uint8)
    try:
        theirs = p._apply(image, p._steps)
    except ValueError as error:  # timm makes the image 0 pixels wide
        with pytest.raises(ValueError, match=str(error)):
            p.evaluate(image)
        return
    ours = p.evaluate(image)
    p.evaluate_into(image, out)
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.from_numpy(out), theirs)
    assert ours.stride() == theirs.stride()
    assert torch.equal(p.resize(image), p._apply(image, [*p._steps[:-2], p._steps[-1]]))


@pytest.mark.parametrize("crop_mode", MODES)
def test_steps_that_are_not_known_are_left_to_timm(crop_mode: str) -> None:
    p = preprocessing(crop_mode=crop_mode)
    assert Geometry.of(p._steps) is not None
    assert Geometry.of([*p._steps[:-1], Normalize(p.mean, p.std)]) is None
    assert Geometry.of([*p._steps[:1], RandomCrop(224), p._steps[-1]]) is None
    assert Geometry.of([Resize(224, max_size=400), *p._steps[1:]]) is None
    assert Geometry.of([ResizeKeepRatio(224, random_scale_prob=0.5), *p._steps[1:]]) is None
    assert Geometry.of([Resize(224, InterpolationMode.NEAREST_EXACT), *p._steps[1:]]) is None


def test_an_image_of_another_mode_is_left_to_timm() -> None:
    assert preprocessing().evaluate(photo(40, 30).convert("L")).shape == (1, 224, 224)
