"""Whether files are those of a release, by the checksums that torchvision keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from preimage.errors import BadFile, BadParameter


def check_release(name: Literal["STL10", "CelebA"], folder: Path, files: Sequence[str]) -> None:
    """Compare files with the MD5 sums of a release.

    Raises `BadFile` for the first that differs, and `BadParameter` if torchvision is not installed.
    """
    try:
        from torchvision.datasets import STL10, CelebA
        from torchvision.datasets.utils import check_integrity
    except ImportError:
        raise BadParameter(
            "verify is true, and torchvision, which knows the checksums, is not installed",
            "torchvision, or verify = false",
            'pip install "preimage-data[torchvision]"',
        ) from None
    if name == "STL10":
        known = {file: digest for file, digest in (*STL10.train_list, *STL10.test_list)}  # noqa: C416 (lists, not tuples)
    else:
        known = {file: digest for _, digest, file in CelebA.file_list}
    for file in files:
        if not check_integrity(folder / file, known[file]):
            raise BadFile(
                f"{folder / file} is not the file of the release of {name}: its MD5 sum is not {known[file]}",
                "the file as it is published, or verify = false",
                "download it again",
            )
