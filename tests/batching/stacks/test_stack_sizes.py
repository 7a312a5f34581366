"""Memory and speed decide how many nets train together."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from stacked_nets import (
    Convolutional,
    alone,
    assert_same_nets,
    net,
    next_place,
    together,
)
from torch import nn

from skreg.batching.stacking import engine as _engine
from skreg.batching.stacking import stack_size as _cost
from skreg.batching.stacking.stack import Stack


def test_a_fit_that_cannot_split_off_its_validation_data_fails_alone(iris, stacks):
    X, y = iris

    def refuse(data, y):
        raise ValueError("no")

    grid = {"train_split": [None, refuse]}
    search = GridSearchCV(net(), grid, cv=3, refit=False)
    with (
        joblib.parallel_config("skreg"),
        pytest.warns(FitFailedWarning),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)
    assert stacks == [3]
    assert np.isfinite(search.cv_results_["mean_test_score"][0])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_where_memory_does_not_suffice_stacks_are_halved(
    iris, stacks, monkeypatch, limit
):
    step = Stack.step

    def limited(self):
        i, result = next_place(self), step(self)
        if len(self) > limit and i == 2 and len(self.candidates[0].net.history) == 2:
            raise torch.OutOfMemoryError("simulated")
        return result

    monkeypatch.setattr(Stack, "step", limited)
    params = {"early_stopping": True, "patience": 9, "lr": 0.01}
    fits = [(net(lambda1=l1, dropout=0.3, **params), *iris) for l1 in range(5)]
    mine = together(*fits)
    assert (
        stacks
        == {1: [5, 2, 1, 1, 3, 1, 2, 1, 1], 2: [5, 2, 3, 1, 2], 3: [5, 2, 3]}[limit]
    )
    assert_same_nets(mine, alone(*fits))


def test_large_nets_train_in_small_stacks_and_few_nets_alone(iris, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        _engine,
        "train_until",
        lambda stack, pool, is_time: sizes.append(len(stack)) or ({}, []),
    )
    X = np.zeros((len(iris[1]), 500))
    fits = [(net(hidden_layer_sizes=400, lambda1=l1), X, iris[1]) for l1 in range(9)]
    together(*fits)
    assert sizes == [3, 3, 3]
    together(*fits[:2])
    assert sizes == [3, 3, 3]


def test_nets_that_lose_the_race_train_alone(iris, monkeypatch):
    monkeypatch.setattr(_cost, "wins_race", lambda *args: False)
    monkeypatch.setattr(_engine, "train_until", None)
    fits = [(net(module__activation="gelu", lambda1=x), *iris) for x in range(4)]
    assert_same_nets(together(*fits), alone(*fits))


def test_the_race_leaves_the_module_and_random_states_as_they_are(iris):
    module = Convolutional(3)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    assert isinstance(_cost.wins_race(module, torch.randn(16, 2, 2, 2), 4), bool)
    torch.set_rng_state(state)
    after = module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(w.grad is None for w in module.parameters())
    assert module.training


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Sequential(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 3)), 4 * 7 + 7 * 3),
        (
            nn.Sequential(
                *(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 5, 1)),
                *(nn.Flatten(), nn.Linear(20, 3)),
            ),
            5 * 4 + 20 * 3,
        ),
    ],
)
def test_operations_are_the_multiplications_of_a_sample(iris, module, expected):
    seen = []

    def look(candidates):
        seen.append(_cost.operations(candidates[0]))
        return "a test"

    fits = [(net(module=module, lambda1=x), *iris) for x in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "stack_size", look)
        together(*fits)
    n_weights = sum(w.numel() for w in module.parameters())
    assert seen == [max(expected, n_weights)]
