"""From a case's files to the array that the network sees, checked; in a background process, or here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_malenia.files import sha256_of
from nnunetv2_malenia.inference.geometry import MaskWriter, reader_affine
from nnunetv2_malenia.inference.input_checks import (
    check_channels,
    check_content,
    check_extent,
    doubts_about_intensities,
)
from nnunetv2_malenia.volumes import (
    ENDINGS,
    InputError,
    Volume,
    grid_difference,
    is_orthonormal,
    open_volume,
    replace_non_finite,
    turned_affine,
    write_volume,
)


@dataclass
class PreparedCase:
    """What became of a case's files.

    inputs: file name -> SHA-256. fault: why the case cannot be used, in one line; data and properties are there
    only without one. data (C, Z, Y, X) float32 on the preprocessed grid; properties: nnU-Net's, and `affine` and
    `stored_affine`, (4, 4), to RAS millimetres from x, y, z as the reader gave them, and from the image's own before
    any reorientation; `writer`: makes what stores results in the image's geometry; `dicom_folder`: a series', or None.
    """

    inputs: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fault: str | None = None
    data: np.ndarray | None = None
    properties: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Preparation:
    """Check, read and preprocess cases as the model's plans say. names_side: whether a query names left or right."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    num_channels: int
    names_side: bool = False

    def __call__(self, channels: Mapping[int, Path]) -> PreparedCase:
        """channels: number -> file. What is wrong with the input is in the result, not raised."""
        case = PreparedCase()
        try:
            case.inputs.update((path.name, sha256_of(path)) for path in channels.values())
            files = check_channels(channels, self.num_channels)
            data, case.properties = self._read(files, case.warnings)
            self._check_voxels(files, data, case.warnings)
            plans, target = self.plans_manager, self.configuration_manager.spacing
            seen = [target[axis] for axis in plans.transpose_backward]
            check_content(files[0].name, data, case.properties["spacing"], seen)
        except InputError as error:
            case.fault = str(error)
        except OSError as error:
            case.fault = f"{error.filename or 'the image'}: cannot be read ({error.strerror or error})"
        else:
            preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
            data, _, case.properties = preprocessor.run_case_npy(
                data, None, case.properties, self.plans_manager, self.configuration_manager, self.dataset_json
            )
            case.data = np.ascontiguousarray(data, dtype=np.float32)
        return case

    def _read(self, files: Sequence[Path], warnings: list[str]) -> tuple[np.ndarray, dict]:
        """The case as the model's own reader gives it, (C, Z, Y, X) float32, with the geometry of the exact affine."""
        reader = self.plans_manager.image_reader_writer_class
        if self.dataset_json["file_ending"] not in ENDINGS:
            data, properties = _read_images(reader, files, files[0].name)
            affine = reader_affine(properties)
            return data, properties | {"affine": affine, "stored_affine": affine, "writer": reader}
        first, *others = volumes = [open_volume(file, file.name) for file in files]
        for other in others:
            if difference := grid_difference(other, first):
                raise InputError(f"{difference}; resample the channels to one grid")
        check_extent(first, self.configuration_manager.spacing)
        if self.names_side and not first.tells_sides:
            raise InputError(
                f"{first.name}: the header does not say where left and right are, and a query names a side; convert "
                "the image again, or ask without sides"
            )
        warnings += dict.fromkeys(doubt for volume in volumes for doubt in volume.doubts)
        if reader is SimpleITKIO and not is_orthonormal(first.affine):
            reader = NibabelIO  # reads the same voxels in the same order, and sheared images too
        with tempfile.TemporaryDirectory(prefix="malenia_") as folder:
            plain = [
                _plain_file(volume, file, first.affine, Path(folder) / f"{i}.nii")
                for i, (volume, file) in enumerate(zip(volumes, files, strict=True))
            ]
            data, properties = _read_images(reader, plain, first.name)
        affine = turned_affine(first.affine, first.shape, reader_affine(properties))
        return data, properties | {
            "spacing": nib.affines.voxel_sizes(affine)[::-1].tolist(),
            "affine": affine,
            "stored_affine": first.affine,
            "writer": partial(MaskWriter, first.header),
            "dicom_folder": files[0] if files[0].is_dir() else None,
        }

    def _check_voxels(self, files: Sequence[Path], data: np.ndarray, warnings: list[str]) -> None:
        statistics = self.plans_manager.foreground_intensity_properties_per_channel
        for i, (file, channel) in enumerate(zip(files, data, strict=True)):
            is_ct = self.configuration_manager.normalization_schemes[i] == "CTNormalization"
            warnings += replace_non_finite(file.name, channel)
            warnings += doubts_about_intensities(channel, is_ct, statistics[str(i)])


def _plain_file(volume: Volume, file: Path, affine: np.ndarray, place: Path) -> Path:
    """A whole NIfTI file that every reader reads as this volume on the grid of `affine`: its own, or one at `place`."""
    if volume.is_plain and np.array_equal(volume.affine, affine):
        volume.verify()
        return file
    write_volume(volume.voxels(), affine, place)
    return place


def _read_images(reader: type[BaseReaderWriter], files: Sequence[Path], name: str) -> tuple[np.ndarray, dict]:
    try:
        with np.errstate(over="ignore"):  # of numbers beyond float32, which become infinite and are told
            return reader().read_images([str(file) for file in files])
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: {reader.__name__} cannot read it ({why})") from error
