"""Golden twins of training/targets.py and of the marginal loss: plain loops over sets and lists, in float64."""

from __future__ import annotations

import math

NO, YES, UNKNOWN = "no", "yes", "unknown"


def fit_loop(asked, has, aspect_of, can_coincide, features=7):
    """Does a lesion with phrases `has` fit a query for `asked`? Sets of phrase indices; can_coincide(p, q) -> bool.

    features: the aspect of which a lesion has all values that are stated, and not one or another of them.
    """
    answers = []
    for aspect in {aspect_of[p] for p in asked}:
        wanted = [p for p in asked if aspect_of[p] == aspect]
        stated = [p for p in has if aspect_of[p] == aspect]
        common = [p for p in stated if p in wanted]
        if common and (aspect == features or len(common) == len(stated)):
            answers.append(YES)
        elif not stated or any(can_coincide(p, q) for p in wanted for q in stated):
            answers.append(UNKNOWN)
        else:
            answers.append(NO)
    return NO if NO in answers else UNKNOWN if UNKNOWN in answers else YES


def answers_loop(fits, labels_of_type, annotated, num_labels):
    """One query's answer at the voxels of each label value.

    fits: the answer for each lesion type; labels_of_type: set of label values of each; annotated: bool of each. What a
    voxel may be: one of the annotated types that its label shows; otherwise none of them, or hidden in it any type that
    nobody annotated.
    """
    answers = []
    for label in range(num_labels):
        shown = [f for f, values, a in zip(fits, labels_of_type, annotated, strict=True) if a and label in values]
        hidden = [f for f, a in zip(fits, annotated, strict=True) if not a]
        if YES in shown:
            answers.append(YES)
        elif UNKNOWN in shown or (not shown and any(f != NO for f in hidden)):
            answers.append(UNKNOWN)
        else:
            answers.append(NO)
    return answers


def marginal_cross_entropy_loop(logits, target, is_annotated):
    """Mean over voxels of -log p(target), background's p holding that of every unannotated class; Shi et al. 2021.

    logits: one list of class logits a voxel; target: class of each voxel; is_annotated: bool of each class.
    """
    losses = []
    for row, wanted in zip(logits, target, strict=True):
        top = max(row)
        weights = [math.exp(x - top) for x in row]
        own = weights[wanted]
        if wanted == 0:
            own += sum(w for w, known in zip(weights[1:], is_annotated[1:], strict=True) if not known)
        losses.append(-math.log(own / sum(weights)))
    return sum(losses) / len(losses)
