"""Words are strings in every way that a file or a message can show."""

from __future__ import annotations

import json

import pytest

from vlwm.core.monitoring.diagnosis import PHASE_WORDS, STAGE_WORDS
from vlwm.core.training.telemetry.run_plan import LABELS
from vlwm.core.vocabulary import Agent, Phase, Split, Stage, Track, Word

WORDS = [word for kind in (Agent, Phase, Split, Stage, Track) for word in kind]


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_a_word_is_its_string(word: Word) -> None:
    plain = word.value
    assert word == plain and hash(word) == hash(plain) and {word: 1}[plain] == 1
    assert f"{word}" == str(word) == "%s" % word == plain  # noqa: UP031 - logging formats so
    assert json.loads(json.dumps({word: word})) == {plain: plain}


def test_every_phase_and_stage_has_words_for_people() -> None:
    assert set(PHASE_WORDS) == set(Phase)
    assert set(STAGE_WORDS) == set(Stage)


def test_every_part_of_a_run_is_a_phase() -> None:
    assert set(LABELS) <= set(Phase)


def test_a_stage_takes_its_steps_in_a_phase_of_its_name() -> None:
    assert [Phase.of_stage(stage).value for stage in Stage] == [stage.value for stage in Stage]
