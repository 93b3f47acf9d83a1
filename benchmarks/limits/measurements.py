"""What hand-made measurements of reference masks tell of the aspects, with organ labels and intensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area, regionprops
from sklearn.ensemble import RandomForestClassifier

from benchmarks.aspects.measures import fits, share
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable
from nnunetv2_malenia.evaluation.metrics import CONNECTIVITY

MEASURED = ("shape", "density", "density_variation", "surface", "relationship", "specific_features")
LEAST_VOXELS = 4
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
    contact = ndimage.binary_dilation(lesion, np.ones((3, 3, 3))) & ~lesion
    inside, middle = image[lesion], image[core if core.any() else lesion]
    contrast = middle.mean() - image[around].mean()
    gradient = ndimage.gaussian_gradient_magnitude(image, 0.7)[shell | (lesion & ~core)].mean()
    touched = Counter(labels[contact].tolist())
    most = [count / contact.sum() for _, count in touched.most_common(3)]
    return np.array([
        *_form(lesion, places),
        middle.mean(), middle.std(), inside.std(), *np.percentile(inside, (0, 10, 50, 90, 100)),
        image[shell].mean(), image[around].mean(), image[around].std(), contrast,
        gradient, gradient / (abs(contrast) + NEAR_ZERO), (image[shell].mean() - image[around].mean()) / contrast,
        len(touched), touched[0] / contact.sum(), *most, *[0.0] * (3 - len(most)),
    ])  # fmt: skip


def _form(lesion: np.ndarray, places: np.ndarray) -> list[float]:
    """Voxels, sphericity, ratios of the principal axes, solidity, largest inscribed radius; in voxels."""
    number = len(places)
    vertices, faces, _, _ = marching_cubes(ndimage.gaussian_filter(np.pad(lesion, 2).astype(float), 0.7), None)
    sphericity = np.pi ** (1 / 3) * (6 * number) ** (2 / 3) / mesh_surface_area(vertices, faces)
    spread = np.linalg.eigvalsh(np.cov(places.T) + np.eye(3) / 12)[::-1]  # of a voxel, 1 / 12
    solidity = min(regionprops(lesion.astype(np.uint8))[0].solidity, 1.0)  # infinite if flat, whose hull is empty
    radius = ndimage.distance_transform_edt(np.pad(lesion, 1)).max()
    return [number, sphericity, spread[1] / spread[0], spread[2] / spread[0], solidity, radius / number ** (1 / 3)]


def measure_folder(images: Path, references: Path, values: Mapping[str, int], table: AttributeTable) -> list[Measured]:
    """Every lesion of a folder of label maps, but for those of a few voxels."""
    lesions = []
    for path in sorted(references.glob("*.nii.gz")):
        case_id = path.name.removesuffix(".nii.gz")
        labels = np.asarray(nib.load(path).dataobj).astype(int)
        image = np.asarray(nib.load(images / f"{case_id}_0000.nii.gz").dataobj).astype(np.float32)
        for name, value in values.items():
            components, number = cc3d.connected_components(
                np.ascontiguousarray(labels == value), connectivity=CONNECTIVITY, return_N=True
            )
            for i in range(1, number + 1):
                lesion = components == i
                if lesion.sum() >= LEAST_VOXELS:
                    lesions.append((name, table.attributes_of(name, case_id), measure_lesion(image, labels, lesion)))
    return lesions


def forest_accuracy(
    train: Sequence[Measured], test: Sequence[Measured], unseen: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Group -> aspect -> share that a random forest of the training lesions reads right, as `aspects.measures.fits`."""
    accuracy: dict[str, dict[str, float]] = {"seen": {}, "unseen": {}}
    for aspect in MEASURED:
        known = [(getattr(drawn, aspect)[0], x) for _, drawn, x in train if getattr(drawn, aspect)]
        forest = RandomForestClassifier(500, min_samples_leaf=2, class_weight="balanced", random_state=0)
        forest.fit([x for _, x in known], [value for value, _ in known])
        for group, of_group in accuracy.items():
            asked = [
                (getattr(drawn, aspect), x) for name, drawn, x in test
                if getattr(drawn, aspect) and (name in unseen) == (group == "unseen")
            ]  # fmt: skip
            read = forest.predict([x for _, x in asked])
            of_group[aspect] = share(fits(aspect, value, drawn) for value, (drawn, _) in zip(read, asked, strict=True))
    return accuracy
