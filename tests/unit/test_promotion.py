"""When an epoch is better than the one that was promoted last."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.api.callback import Improvement, rule_of
from tfserve_nb.errors import InvalidOption

numbers = st.floats(allow_nan=False)


@pytest.mark.parametrize("metric", ["loss", "val_loss", "mse", "val_mae", "mean_squared_error", "root_mse", "val_rmse"])
def test_of_losses_and_errors_less_is_better(metric: str) -> None:
    assert Improvement(metric).is_smaller_better


@pytest.mark.parametrize("metric", ["accuracy", "val_accuracy", "auc", "val_f1_score", "r2_score", "precision", "mses"])
def test_of_everything_else_more_is_better(metric: str) -> None:
    assert not Improvement(metric).is_smaller_better


@given(st.lists(numbers, min_size=1, max_size=30), st.booleans())
def test_the_promoted_epochs_are_the_records(values: list[float], is_loss: bool) -> None:
    metric = "val_loss" if is_loss else "val_accuracy"
    rule, best, promoted = Improvement(metric), None, []
    for value in values:
        if rule({metric: value}, best):
            best = {metric: value}
            promoted.append(value)

    assert promoted[0] == values[0]
    assert promoted[-1] == (min(values) if is_loss else max(values))
    assert promoted == sorted(set(promoted), reverse=is_loss)


def test_what_is_no_number_is_no_improvement_and_is_replaced_by_the_first_number() -> None:
    rule = Improvement("acc")

    assert not rule({"acc": math.nan}, None)
    assert not rule({"acc": math.nan}, {"acc": 0.1})
    assert rule({"acc": 0.1}, {"acc": math.nan})


def test_a_metric_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidOption, match="promote_if='val_acc' is not among the metrics of this epoch: loss, acc"):
        Improvement("val_acc")({"loss": 1.0, "acc": 0.5}, None)


def test_rules_are_names_functions_or_nothing() -> None:
    def always(logs: object, best_logs: object) -> bool:
        return True

    assert rule_of(None) is None
    assert rule_of("loss") == Improvement("loss")
    assert rule_of(always) is always
    for wrong in (3, "", True):
        with pytest.raises(InvalidOption, match="promote_if="):
            rule_of(wrong)  # type: ignore[arg-type]
