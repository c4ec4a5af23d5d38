"""Anything in any order: no voxel of any segment, no name and no voxel of the volume is ever lost or wrong."""

from __future__ import annotations

import pytest

from random_user import RandomUser


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_user_does_each_segment_holds_what_it_must(seed, vtk_errors):
    user = RandomUser(seed)
    told = [user.act() for _ in range(150)]
    assert len({each.split(":")[0] for each in told}) > 15
    # Slicer's own complaint where the surface of a segment is shown that holds nothing any more.
    vtk_errors[:] = [error for error in vtk_errors if "vtkDiscreteFlyingEdges3D" not in error]
