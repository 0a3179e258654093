import math

import pytest

from fpn_jax.errors import InputError
from fpn_jax.train.plan import Plan, Ranking


def plan(**changes):
    chosen = {
        "total_steps": 10,
        "evaluate_every_steps": 100,
        "log_every_steps": 1,
        "early_stopping_evaluations": 0,
        "monitor": "accuracy",
        "images_per_step": 8,
        "learning_rate": lambda step: 0.1,
    }
    return Plan(**(chosen | changes))


@pytest.mark.parametrize(
    "name", ["total_steps", "evaluate_every_steps", "log_every_steps"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_a_plan_refuses_durations_below_one(name, value):
    with pytest.raises(
        InputError, match=rf"train\.{name} is {value}; it must be 1 or more"
    ):
        plan(**{name: value})


def test_a_plan_refuses_a_negative_patience():
    with pytest.raises(InputError, match=r"early_stopping_evaluations is -1"):
        plan(early_stopping_evaluations=-1)


def test_a_ranking_survives_its_json():
    ranking = Ranking()
    assert ranking.as_json() == {"best": None, "best_step": 0, "evaluations_since": 0}
    assert Ranking.from_json(ranking.as_json()) == ranking
    for value, step in ((0.5, 10), (math.nan, 20), (0.5, 30)):
        ranking.add(value, step)
    assert ranking == Ranking(0.5, 10, 2)
    assert Ranking.from_json(ranking.as_json()) == ranking
    assert Ranking.from_json(None) == Ranking()
