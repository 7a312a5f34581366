"""The callbacks of scikit-learn: epochs are tasks of a fit."""

import numpy as np
import pytest
import sklearn
from contract_nets import equal_weights, small
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EpochTimer

from skreg import RegularizedNetClassifier

callback_api = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9),
    reason="scikit-learn has callbacks from version 1.9 on",
)


@callback_api
def test_epochs_are_tasks_of_the_fit(iris):
    seen = []

    class Spy:
        def setup(self, estimator, context):
            seen.append("setup")

        def on_fit_task_begin(self, estimator, context):
            seen.append(("begin", context.task_name, context.task_id))

        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            seen.append(("end", context.task_name, context.task_id))
            self.score = fitted_estimator.score(X, y)
            return context.task_name == "epoch" and context.task_id == 2

        def teardown(self, estimator, context):
            seen.append("teardown")

    spy, names = Spy(), np.array(["a", "b", "c"])[iris[1]]
    net = small(max_epochs=9).set_callbacks(spy).fit(iris[0], names)
    epochs = [(what, "epoch", i) for i in range(3) for what in ("begin", "end")]
    assert seen == [
        "setup",
        ("begin", "fit", 0),
        *epochs,
        ("end", "fit", 0),
        "teardown",
    ]
    assert len(net.history) == 3  # the callback asked for no more
    assert spy.score == net.score(iris[0], names)
    assert equal_weights(net, small(max_epochs=3).fit(iris[0], names))


@callback_api
def test_scoring_monitor_scores_every_epoch(iris):
    from sklearn.callback import ScoringMonitor

    X, y = iris
    scores = []

    class Spy(RegularizedNetClassifier):
        def on_epoch_end(self, net, **kwargs):
            scores.append((self.predict(X) == y).mean())

    monitor = ScoringMonitor(scoring="accuracy")
    net = Spy(**small().get_params(deep=False)).set_callbacks(monitor)
    net.fit(X, y, np.arange(150) % 3)  # a third of the samples does not count
    log = monitor.get_logs().data_as_pandas
    epochs = log[log["epoch"].notna()] if "epoch" in log else log
    assert len(epochs) >= 5
    assert net.score(X, y) in set(epochs["accuracy"])
    assert set(scores) <= set(epochs["accuracy"])


@callback_api
def test_scoring_monitor_follows_the_fits_of_a_search(iris):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    net = small(max_epochs=3).set_callbacks(monitor)
    GridSearchCV(net, {"lambda1": [0, 0.1]}, cv=2).fit(*iris)
    log = monitor.get_logs().data_as_pandas
    assert len(log) == 5 * (3 + 1)  # of each fit: its epochs, and the whole
    assert log["accuracy"].between(0, 1).all()


@callback_api
@pytest.mark.parametrize("alone", [True, False])
def test_progress_bar_shows_epochs_inside_the_search(iris, alone, capsys, monkeypatch):
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")  # else the bars are cut to what is there

    estimator = small() if alone else GridSearchCV(small(), {"lambda1": [0, 1]}, cv=2)
    estimator.set_callbacks(ProgressBar()).fit(*iris)
    shown = capsys.readouterr().out
    assert "RegularizedNetClassifier" in shown
    assert "100%" in shown
    if not alone:
        assert "GridSearchCV" in shown


def test_callbacks_of_scikit_learn_have_a_way_of_their_own(iris):
    callback = pytest.importorskip("sklearn.callback").ProgressBar()
    for callbacks in ([callback], [("bar", callback)]):
        with pytest.raises(ValueError, match=r"callbacks=.*set_callbacks"):
            small(callbacks=callbacks).fit(*iris)
    kinds = [EpochTimer, EpochTimer(), ("a", EpochTimer()), ["b", EpochTimer]]
    small(callbacks=[*kinds[1:], ("off", None)]).fit(*iris)
