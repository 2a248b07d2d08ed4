"""The licence of weights follows from their sources."""

from __future__ import annotations

import pytest

from tests.trained_run import ATTRIBUTION
from vlwm.core.errors import DataError, UsageError
from vlwm.core.export.licence import licence_of

OCCWORLD = "pretrained/occworld/latest.pth"
DERIVED = [
    (ATTRIBUTION, False, None, "cc-by-4.0"),
    (ATTRIBUTION, False, OCCWORLD, "cc-by-nc-sa-4.0"),
    ("nuScenes, CC BY-NC-SA 4.0", False, None, "cc-by-nc-sa-4.0"),
    ("", True, None, "apache-2.0"),
    (f"{ATTRIBUTION}; nuScenes (Motional), CC BY-NC-SA 4.0", False, None, "cc-by-nc-sa-4.0"),
    ("", True, OCCWORLD, "cc-by-nc-sa-4.0"),
]


@pytest.mark.parametrize(("attribution", "procedural", "weights", "licence"), DERIVED)
def test_restrictions_of_data_and_initial_weights_add_up(
    attribution: str, procedural: bool, weights: str | None, licence: str
) -> None:
    found = licence_of(attribution, procedural=procedural, initial_weights=weights)
    assert found.identifier == licence
    sentence = found.restriction_on("weights")
    assert ("The weights are for non-commercial use only." in sentence) == ("-nc" in licence)
    assert (attribution in found.why) and (weights is None or "nuScenes" in found.why)


@pytest.mark.parametrize(
    ("attribution", "weights"),
    [
        ("", None),
        ("my flights", None),
        (ATTRIBUTION, "own/best.pth"),
        (f"{ATTRIBUTION}; TartanAir, not stated for V1", None),
    ],
)
def test_a_source_without_a_licence_is_never_given_one(
    attribution: str, weights: str | None
) -> None:
    with pytest.raises(DataError, match="the licence of the weights is unknown"):
        licence_of(attribution, procedural=False, initial_weights=weights)
    stated = licence_of(attribution, procedural=False, initial_weights=weights, stated="cc-by-4.0")
    assert stated.identifier == "cc-by-4.0" and "the publisher states" in stated.why


def test_a_made_up_city_next_to_other_data_does_not_lift_their_restriction() -> None:
    both = "KITTI, CC BY-NC-SA 3.0; procedural city, not real data"
    found = licence_of(both, procedural=True, initial_weights=None)
    assert found.identifier == "cc-by-nc-sa-3.0" and found.sources == ("KITTI, CC BY-NC-SA 3.0",)


def test_a_stated_licence_cannot_drop_a_restriction() -> None:
    with pytest.raises(UsageError, match=r"--licence cc-by-4\.0 drops what"):
        licence_of(ATTRIBUTION, procedural=False, initial_weights=OCCWORLD, stated="cc-by-4.0")
