"""Windows: what the model sees of the voxels, against MedSAM's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.intensity import CT_WINDOWS, guess_modality, resolve_window


def pre_ct_mr(voxels: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """The lines of MedSAM's pre_CT_MR.py, in double precision: a CT with a window (level, width), an MRI without."""
    if window is not None:
        level, width = window
        lower_bound, upper_bound = level - width / 2, level + width / 2
    else:
        lower_bound = np.percentile(voxels[voxels > 0], 0.5)
        upper_bound = np.percentile(voxels[voxels > 0], 99.5)
    data = np.clip(voxels.astype(np.float64), lower_bound, upper_bound)
    data = (data - np.min(data)) / (np.max(data) - np.min(data)) * 255.0
    if window is None:
        data[voxels == 0] = 0
    return np.uint8(data)


def made_up_mr(dtype: type = np.int16) -> np.ndarray:
    """Magnitudes with empty air around and a few very bright vessels."""
    random = np.random.default_rng(1)
    voxels = random.gamma(2.0, 150.0, (8, 40, 40))
    voxels[:, :10] = 0
    voxels[3, 20, 20] = 8000
    return voxels.astype(dtype)


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_a_preset_maps_every_hounsfield_unit_as_the_training_data_were(name):
    voxels = np.arange(-3072, 3072, dtype=np.int16).reshape(2, 48, 64)
    before = voxels.tobytes()
    windowed = resolve_window(name, voxels).apply(voxels)
    np.testing.assert_array_equal(windowed, pre_ct_mr(voxels, CT_WINDOWS[name]))
    assert windowed.dtype == np.uint8
    assert (windowed.min(), windowed.max()) == (0, 255)
    assert voxels.tobytes() == before


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [("abdomen", -160, 240), ("lung", -1350, 150), ("brain", 0, 80), ("mediastinum", -125, 225), ("bone", -500, 1300)],
)
def test_the_presets_are_the_usual_ones(name, black, white, a_ct):
    a_ct.flat[:2] = (-3000, 3000)
    found = resolve_window(name, a_ct)
    assert (found.lower, found.upper) == (black, white)


def test_an_mri_is_scaled_between_the_percentiles_of_its_voxels_above_0():
    voxels = made_up_mr()
    np.testing.assert_array_equal(resolve_window("mr", voxels).apply(voxels), pre_ct_mr(voxels, None))


def test_fractional_values_are_scaled_in_double_precision_as_the_training_data_were():
    voxels = np.random.default_rng(8).gamma(2.0, 150.0, (20, 150, 150)).astype(np.float32)
    found = resolve_window("mr", voxels)
    clipped = np.clip(voxels.astype(np.float64), found.lower, found.upper)
    expected = np.uint8((clipped - found.lower) / (found.upper - found.lower) * 255.0)
    np.testing.assert_array_equal(found.apply(voxels), expected)
    lower, upper = np.float32(found.lower), np.float32(found.upper)
    rounded = ((np.clip(voxels, lower, upper) - lower) / (upper - lower) * np.float32(255)).astype(np.uint8)
    assert (rounded != expected).any(), "the values must tell single from double precision"


def test_a_ct_that_does_not_fill_the_window_is_stretched_as_the_training_data_were():
    voxels = np.random.default_rng(2).integers(-100, 201, (4, 20, 20)).astype(np.int16)
    np.testing.assert_array_equal(resolve_window("abdomen", voxels).apply(voxels), pre_ct_mr(voxels, (40, 400)))


@pytest.mark.parametrize(
    ("text", "lower", "upper"), [("40/400", -160, 240), ("-600/1500", -1350, 150), ("+10.5/3", 9, 12)]
)
def test_level_and_width_can_be_given_as_numbers(text, lower, upper, a_ct):
    a_ct.flat[:2] = (-3000, 3000)
    found = resolve_window(text, a_ct)
    assert (found.lower, found.upper) == (lower, upper)


def test_full_reaches_from_the_smallest_to_the_largest_value(a_ct):
    windowed = resolve_window("full", a_ct).apply(a_ct)
    np.testing.assert_array_equal(windowed == 0, a_ct == a_ct.min())
    np.testing.assert_array_equal(windowed == 255, a_ct == a_ct.max())


def test_a_slice_is_windowed_by_the_range_of_the_whole_volume():
    voxels = made_up_mr()
    found = resolve_window("auto", voxels)
    np.testing.assert_array_equal(np.stack([found.apply(each) for each in voxels]), pre_ct_mr(voxels, None))


@pytest.mark.parametrize("window", ["auto", "abdomen", "mr", "full", "40/400"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=["int16", "float32"])
def test_the_voxels_are_only_read(window, dtype, a_ct):
    voxels = a_ct.astype(dtype)
    before = voxels.tobytes()
    voxels.flags.writeable = False
    image = resolve_window(window, voxels).apply(voxels)
    image[:] = 7
    assert voxels.tobytes() == before


@pytest.mark.parametrize("window", ["auto", "abdomen", "mr", "full", "40/400"])
def test_nan_is_black_and_infinities_take_the_ends_and_all_else_is_as_without_them(window, a_ct):
    voxels = a_ct.astype(np.float32)
    # The same values without and with the broken voxels, so that ranges and percentiles are the same.
    broken = np.concatenate([voxels, np.full_like(voxels[:1], np.nan)])
    broken[-1, 1], broken[-1, 2] = np.inf, -np.inf
    windowed = resolve_window(window, broken).apply(broken)
    np.testing.assert_array_equal(windowed[:-1], resolve_window(window, voxels).apply(voxels))
    assert (windowed[-1, 0] == 0).all()
    assert (windowed[-1, 1] == 255).all()
    assert (windowed[-1, 2] == 0).all()


@pytest.mark.parametrize("window", ["auto", "abdomen", "mr", "full"])
def test_a_volume_without_any_difference_or_finite_voxel_is_refused(window):
    with pytest.raises(ValueError, match="same value, 7: there is nothing to segment"):
        resolve_window(window, np.full((3, 4, 5), 7, dtype=np.int16))
    with pytest.raises(ValueError, match="same value, 7: there is nothing to segment"):
        resolve_window(window, np.array([[[7, np.nan, np.inf]]]))
    with pytest.raises(ValueError, match="No voxel of the volume has a finite value"):
        resolve_window(window, np.full((3, 4, 5), np.nan))


@pytest.mark.parametrize(("values", "seen"), [((300, 900), "300 to 900"), ((-1000, -200), "-1000 to -200")])
def test_a_window_in_which_all_voxels_look_the_same_is_refused_with_the_values_there_are(values, seen):
    voxels = np.linspace(*values, 60).astype(np.int16).reshape(3, 4, 5)
    text = rf"{seen}, all look the same in the window abdomen .level 40, width 400.*LEVEL/WIDTH"
    with pytest.raises(ValueError, match=text):
        resolve_window("abdomen", voxels)


@pytest.mark.parametrize(
    "text",
    [
        "", "Abdomen", "liver", "40", "40/", "/400", "40/0", "40/-400", "a/b", "1.2.3/4", "40/400/1", "nan/400",
        "40/inf", "./.",
    ],
)  # fmt: skip
def test_a_bad_window_is_refused_with_what_can_be_given(text, a_ct):
    with pytest.raises(ValueError, match=r"is unknown: give auto, abdomen, .*LEVEL/WIDTH such as 40/400") as refused:
        resolve_window(text, a_ct)
    assert repr(text) in str(refused.value)


def normal(mean: float, deviation: float) -> np.ndarray:
    return np.random.default_rng(3).normal(mean, deviation, (6, 30, 30))


def made_up_ct(*, padding: int | None = None, air: bool = True) -> np.ndarray:
    voxels = normal(40, 15)
    voxels[:, 5:10] = normal(-105, 20)[:, 5:10]
    voxels[:, 20:22] = normal(500, 100)[:, 20:22]
    if air:
        voxels[:, :3] = -1000
    if padding is not None:
        voxels[:, :, :3] = padding
    return voxels.round().astype(np.int16)


@pytest.mark.parametrize(
    ("voxels", "modality"),
    [
        (made_up_ct(), "ct"),
        (made_up_ct(padding=-3024), "ct"),
        (made_up_ct(air=False), "ct"),
        (made_up_ct().astype(np.float32) + 0.25, "ct"),
        (made_up_mr(), "mr"),
        (made_up_mr(np.float32), "mr"),
        (normal(0, 1), "mr"),
        (normal(0, 1).clip(-3, 3).astype(np.float32), "mr"),
        (normal(0.5, 0.1), "mr"),
        (normal(128, 30).clip(0, 255).astype(np.uint8), "display"),
        (normal(128, 30).clip(0, 255).round().astype(np.int16), "display"),
    ],
    ids=[
        "CT", "CT with padding -3024", "CT cropped to the abdomen", "CT in float", "MRI", "MRI in float",
        "z-scored MRI", "clipped z-scored MRI", "MRI in 0..1", "bytes", "bytes stored as int16",
    ],
)  # fmt: skip
def test_the_modality_is_guessed_from_the_values(voxels, modality):
    assert guess_modality(voxels) == modality
    by_name = {"ct": "abdomen", "mr": "mr", "display": "full"}[modality]
    assert resolve_window("auto", voxels) == resolve_window(by_name, voxels)


def test_one_broken_voxel_does_not_change_the_guess():
    for modality, voxels in (("ct", made_up_ct()), ("mr", made_up_mr())):
        broken = voxels.astype(np.float32)
        broken[0, 0, :3] = np.nan, np.inf, -np.inf
        assert guess_modality(broken) == modality


def test_the_modality_of_real_images_is_guessed(samples):
    assert guess_modality(read_volume(samples["example_ct_sm.nii.gz"]).voxels) == "ct"
    assert guess_modality(read_volume(samples["example_mr_sm.nii.gz"]).voxels) == "mr"


def test_color_keeps_its_range_and_the_ratio_of_its_channels():
    photo = np.random.default_rng(4).integers(0, 256, (1, 20, 20, 3)).astype(np.uint16)
    photo[0, 0, 0], photo[0, 0, 1] = 0, 255
    np.testing.assert_array_equal(resolve_window("auto", photo).apply(photo), photo)


def test_a_volume_of_bytes_is_shown_as_it_is():
    voxels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    np.testing.assert_array_equal(resolve_window("auto", voxels).apply(voxels), voxels)
