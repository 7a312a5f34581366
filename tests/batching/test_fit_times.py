"""``mean_fit_time`` of a search is each fit's share of the time that it took."""

from time import perf_counter

import joblib
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.callbacks import Callback

from skreg import RegularizedNetClassifier

GRID = {"lambda2": [0, 1e-4, 1e-3, 1e-2], "lambda1": [0, 1e-4, 1e-3]}


class Own(Callback):
    """Lets a net train alone."""


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600] / 16, y[:600]


@pytest.mark.parametrize("callbacks", [None, [Own()]])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_fit_times_add_up_to_the_time_of_the_search(
    digits, callbacks, checkpoint, tmp_path
):
    net = RegularizedNetClassifier(max_epochs=10, callbacks=callbacks, random_state=0)
    start = perf_counter()
    with joblib.parallel_config("skreg", checkpoint=tmp_path if checkpoint else None):
        search = GridSearchCV(net, GRID, cv=3, refit=False).fit(*digits)
    elapsed = perf_counter() - start
    total = 3 * search.cv_results_["mean_fit_time"].sum()
    assert 0.2 * elapsed < total < elapsed
    assert (search.cv_results_["mean_fit_time"] > 0).all()


def test_slower_fits_have_longer_times(digits):
    net = RegularizedNetClassifier(random_state=0)
    with joblib.parallel_config("skreg"):
        search = GridSearchCV(net, {"max_epochs": [2, 60]}, cv=4, refit=False)
        times = search.fit(*digits).cv_results_["mean_fit_time"]
    assert times[1] > 3 * times[0]


def test_a_task_without_nets_is_left_alone(digits):
    from sklearn.tree import DecisionTreeClassifier

    with joblib.parallel_config("skreg"):
        times = cross_validate(DecisionTreeClassifier(), *digits)["fit_time"]
    assert (times > 0).all()
