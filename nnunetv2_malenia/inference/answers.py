"""From what the network said of a case to its answers: lesions, aspects, diseases, masks in the image's geometry.

Lesions are found, read and judged on the preprocessed grid; only the boxes around those that stay are resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cc3d
import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from skimage.segmentation import watershed
from torch import Tensor

from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.findings import CheckedAttribute, Lesion, LesionFinding
from nnunetv2_malenia.inference.image_grid import Box, ImageGrid
from nnunetv2_malenia.inference.interpretation import Interpreter
from nnunetv2_malenia.inference.lesions import (
    Component,
    ImageLesion,
    find_components,
    label_map,
    least_voxels,
    measure_lesion,
    moved,
    number_lesions,
    voxel_ml,
    without_overlap,
)
from nnunetv2_malenia.inference.reading import SimilarityMap
from nnunetv2_malenia.inference.sliding_window import QueryLabelManager
from nnunetv2_malenia.volumes import InputError

TOKEN_SHARE = 0.25  # a token that holds less of a component than this makes no lesion of its own
LEAST_MATCH = 0.5  # a lesion that matches a query less than this is of another type
LEAST_SHARE = 0.25  # a smaller part of a lesion is of the query's type only if the whole lesion is


class Found(NamedTuple):
    """A lesion on the preprocessed grid. box: its slices, a voxel wider than it where the grid goes on; of the box,
    inside (z, y, x) bool and logits (z, y, x); similarity (V,): mean under the lesion, None where nothing was read."""

    box: Box
    inside: np.ndarray
    logits: np.ndarray
    similarity: np.ndarray | None


class QueryAnswer(NamedTuple):
    """What was found for a query. greatest_logit: in the image, but for the `other_type` components of other types."""

    found: list[Found]
    other_type: int
    greatest_logit: float
    checked: tuple[CheckedAttribute, ...]


class FoundCase(NamedTuple):
    """All answers on the preprocessed grid, of which `shape` is the shape: small enough to go to another process."""

    answers: list[QueryAnswer]
    shape: tuple[int, ...]


class Answers(NamedTuple):
    """In the geometry of the image as read. lesions: of each query; label_map (Z, Y, X): query ids, or lesion ids when
    discovering; affine (4, 4): x, y, z to RAS millimetres."""

    lesions: list[list[ImageLesion]]
    label_map: np.ndarray
    affine: np.ndarray
    findings: list[LesionFinding]

    def mask(self, query: int) -> np.ndarray:
        """(Z, Y, X) bool: all lesions of a query."""
        return number_lesions((lesion.component for lesion in self.lesions[query]), self.label_map.shape) > 0


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

    @property
    def _limit(self) -> float:
        """The logit that a voxel must exceed."""
        return math.log(self.threshold / (1 - self.threshold))

    def find(self, logits: Tensor, reading: SimilarityMap) -> FoundCase:
        """logits (Q + 1, Z, Y, X) on the preprocessed grid, the last for any lesion. InputError if not finite."""
        if not all(torch.isfinite(channel).all() for channel in logits):
            raise InputError("the network's answer is not finite; check the image's intensities")
        any_lesion = self._components(logits[-1], reading)
        held = number_lesions((component for component, _ in any_lesion), logits.shape[1:])
        answers = []
        for i in range(len(self.queries)):
            components = any_lesion if self.discover else self._components(logits[i], reading)
            belongs = [self._belongs(i, component, mean, held, any_lesion) for component, mean in components]
            kept = [each for each, stays in zip(components, belongs, strict=True) if stays]
            of_others = [component for (component, _), stays in zip(components, belongs, strict=True) if not stays]
            answers.append(
                QueryAnswer(
                    found=[_with_logits(component, mean, logits[i]) for component, mean in kept],
                    other_type=len(of_others),
                    greatest_logit=_greatest(logits[i], of_others),
                    checked=self._checked(i, [mean for _, mean in kept], [mean for _, mean in any_lesion]),
                )
            )
        return FoundCase(answers, tuple(logits.shape[1:]))

    def render(self, case: FoundCase, properties: dict) -> Answers:
        """The answers in the geometry of the image as read. properties: what nnU-Net's preprocessor noted of it."""
        grid = ImageGrid.of(case.shape, properties, self.plans_manager, self.configuration_manager)
        affine = properties["affine"]
        least = least_voxels(self.min_volume_ml, affine)
        lesions, left_out = [], []
        for i, answer in enumerate(case.answers):
            parts = [part for each in answer.found for part in self._in_image(i, each, grid)]
            large = [part for part in parts if part.component.voxels.sum() >= least]
            lesions.append(sorted(large, key=lambda part: -int(part.component.voxels.sum())))
            left_out.append(len(parts) - len(large))
        if self.discover:
            lesions[0] = without_overlap(lesions[0], grid.image_shape)
            labels = number_lesions((lesion.component for lesion in lesions[0]), grid.image_shape)
        else:
            labels = label_map(lesions, grid.image_shape)
        findings = [
            LesionFinding(
                query_id=i + 1,
                name=query.name,
                seen_in_training=seen,
                presence_score=float(torch.sigmoid(torch.tensor(answer.greatest_logit))),
                volume_ml=sum(int(lesion.component.voxels.sum()) for lesion in lesions[i]) * voxel_ml(affine),
                lesions=self._measured(i, lesions, affine, labels.shape),
                left_out=left_out[i],
                other_type=answer.other_type,
                attributes=query.attributes,
                checked=answer.checked,
            )
            for i, (query, seen, answer) in enumerate(zip(self.queries, self.seen, case.answers, strict=True))
        ]
        return Answers(lesions, labels, affine, findings)

    def _components(self, logits: Tensor, reading: SimilarityMap) -> list[tuple[Component, np.ndarray | None]]:
        """Lesions of a channel (Z, Y, X), largest first, each with the mean similarity under it."""
        components = [(each, reading.rows_of(each)) for each in find_components((logits > self._limit).numpy())]
        if self.discover:
            parts = [part for each, rows in components for part in split_by_token(each, rows, reading.token)]
            parts.sort(key=lambda part: -int(part.voxels.sum()))
            components = [(part, reading.rows_of(part)) for part in parts]
        return [(each, mean_similarity(rows, reading.similarity)) for each, rows in components]

    def _belongs(
        self,
        query: int,
        component: Component,
        own: np.ndarray | None,
        held: np.ndarray,
        any_lesion: Sequence[tuple[Component, np.ndarray | None]],
    ) -> bool:
        """Whether a component c of a query's mask is of its type, read as a whole and not voxel by voxel.

        l is the lesion of any type that holds most of c, and g(x) the query's match with the mean similarity under x;
        what was not read matches. c belongs where `g(c) >= LEAST_MATCH`, and `|c| >= LEAST_SHARE |l|` or
        `g(l) >= LEAST_MATCH`: a small part that matches, of a lesion that does not, is a leak into that lesion.
        held (Z, Y, X): lesions of any type, numbered from 1 in their order. Other queries have no say.
        """
        if self.discover:
            return True
        if not self._matches(query, own):
            return False
        counts = np.bincount(held[component.box][component.voxels])[1:]
        if not counts.any():
            return True
        holder, mean = any_lesion[int(counts.argmax())]
        return component.voxels.sum() >= LEAST_SHARE * holder.voxels.sum() or self._matches(query, mean)

    def _matches(self, query: int, mean: np.ndarray | None) -> bool:
        return mean is None or self.interpreter.match(query, mean) >= np.log(LEAST_MATCH)

    def _in_image(self, query: int, found: Found, grid: ImageGrid) -> list[ImageLesion]:
        """A lesion in the image; several where resampling takes it apart.

        A voxel is the lesion's if its logit exceeds the limit and a neighbour on the preprocessed grid is: voxels of
        one cell touch, so that all of its neighbours above the limit are of one lesion.
        """
        logits = grid.resampled(found.logits, found.box)
        voxels = (logits > self._limit) & (grid.resampled(found.inside, found.box) > 0)
        fit = -np.inf if found.similarity is None else self.interpreter.fit(query, found.similarity)
        box, lesions = grid.in_image(found.box), []
        for part in find_components(voxels):
            greatest = torch.tensor(logits[part.box][part.voxels].max())
            component = Component(moved(part.box, box), part.voxels)
            lesions.append(ImageLesion(component, float(greatest.sigmoid()), fit, found.similarity))
        return lesions

    def _measured(
        self, query: int, lesions: Sequence[Sequence[ImageLesion]], affine: np.ndarray, shape: Sequence[int]
    ) -> tuple[Lesion, ...]:
        others = {each.name: lesions[i] for i, each in enumerate(self.queries) if i != query}
        measured = []
        for number, lesion in enumerate(lesions[query], start=1):
            result = measure_lesion(number, lesion, others, affine, shape)
            if (mean := lesion.similarity) is not None:
                read = {"aspects": self.interpreter.aspects(mean), "diseases": self.interpreter.diseases(mean)}
                result = result.model_copy(update=read)
            measured.append(result)
        return tuple(measured)

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


def _with_logits(component: Component, similarity: np.ndarray | None, logits: Tensor) -> Found:
    grown = [slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(component.box, logits.shape, strict=True)]
    padding = [(s.start - g.start, g.stop - s.stop) for s, g in zip(component.box, grown, strict=True)]
    return Found(tuple(grown), np.pad(component.voxels, padding), logits[tuple(grown)].clone().numpy(), similarity)


def _greatest(logits: Tensor, left_out: Sequence[Component]) -> float:
    """The greatest logit outside of some components."""
    if not left_out:
        return float(logits.max())
    logits = logits.clone()
    for component in left_out:
        logits[component.box][torch.from_numpy(component.voxels)] = -torch.inf
    return float(logits.max())


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
    parts = [find_components(grown == number)[0] for number in range(1, len(large) + 1)]
    return [Component(moved(part.box, component.box), part.voxels) for part in parts]


def image_probabilities(
    logits: np.ndarray, properties: dict, plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> np.ndarray:
    """(Q, Z, Y, X) in [0, 1], in the geometry of the image as read: nnU-Net's own way back to it."""
    _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans_manager,
        configuration_manager,
        QueryLabelManager(len(logits)),
        properties,
        return_probabilities=True,
    )
    return probabilities
