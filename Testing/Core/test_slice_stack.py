"""A volume as a stack of slices that the model can see."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAMSlicerLib.volume.intensity import resolve_window
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@pytest.mark.parametrize(("axis", "numpy_axis"), [("i", 2), ("j", 1), ("k", 0)])
def test_the_slices_together_are_the_windowed_volume(a_ct, axis, numpy_axis):
    stack = SliceStack(a_ct, (1, 1, 1), axis=axis, window="abdomen")
    assert len(stack) == a_ct.shape[numpy_axis]
    windowed = resolve_window("abdomen", a_ct).apply(a_ct)
    slices = np.stack([stack.image(index) for index in range(len(stack))], axis=numpy_axis)
    np.testing.assert_array_equal(slices, windowed)
    assert slices.dtype == np.uint8


def test_the_axis_is_chosen_by_the_spacing_unless_it_is_given(a_ct):
    assert SliceStack(a_ct, (5.0, 1.0, 1.0)).axis == 0
    assert SliceStack(a_ct, (5.0, 1.0, 1.0), axis="j").axis == 1
    assert SliceStack(a_ct[:, 9:10], (1.0, 1.0, 5.0)).axis == 1


def test_the_voxels_are_neither_copied_nor_changed(a_ct):
    before = a_ct.tobytes()
    a_ct.flags.writeable = False
    stack = SliceStack(a_ct, (1, 1, 1))
    stack.image(4)[:] = 0
    assert np.shares_memory(stack.voxels, a_ct)
    assert a_ct.tobytes() == before


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (24, 30)), (3, (24, 30, 3)), (4, (24, 30, 3))], ids=["one", "RGB", "RGBA"]
)
def test_color_slices_have_three_channels_and_alpha_is_not_seen(channels, shape):
    voxels = np.random.default_rng(5).integers(0, 256, (2, 24, 30, channels), dtype=np.uint8)
    voxels[0, 0, 0], voxels[0, 0, 1] = 0, 255
    if channels == 4:
        voxels[..., 3] = 255
        voxels[..., :3] //= 2
    image = SliceStack(voxels, (1, 1, 5), axis="k").image(1)
    assert image.shape == shape
    pixels = voxels[1, ..., :3].astype(float)
    expected = (pixels / (127 if channels == 4 else 255) * 255).astype(np.uint8)
    np.testing.assert_array_equal(image, expected.reshape(shape))


@pytest.mark.parametrize("shape", [(24, 30), (2, 10, 24, 30, 3), (10, 0, 30)], ids=["2-D", "5-D", "empty"])
def test_an_array_that_is_no_volume_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match="A volume has 3 axes") as refused:
        SliceStack(np.zeros(shape), (1, 1, 1))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("values", [2, 6])
def test_a_volume_of_vectors_is_refused(values):
    with pytest.raises(ValueError, match=rf"has {values} values per voxel; .*extract one component"):
        SliceStack(np.zeros((3, 4, 5, values)), (1, 1, 1))


@pytest.mark.parametrize("axis", ["K", "axial", "", "ij"])
def test_an_unknown_axis_is_refused(a_ct, axis):
    with pytest.raises(ValueError, match=f"The axis '{axis}' is unknown: give auto, i, j or k"):
        SliceStack(a_ct, (1, 1, 1), axis=axis)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "f4", ">i2"])
@pytest.mark.parametrize("window", ["full", "40/20", "auto"])
def test_a_slice_and_its_parts_are_the_same_in_every_type_of_voxels(dtype, window):
    values = np.random.default_rng(6).integers(0, 120, (4, 20, 31)).astype(dtype)
    stack = SliceStack(values, (1, 1, 1), axis="j", window=window)
    expected = resolve_window(window, values).apply(values[:, 3])
    np.testing.assert_array_equal(stack.image(3), expected)
    np.testing.assert_array_equal(stack.image(3, np.s_[1:3, 5:30]), expected[1:3, 5:30])
    assert stack.image(3).flags.writeable
