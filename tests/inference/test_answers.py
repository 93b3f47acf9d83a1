"""Touching lesions are told apart by their mask tokens; a query's lesions are of its type, read as a whole."""

import cc3d
import numpy as np
import pytest
import torch
from tiny_model import save_ct, tiny_preparation

from nnunetv2_malenia.attributes.schema import AspectValues, LesionQuery
from nnunetv2_malenia.inference.answers import CaseAnswers, split_by_token
from nnunetv2_malenia.inference.interpretation import Interpreter
from nnunetv2_malenia.inference.lesions import Component
from nnunetv2_malenia.inference.reading import SimilarityMap
from nnunetv2_malenia.network.aspect_heads import MatchGate


def component(tokens):
    """A component that starts at (2, 3, 4), and the token of each of its voxels; tokens (Z, Y, X): -1 outside."""
    voxels = tokens >= 0
    box = tuple(slice(start, start + size) for start, size in zip((2, 3, 4), voxels.shape, strict=True))
    return Component(box, voxels), np.arange(voxels.sum()), np.stack([np.zeros(voxels.sum(), int), tokens[voxels]], 1)


def test_two_tokens_make_two_connected_lesions_that_share_out_every_voxel():
    tokens = np.full((2, 4, 10), 5)
    tokens[..., 6:] = 9
    tokens[0, 0, 9] = 5  # a stray voxel inside the other's part
    tokens[1, 3, 0] = 7  # a token too small to be a lesion
    first, second = split_by_token(*component(tokens))
    assert (first.voxels.sum(), second.voxels.sum()) == (48, 32)
    assert first.box == (slice(2, 4), slice(3, 7), slice(4, 10))
    assert second.box == (slice(2, 4), slice(3, 7), slice(10, 14))
    assert all(cc3d.connected_components(part.voxels, return_N=True)[1] == 1 for part in (first, second))


def test_a_lesion_of_one_token_or_read_in_two_tiles_or_not_read_stays_whole():
    tokens = np.full((2, 4, 10), 5)
    whole, rows, token = component(tokens)
    assert split_by_token(whole, rows, token) == [whole]
    tokens[..., 5:] = 9
    whole, rows, token = component(tokens)
    token[:40, 0] = 1
    assert split_by_token(whole, rows, token) == [whole]
    whole, rows, token = component(tokens)
    rows[3] = -1
    assert split_by_token(whole, rows, token) == [whole]


PHRASES = (("location", "liver"), ("location", "left kidney"))
LESION = (slice(2, 4), slice(2, 10), slice(2, 12))  # 2 x 8 x 10 voxels


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    preparation = tiny_preparation()
    return preparation, preparation({0: save_ct(tmp_path_factory.mktemp("image") / "a.nii.gz")})


def ask_for_a_liver_lesion(prepared, answered_from, liver_from, kidney_too=False):
    """One lesion of any type, of which the query's mask holds the columns from answered_from on; it reads as in the
    liver from column liver_from on, and as in the kidney before."""
    preparation, case = prepared
    shape = case.data.shape[1:]
    asked, lesion, row = np.zeros(shape, bool), np.zeros(shape, bool), np.arange(np.prod(shape)).reshape(shape)
    lesion[LESION] = True
    asked[(*LESION[:2], slice(answered_from, 12))] = True
    in_liver = np.broadcast_to(np.arange(shape[2]) >= liver_from, shape).ravel()
    similarity = np.stack([in_liver, ~in_liver], axis=1).astype(np.float32)
    reading = SimilarityMap(row, similarity, np.zeros((row.size, 2), int), (1, 1, 1), shape)
    queries = [LesionQuery(name=value, attributes=AspectValues(location=value)) for _, value in PHRASES]
    queries = queries if kidney_too else queries[:1]
    is_asked = torch.eye(2, dtype=torch.bool)[: len(queries)]
    interpreter = Interpreter(PHRASES, frozenset(PHRASES), tuple(queries), len(queries), (False,) * len(queries),
                              is_asked, ~is_asked, (MatchGate(0.1),))  # fmt: skip
    answers = CaseAnswers(preparation.plans_manager, preparation.configuration_manager, queries,
                          [False] * len(queries), interpreter, False, 0.5, 0.0)  # fmt: skip
    masks = [asked, lesion & ~asked, lesion] if kidney_too else [asked, lesion]
    found = answers.find(torch.from_numpy(np.where(masks, 5.0, -5.0).astype(np.float32)), reading)
    return answers.render(found, case.properties)


@pytest.mark.parametrize(
    ("answered_from", "liver_from", "voxels"),
    [
        (2, 2, 160),  # all of a lesion of the type
        (2, 12, 0),  # all of a lesion of another type
        (10, 10, 0),  # a fifth matches, of a lesion that does not: a leak
        (9, 9, 48),  # three tenths match, of a lesion that does not: two lesions that touch
        (10, 2, 32),  # a fifth of a lesion that matches
        (10, 12, 0),  # a fifth that does not match
    ],
)
def test_a_component_stays_if_it_matches_and_is_large_or_part_of_what_matches(
    prepared, answered_from, liver_from, voxels
):
    answers = ask_for_a_liver_lesion(prepared, answered_from, liver_from)
    (finding,) = answers.findings
    assert answers.mask(0).sum() == (answers.label_map > 0).sum() == voxels
    assert (len(finding.lesions), finding.other_type) == ((1, 0) if voxels else (0, 1))
    assert (finding.presence_score > 0.5) == (voxels > 0)


@pytest.mark.parametrize("answered_from", [9, 10])
def test_what_one_query_gets_does_not_depend_on_what_else_is_asked(prepared, answered_from):
    alone = ask_for_a_liver_lesion(prepared, answered_from, answered_from)
    beside = ask_for_a_liver_lesion(prepared, answered_from, answered_from, kidney_too=True)
    np.testing.assert_array_equal(beside.mask(0), alone.mask(0))
    assert beside.findings[0].other_type == alone.findings[0].other_type
    assert beside.mask(1).any()
