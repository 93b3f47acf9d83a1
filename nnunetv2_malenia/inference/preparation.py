"""From a case's files to the array that the network sees, checked; in a background process, or here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_malenia.files import sha256_of
from nnunetv2_malenia.inference.geometry import affine_of
from nnunetv2_malenia.inference.image_formats import NIFTI_ENDINGS, to_nifti
from nnunetv2_malenia.inference.input_checks import (
    check_channels,
    check_grid,
    check_same_grid,
    doubts_about_header,
    doubts_about_intensities,
    open_nifti,
    replace_non_finite,
)
from nnunetv2_malenia.volumes import InputError


@dataclass
class PreparedCase:
    """What became of a case's files.

    inputs: file name -> SHA-256. fault: why the case cannot be used, in one line; data and properties are there
    only without one. data (C, Z, Y, X) float32 on the preprocessed grid; properties: nnU-Net's, and `writer`, the
    reader-writer that knows how to store results in the image's geometry, and `stored_affine`, (4, 4), from the image's
    own x, y, z, before any reorientation, to RAS millimetres, and `dicom_folder`: a series' folder, or None.
    """

    inputs: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fault: str | None = None
    data: np.ndarray | None = None
    properties: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Preparation:
    """Check, read and preprocess cases as the model's plans say."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    num_channels: int

    def __call__(self, channels: Mapping[int, Path]) -> PreparedCase:
        """channels: number -> file. What is wrong with the input is in the result, not raised."""
        case = PreparedCase()
        try:
            case.inputs.update((path.name, sha256_of(path)) for path in channels.values())
            files = check_channels(channels, self.num_channels)
            data, case.properties = self._read(files, case.warnings)
            self._check_voxels(files, data, case.warnings)
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
        """The case as the model's own reader gives it, (C, Z, Y, X) float32, with the spacing of the affine."""
        reader = self.plans_manager.image_reader_writer_class
        names = [file.name for file in files]
        with tempfile.TemporaryDirectory(prefix="malenia_") as folder:
            readable, stored_affine = list(files), None
            if set(NIFTI_ENDINGS) & set(reader.supported_file_endings):
                readable = [_as_nifti(file, Path(folder) / f"{file.name}.nii") for file in files]
                images = [open_nifti(file) for file in readable]
                for i, (name, image) in enumerate(zip(names, images, strict=True)):
                    check_grid(name, image, self.configuration_manager.spacing)
                    if image.ndim > 3:  # axes of length 1, which no reader takes
                        readable[i] = Path(folder) / f"{i}_3d.nii"
                        nib.save(nib.funcs.squeeze_image(image), readable[i])
                check_same_grid(names, images)
                stored_affine = images[0].affine
                warnings += (doubts := doubts_about_header(images[0]))
                if doubts and reader is SimpleITKIO and self.dataset_json["file_ending"] in NIFTI_ENDINGS:
                    reader = NibabelIO  # reads the same voxels in the same order, and keeps to the affine
            try:
                data, properties = reader().read_images([str(file) for file in readable])
            except (RuntimeError, AssertionError) as error:
                why = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{files[0].name}: {reader.__name__} cannot read it ({why})") from error
        read_affine = affine_of(properties)
        return data, properties | {
            "spacing": nib.affines.voxel_sizes(read_affine)[::-1].tolist(),
            "stored_affine": read_affine if stored_affine is None else stored_affine,
            "writer": reader,
            "dicom_folder": files[0] if files[0].is_dir() else None,
        }

    def _check_voxels(self, files: Sequence[Path], data: np.ndarray, warnings: list[str]) -> None:
        statistics = self.plans_manager.foreground_intensity_properties_per_channel
        for i, (file, channel) in enumerate(zip(files, data, strict=True)):
            is_ct = self.configuration_manager.normalization_schemes[i] == "CTNormalization"
            warnings += replace_non_finite(file.name, channel)
            warnings += doubts_about_intensities(channel, is_ct, statistics[str(i)])


def _as_nifti(source: Path, target: Path) -> Path:
    if not source.is_dir() and source.name.endswith(NIFTI_ENDINGS):
        return source
    to_nifti(source, target)
    return target
