"""From what the network said of a case to its answers in the image's geometry: masks, lesions, aspects, diseases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import cc3d
import numpy as np
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from skimage.segmentation import watershed

from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.findings import CheckedAttribute, LesionFinding
from nnunetv2_malenia.inference.interpretation import Interpreter
from nnunetv2_malenia.inference.lesions import Component, find_components, label_map, least_voxels, measure_lesions
from nnunetv2_malenia.inference.reading import SimilarityMap
from nnunetv2_malenia.inference.sliding_window import QueryLabelManager
from nnunetv2_malenia.volumes import InputError

TOKEN_SHARE = 0.25  # a token that holds less of a component than this makes no lesion of its own
LEAST_MATCH = 0.5  # a lesion that matches a query less than this is of another type
LEAST_SHARE = 0.25  # a smaller part of a lesion is of the query's type only if the whole lesion is


class Answers(NamedTuple):
    """In the geometry of the image as read: probabilities (Q, Z, Y, X) in [0, 1], masks (Q, Z, Y, X) bool, label_map
    (Z, Y, X): query ids, or lesion ids when discovering; affine (4, 4): x, y, z to RAS millimetres."""

    probabilities: np.ndarray
    masks: np.ndarray
    label_map: np.ndarray
    affine: np.ndarray
    findings: list[LesionFinding]


@dataclass(frozen=True)
class CaseAnswers:
    """What was asked, and how what the network said of a case becomes its answers.

    discover: nothing was asked but for lesions of any type, and touching ones are told apart by their mask tokens.
    """

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    queries: list[LesionQuery]
    seen: list[bool | None]
    interpreter: Interpreter
    discover: bool
    threshold: float
    min_volume_ml: float

    def __call__(self, logits: np.ndarray, reading: SimilarityMap, properties: dict) -> Answers:
        """logits (Q + 1, Z, Y, X) on the preprocessed grid, the last for any lesion. InputError if not finite."""
        probabilities = image_probabilities(logits, properties, self.plans_manager, self.configuration_manager)
        affine = properties["affine"]
        least = least_voxels(self.min_volume_ml, affine)
        masks = probabilities > self.threshold
        components = [find_components(mask, least) for mask in masks]
        rows = [[self._rows(each, reading, properties) for each in found] for found, _ in components]
        asked, any_lesion = slice(None, -1), -1
        if self.discover:
            parts = [
                part for each, its in zip(components[0][0], rows[0], strict=True)
                for part in split_by_token(each, its, reading.token)
            ]  # fmt: skip
            parts.sort(key=lambda part: -int(part.voxels.sum()))
            components[0] = (parts, components[0][1])
            rows[0] = [self._rows(each, reading, properties) for each in parts]
        means = [[mean_similarity(each, reading.similarity) for each in found] for found in rows]
        lesions = number_lesions(components[any_lesion][0], masks.shape[1:])
        shown, other_type = probabilities[asked].copy(), []
        for i in range(len(self.queries)):
            found, erased = components[i]
            belongs = [
                self._belongs(i, each, mean, lesions, means[any_lesion])
                for each, mean in zip(found, means[i], strict=True)
            ]
            for each in compress(found, np.logical_not(belongs)):
                masks[i][each.box][each.voxels] = False
                shown[i][each.box][each.voxels] = 0
            components[i], means[i] = (list(compress(found, belongs)), erased), list(compress(means[i], belongs))
            other_type.append(belongs.count(False))
        findings = measure_lesions(self.queries, self.seen, shown, masks[asked], components[asked], affine)
        for i, finding in enumerate(findings):
            read = {
                "other_type": other_type[i],
                "lesions": self._described(finding, means[i]),
                "checked": self._checked(i, means[i], means[any_lesion]),
            }
            findings[i] = finding.model_copy(update=read)
        labels = (
            number_lesions(components[0][0], masks.shape[1:])
            if self.discover
            else label_map(masks[asked], probabilities[asked])
        )
        return Answers(probabilities[asked], masks[asked], labels, affine, findings)

    def _rows(self, component: Component, reading: SimilarityMap, properties: dict) -> np.ndarray:
        indices = np.argwhere(component.voxels) + [side.start for side in component.box]
        return reading.rows_at(indices, properties, self.plans_manager.transpose_forward)

    def _belongs(
        self,
        query: int,
        component: Component,
        own: np.ndarray | None,
        lesions: np.ndarray,
        lesion_means: Sequence[np.ndarray | None],
    ) -> bool:
        """Whether a component c of a query's mask is of its type, read as a whole and not voxel by voxel.

        l is the lesion of any type that holds most of c, and g(x) the query's match with the mean similarity under x;
        what was not read matches. c belongs where `g(c) >= LEAST_MATCH`, and `|c| >= LEAST_SHARE |l|` or
        `g(l) >= LEAST_MATCH`: a small part that matches, of a lesion that does not, is a leak into that lesion.
        lesions (Z, Y, X): numbered from 1, in the order of lesion_means. Other queries have no say.
        """
        if not self._matches(query, own):
            return False
        counts = np.bincount(lesions[component.box][component.voxels])[1:]
        if not counts.any():
            return True
        holder = int(counts.argmax())
        large = component.voxels.sum() >= LEAST_SHARE * (lesions == holder + 1).sum()
        return bool(large) or self._matches(query, lesion_means[holder])

    def _matches(self, query: int, mean: np.ndarray | None) -> bool:
        return mean is None or self.interpreter.match(query, mean) >= np.log(LEAST_MATCH)

    def _described(self, finding: LesionFinding, means: Sequence[np.ndarray | None]) -> tuple:
        return tuple(
            lesion
            if mean is None
            else lesion.model_copy(
                update={"aspects": self.interpreter.aspects(mean), "diseases": self.interpreter.diseases(mean)}
            )
            for lesion, mean in zip(finding.lesions, means, strict=True)
        )

    def _checked(
        self, query: int, own: Sequence[np.ndarray | None], any_lesion: Sequence[np.ndarray | None]
    ) -> tuple[CheckedAttribute, ...]:
        """Where the query's largest lesion is; without one, where that lesion of any type is which fits it best."""
        own = [mean for mean in own if mean is not None]
        others = [mean for mean in any_lesion if mean is not None]
        if not own and not others:
            return ()
        where = own[0] if own else max(others, key=lambda mean: self.interpreter.match(query, mean))
        return self.interpreter.check(query, where)


def mean_similarity(rows: np.ndarray, similarity: np.ndarray) -> np.ndarray | None:
    """Mean over a lesion's voxels of the similarities (K, V) at their rows (-1: not read) -> (V,), None if none was."""
    rows, counts = np.unique(rows[rows >= 0], return_counts=True)
    return (counts @ similarity[rows] / counts.sum()) if rows.size else None


def split_by_token(component: Component, rows: np.ndarray, token: np.ndarray) -> list[Component]:
    """A component's parts by the mask token that holds each voxel, if several tokens hold TOKEN_SHARE of it or more.

    rows (number of voxels,): of each voxel, in the order of argwhere; token (K, 2): tile and token of each row. Each
    part grows from its token's largest connected piece over the voxels left, so that it is connected itself. Tokens of
    different tiles do not mean the same thing: a component that was read in more than one stays whole.
    """
    if (rows < 0).any() or len(np.unique(token[rows, 0])) != 1:
        return [component]
    _, part_of, counts = np.unique(token[rows, 1], return_inverse=True, return_counts=True)
    large = np.flatnonzero(counts >= TOKEN_SHARE * len(rows))
    if len(large) < 2:
        return [component]
    places = np.argwhere(component.voxels)
    seeds = np.zeros(component.voxels.shape, np.int32)
    for number, part in enumerate(large, start=1):
        held = np.zeros_like(component.voxels)
        held[tuple(places[part_of == part].T)] = True
        seeds[cc3d.largest_k(held, k=1, connectivity=26) > 0] = number
    grown = watershed(np.zeros(seeds.shape), seeds, connectivity=np.ones((3, 3, 3)), mask=component.voxels)
    return [_tight(Component(component.box, grown == number)) for number in range(1, len(large) + 1)]


def _tight(component: Component) -> Component:
    places = np.argwhere(component.voxels)
    inner = tuple(slice(int(low), int(high) + 1) for low, high in zip(places.min(0), places.max(0), strict=True))
    box = tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(component.box, inner, strict=True))
    return Component(box, component.voxels[inner])


def number_lesions(components: Sequence[Component], shape: Sequence[int]) -> np.ndarray:
    """(Z, Y, X): each voxel's lesion id, from 1, 0 where there is none."""
    labels = np.zeros(shape, np.uint8 if len(components) < 255 else np.uint16)
    for number, component in enumerate(components):
        labels[component.box][component.voxels] = number + 1
    return labels


def image_probabilities(
    logits: np.ndarray, properties: dict, plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> np.ndarray:
    """(Q, Z, Y, X) in [0, 1], in the geometry of the image as read; nnU-Net undoes resampling, cropping, transposing.

    Raises InputError when the network's answer is not finite.
    """
    if not np.isfinite(logits).all():
        raise InputError("the network's answer is not finite; check the image's intensities")
    _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans_manager,
        configuration_manager,
        QueryLabelManager(len(logits)),
        properties,
        return_probabilities=True,
    )
    return probabilities
