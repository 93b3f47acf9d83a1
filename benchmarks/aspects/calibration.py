"""Whether scores are probabilities of being right: calibration error, and one temperature against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

BINS = 15
TEMPERATURES = (0.01, 100.0)
LEAST = 1e-6  # scores are kept this far from 0 and 1, whose log-odds are infinite


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Expected calibration error, sum over bins of n_b / n * |accuracy_b - mean score_b|; Guo et al., ICML 2017.

    scores (n,) in [0, 1], in BINS bins of equal width, (i / BINS, (i + 1) / BINS], 0 in the first. None of no score.
    """
    if not len(scores):
        return None
    score, is_right = np.asarray(scores, np.float64), np.asarray(right, np.float64)
    of_bin = np.clip(np.ceil(score * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(of_bin, is_right, BINS) - np.bincount(of_bin, score, BINS)
    return float(np.abs(gaps).sum() / len(score))


def fit_temperature(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The T of `tempered` under which what was right and wrong is likeliest, within TEMPERATURES. None of no score."""
    if not len(scores):
        return None
    is_right = np.asarray(right, bool)

    def loss(log_temperature: float) -> float:
        log_odds = _log_odds(scores) / np.exp(log_temperature)
        return float(np.logaddexp(0, np.where(is_right, -log_odds, log_odds)).mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def tempered(scores: Sequence[float], temperature: float) -> np.ndarray:
    """Scores p -> sigmoid(log(p / (1 - p)) / T). Of a softmax over two values, T divides its temperature's logits; over
    more, which CASE.json does not list, it weighs the best value against all others together."""
    return expit(_log_odds(scores) / temperature)


def _log_odds(scores: Sequence[float]) -> np.ndarray:
    return logit(np.clip(np.asarray(scores, np.float64), LEAST, 1 - LEAST))
