"""The small pictures of cases show what there is, also of a dim head in a wide dark field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedSAMSlicerLib.app.case_picture import draw, picture_path
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.volume.files import Volume


def test_a_dim_head_in_a_wide_dark_field_fills_its_picture_and_can_be_seen(tmp_path: Path):
    voxels = np.zeros((9, 120, 120), dtype=np.int16)
    j, i = np.ogrid[:120, :120]
    head = (i - 60) ** 2 + (j - 60) ** 2 < 25**2
    voxels[:, head] = np.random.default_rng(0).integers(80, 160, (9, int(head.sum())))
    voxels[8, head] = 2000  # one bright slice, where the eyes are
    label = np.zeros(voxels.shape, dtype=bool)
    label[4, 55:65, 55:65] = True
    dataset = SiteDataset.create(tmp_path / "site")
    case = dataset.add(Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0]), "MRI"), {"lesion": label})
    draw(dataset, case)
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(picture_path(dataset, case)))).max(axis=2)
    middle = picture[100:160, 180:240]
    assert middle.mean() > 120
    # From edge to edge: a tenth of the background would be seen in each row and column.
    assert (picture > 60).any(axis=0).mean() > 0.95
    assert (picture > 60).any(axis=1).mean() > 0.95
