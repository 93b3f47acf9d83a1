"""What hand-made measurements of masks, organ labels and intensities tell of the aspects."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area, regionprops
from sklearn.ensemble import RandomForestClassifier

from benchmarks.aspects.answers import Phantoms
from benchmarks.aspects.measures import fits, share
from benchmarks.aspects.pairing import best_ids, lesion_ids
from nnunetv2_malenia.attributes.schema import AspectValues
from nnunetv2_malenia.evaluation.volumes import find_volume, read_volume, volumes_in

MEASURED = ("shape", "density", "density_variation", "surface", "relationship", "specific_features")
LEAST_VOXELS = 4
TREES = 500
MARGIN = 5
NEAR_ZERO = 20.0  # HU, beside which a contrast is none

Measured = tuple[str, AspectValues, np.ndarray]  # type, as drawn, measurements


def measure_lesion(image: np.ndarray, labels: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Size, form, intensities inside and outside, border, contact. image (X, Y, Z) HU; labels: organs and lesions."""
    places = np.argwhere(lesion)
    box = tuple(
        slice(max(low - MARGIN, 0), high + MARGIN + 1)
        for low, high in zip(places.min(0), places.max(0), strict=True)
    )  # fmt: skip
    image, labels, lesion = image[box], labels[box], lesion[box]
    core, shell = ndimage.binary_erosion(lesion), ndimage.binary_dilation(lesion) & ~lesion
    around = ndimage.binary_dilation(lesion, iterations=3) & ~shell & ~lesion
    around = around if around.any() else shell
    contact = ndimage.binary_dilation(lesion, np.ones((3, 3, 3))) & ~lesion
    inside, middle = image[lesion], image[core if core.any() else lesion]
    contrast = middle.mean() - image[around].mean()
    no_zero = np.copysign(abs(contrast) + NEAR_ZERO, contrast)
    gradient = ndimage.gaussian_gradient_magnitude(image, 0.7)[shell | (lesion & ~core)].mean()
    touched = Counter(labels[contact].tolist())
    most = [count / contact.sum() for _, count in touched.most_common(3)]
    return np.array([
        *_form(lesion, places),
        middle.mean(), middle.std(), inside.std(), *np.percentile(inside, (0, 10, 50, 90, 100)),
        image[shell].mean(), image[around].mean(), image[around].std(), contrast,
        gradient, gradient / abs(no_zero), (image[shell].mean() - image[around].mean()) / no_zero,
        len(touched), touched[0] / contact.sum(), *most, *[0.0] * (3 - len(most)),
    ])  # fmt: skip


def _form(lesion: np.ndarray, places: np.ndarray) -> list[float]:
    """Voxels, sphericity, ratios of the principal axes, solidity, largest inscribed radius; in voxels."""
    number = len(places)
    vertices, faces, _, _ = marching_cubes(ndimage.gaussian_filter(np.pad(lesion, 2).astype(float), 0.7), None)
    sphericity = np.pi ** (1 / 3) * (6 * number) ** (2 / 3) / mesh_surface_area(vertices, faces)
    spread = np.linalg.eigvalsh(np.cov(places.T) + np.eye(3) / 12)[::-1]  # of a voxel, 1 / 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a flat lesion, whose hull is empty and solidity infinite
        solidity = min(regionprops(lesion.astype(np.uint8))[0].solidity, 1.0)
    radius = ndimage.distance_transform_edt(np.pad(lesion, 1)).max()
    return [number, sphericity, spread[1] / spread[0], spread[2] / spread[0], solidity, radius / number ** (1 / 3)]


@dataclass(frozen=True)
class OwnMasks:
    """A model's answers. lesions: folder of label maps of discover mode, a value each; organs: of classes by name."""

    lesions: Path
    organs: Path
    labels: Mapping[str, int]

    def read(self, case_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Lesions' ids (X, Y, Z), 0 outside; labels of organs and, another one, of lesions."""
        ids, labels = (read_volume(find_volume(folder, case_id)).voxels for folder in (self.lesions, self.organs))
        return ids, np.where(ids > 0, max(self.labels.values()) + 1, labels)


def measure_folder(phantoms: Phantoms, own: OwnMasks | None = None) -> list[Measured | None]:
    """Every lesion of the references, by its own mask, or by that of the model's lesions that shares most voxels with
    it; None for one that shares none, or of a few voxels. The order does not depend on `own`."""
    table, lesions = phantoms.table, []
    for case_id in volumes_in(phantoms.references):
        reference = read_volume(find_volume(phantoms.references, case_id)).voxels
        image = np.asarray(nib.load(phantoms.images / f"{case_id}_0000.nii.gz").dataobj, np.float32)
        found = own.read(case_id) if own else None
        for name, value in phantoms.values.items():
            truth = reference == value
            ids, labels = found or (lesion_ids(truth), reference)
            for best in best_ids(ids, truth):
                lesion = ids == best
                is_measured = best and lesion.sum() >= LEAST_VOXELS
                drawn = table.attributes_of(name, case_id)
                lesions.append((name, drawn, measure_lesion(image, labels, lesion)) if is_measured else None)
    return lesions


def forest_accuracy(
    train: Sequence[Measured | None], test: Sequence[Measured | None], unseen: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Group -> aspect -> share that a random forest of the training lesions reads right, as `aspects.measures.fits`.

    None where there is no lesion to learn from or to test. `lesions`: number of those tested.
    """
    tested = [each for each in test if each]
    accuracy: dict[str, dict[str, float | None]] = {}
    for group in ("seen", "unseen"):
        of_group = [each for each in tested if (each[0] in unseen) == (group == "unseen")]
        accuracy[group] = {"lesions": len(of_group)}
        for aspect in MEASURED:
            known = [(getattr(drawn, aspect)[0], x) for _, drawn, x in filter(None, train) if getattr(drawn, aspect)]
            asked = [(getattr(drawn, aspect), x) for _, drawn, x in of_group if getattr(drawn, aspect)]
            accuracy[group][aspect] = _forest_share(aspect, known, asked) if known and asked else None
    return accuracy


def _forest_share(
    aspect: str, known: Sequence[tuple[str, np.ndarray]], asked: Sequence[tuple[Sequence[str], np.ndarray]]
) -> float:
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, class_weight="balanced", random_state=0)
    forest.fit([x for _, x in known], [value for value, _ in known])
    read = forest.predict([x for _, x in asked])
    return share(fits(aspect, value, drawn) for value, (drawn, _) in zip(read, asked, strict=True))
