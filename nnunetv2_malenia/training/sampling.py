"""Patches where lesions are: which foreground nnU-Net's loader draws from."""

from __future__ import annotations

from collections.abc import Set
from typing import Any


class LesionFirst:
    """An nnU-Net data set whose forced foreground is a lesion wherever the case has one.

    nnU-Net draws the class of an oversampled patch evenly from all that a case holds. Where organs are labelled beside
    lesions, most draws would be organs, which every patch shows anyway.
    """

    def __init__(self, dataset: Any, lesion_values: Set[int]) -> None:
        """dataset: one of nnU-Net's data set classes. lesion_values: label values that belong to a lesion type."""
        self.dataset, self.lesion_values = dataset, lesion_values
        self.identifiers = dataset.identifiers
        self.current = ""  # the case loaded last, whose patch the loader's transforms get next

    def load_case(self, identifier: str) -> tuple:
        """nnU-Net's case, whose class_locations lack what is no lesion; unchanged if no lesion is in it."""
        self.current = identifier
        data, seg, seg_prev, properties = self.dataset.load_case(identifier)
        locations = properties["class_locations"]
        if any(len(where) and self._is_lesion(key) for key, where in locations.items()):
            # nnU-Net's key for "annotated at all", of data with an ignore label, holds -1 and stays
            kept = {key: where for key, where in locations.items() if self._is_lesion(key) or -1 in _values(key)}
            properties = {**properties, "class_locations": kept}
        return data, seg, seg_prev, properties

    def _is_lesion(self, key: int | tuple[int, ...]) -> bool:
        return _values(key) <= self.lesion_values


def _values(key: int | tuple[int, ...]) -> set[int]:
    return set(key) if isinstance(key, tuple) else {key}
