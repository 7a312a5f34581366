"""What early stopping looks at, what it finds, and when it goes without."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.ensemble import BaggingClassifier
from sklearn.metrics import f1_score, log_loss, make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EpochScoring
from torch.utils.data import Dataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker, EarlyStopping


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), np.array(["a", "b", "c"])[y]


def small(make=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 30, "random_state": 0} | params
    return make(early_stopping=params.pop("early_stopping", True), **params)


class Undecided(torch.nn.Module):
    """A net that autograd trains, whose outputs hold no ties."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = torch.nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.linear(x).sinh()


PATHS = {
    "backprop": {},
    "autograd": {"module": Undecided},
    "hooks": {"callbacks": [SeesBatches()]},
}
IN_STACKS = {f"{name} in a stack": PATHS[name] for name in ("backprop", "autograd")}


def fitted(path, estimator, X, y):
    """Fit plainly, or as one of three in a stack."""
    if "stack" not in path:
        return clone(estimator).fit(X, y)
    with joblib.parallel_config("skreg"):
        twins = [clone(estimator).set_params(lambda1=x) for x in (0, 1e-3, 1e-2)]
        return joblib.Parallel()(joblib.delayed(n.fit)(X, y) for n in twins)[0]


# -- what it costs and gains --------------------------------------------------------


@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_stopping_on_few_samples_costs_no_accuracy(load):
    """A tenth of such data has a dozen accuracies, which tie for epochs."""
    X, y = load(return_X_y=True)
    results = {"none": [], "loss": [], "accuracy": []}
    ways = {
        "none": {},
        "loss": {"early_stopping": True},
        "accuracy": {"early_stopping": True, "monitor": "valid_acc"},
    }
    for seed in range(5):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.25, stratify=y, random_state=seed
        )
        for way, params in ways.items():
            net = RegularizedNetClassifier(random_state=seed, **params)
            model = make_pipeline(StandardScaler(), net).fit(X_train, y_train)
            loss = log_loss(y_test, model.predict_proba(X_test).astype(np.float64))
            results[way].append((model.score(X_test, y_test), loss))
    means = {way: np.mean(rows, axis=0) for way, rows in results.items()}
    assert means["loss"][0] > means["none"][0] - 0.03
    assert means["loss"][0] > means["accuracy"][0] + 0.03
    assert means["loss"][1] < means["none"][1] + 0.03
    assert means["loss"][1] < means["accuracy"][1] / 2


# -- what counts as best ------------------------------------------------------------


class Values(Callback):
    """Write given values into the history."""

    def __init__(self, key, values):
        self.key, self.values = key, values

    def on_epoch_end(self, net, **kwargs):
        net.history.record(self.key, self.values[len(net.history) - 1])


def stopped(key, values, **stopping):
    X, y = [[0.0], [1.0]], [0, 1]
    callbacks = [Values(key, values), EarlyStopping(monitor=key, **stopping)]
    params = {"hidden_layer_sizes": 2, "max_epochs": len(values)}
    return RegularizedNetClassifier(callbacks=callbacks, **params).fit(X, y)


@given(
    values=st.lists(st.floats(-2, 2), min_size=1, max_size=12),
    tol=st.sampled_from([0.0, 0.1, 0.5]),
    lower=st.booleans(),
)
@settings(max_examples=60)
def test_the_best_epoch_is_the_last_within_the_tolerance(values, tol, lower):
    stopping = {"patience": 100, "tol": tol, "lower_is_better": lower}
    net = stopped("value", values, **stopping)
    losses = np.array(values) if lower else -np.array(values)
    good = losses - losses.min() <= tol * abs(losses.min())
    last, first = np.flatnonzero(good)[[-1, 0]]
    assert net.best_epoch_ == (last if tol else first) + 1
    assert (
        dict(net.callbacks_)["EarlyStopping"].best_score_
        == (values[net.best_epoch_ - 1])
    )


def test_losses_have_a_tolerance_and_scores_have_none():
    assert stopped("other_loss", [1.0, 0.5, 0.509, 0.511]).best_epoch_ == 3
    assert stopped("score", [0.5, 1.0, 0.999, 1.0]).best_epoch_ == 2


def test_patience_counts_what_is_beyond_the_tolerance():
    losses = [1.0, 1.01, 1.03, 1.015, 1.03, 1.03, 1.03, 0.5]
    net = stopped("a_loss", losses, patience=1)
    assert (len(net.history), net.best_epoch_) == (6, 4)


@pytest.mark.parametrize("tol", [-0.1, "small", np.inf, np.nan])
def test_a_tolerance_is_a_number(tol):
    with pytest.raises(ValueError, match=r"EarlyStopping: tol=.* finite number >= 0"):
        stopped("score", [1.0], tol=tol)


# -- what it looks at ---------------------------------------------------------------


@pytest.mark.parametrize("make", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_the_default_is_the_validation_loss(make):
    assert make().monitor == EarlyStopping().monitor == "valid_loss"
    X, y = load_wine(return_X_y=True)
    net = small(make, lr=0.05, patience=3, max_epochs=200).fit(X / X.max(0), y)
    losses = np.array(net.history[:, "valid_loss"])
    best = net.best_epoch_ - 1
    assert losses[best] <= 1.02 * losses.min()
    assert (losses[best + 1 :] > 1.02 * losses.min()).all()
    assert len(losses) == net.best_epoch_ + 4


MONITORS = {"valid_loss": min, "valid_acc": max, "train_loss": min, "train_acc": max}


@pytest.mark.parametrize("path", {**PATHS, **IN_STACKS})
@pytest.mark.parametrize("monitor", MONITORS)
def test_keys_of_the_history(iris, path, monitor):
    own = {**PATHS, **IN_STACKS}[path]
    callbacks = (*own.get("callbacks", ()), AccuracyTracker(on_train=True))
    params = own | {"callbacks": callbacks, "patience": 4, "lr": 0.05}
    params["callbacks__early_stopping__tol"] = 0  # strictly better values
    net = fitted(path, small(monitor=monitor, max_epochs=60, **params), *iris)
    values = net.history[:, monitor]
    first_best = values.index(MONITORS[monitor](values)) + 1
    assert net.best_epoch_ == first_best
    assert len(values) == min(60, first_best + 5)
    assert dict(net.callbacks_)["early_stopping"].best_score_ == values[first_best - 1]


def test_nets_of_a_stack_may_look_at_different_keys(iris, stacks):
    search = GridSearchCV(
        small(patience=3, lr=0.05),
        {"monitor": ["valid_loss", "valid_acc", "train_loss"]},
        cv=3,
        refit=False,
    )
    with joblib.parallel_config("skreg"):
        mine = clone(search).fit(*iris).cv_results_["mean_test_score"]
    assert stacks == [9]
    theirs = search.fit(*iris).cv_results_["mean_test_score"]
    np.testing.assert_allclose(mine, theirs)


def hits(net, X, y):
    assert set(y) <= {"a", "b", "c"}
    return np.mean(net.predict(X) == y)


SCORERS = {
    "f1_macro": "valid_f1_macro",
    "roc_auc_ovr": "valid_roc_auc_ovr",
    "neg_log_loss": "valid_neg_log_loss",
    hits: "valid_hits",
    make_scorer(f1_score, average="micro"): "valid_f1_score",
}


@pytest.mark.parametrize("monitor", SCORERS, ids=SCORERS.get)
@pytest.mark.parametrize("context", ["plain", "skreg"])
def test_scorers_are_evaluated_on_the_validation_data(iris, monitor, context, capfd):
    X, y = iris
    key = SCORERS[monitor]
    nets = [small(monitor=monitor, lr=0.05, lambda1=x, patience=5) for x in (0, 1e-4)]
    if context == "plain":
        net = nets[0].fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    else:
        with joblib.parallel_config("skreg"):
            net = joblib.Parallel(verbose=1)(
                joblib.delayed(n.fit)(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
                for n in nets
            )[0]
        reason = "2 of 2 fits trained alone: early stopping evaluates a scorer"
        assert reason in capfd.readouterr().err
    values = net.history[:, key]
    # Greater is better, also of neg_; among equal scores it is the loss that decides.
    highest = np.flatnonzero(np.array(values) == max(values))
    losses = np.array(net.history[:, "valid_loss"])
    assert net.best_epoch_ == highest[losses[highest].argmin()] + 1
    assert len(values) == min(30, net.best_epoch_ + 6)
    best = net.history[:, f"{key}_best"]
    assert np.flatnonzero(best).max() + 1 == net.best_epoch_
    if key == "valid_neg_log_loss":
        losses = net.history[:, "valid_loss"]
        np.testing.assert_allclose(values, np.negative(losses), rtol=1e-5)
    if key == "valid_hits":
        assert values == net.history[:, "valid_acc"]
        assert net.score(X[1::2], y[1::2]) == max(values)


def test_scorers_see_the_unit_of_y():
    X, y = load_diabetes(return_X_y=True)
    seen = []

    def spy(net, X, y):
        seen.append(y)
        return r2_score(y, net.predict(X))

    net = small(RegularizedNetRegressor, monitor=spy, lr=0.01, max_epochs=20)
    net.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    np.testing.assert_array_equal(seen[0], y[300:])
    assert max(net.history[:, "valid_spy"]) == net.score(X[300:], y[300:]) > 0.3


def test_scorers_of_datasets(iris):
    X, labels = iris

    class Flowers(Dataset):
        def __len__(self):
            return len(labels)

        def __getitem__(self, i):
            return X[i].astype(np.float32), str(labels[i])

    net = small(monitor=hits, max_epochs=3).fit(Flowers(), X_val=Flowers())
    assert net.history[:, "valid_hits"] == net.history[:, "valid_acc"]


def test_a_scorer_that_is_never_a_number_is_told(iris):
    def nothing(net, X, y):
        return np.nan

    with pytest.warns(UserWarning, match="was never a number"):
        net = small(monitor=nothing, patience=3, max_epochs=9).fit(*iris)
    assert len(net.history) == 4


def test_equal_scores_without_a_validation_loss(iris):
    def constant(net, X, y):
        return 0.5

    net = small(monitor=constant, patience=2, callbacks__valid_loss=None).fit(*iris)
    assert (net.best_epoch_, len(net.history)) == (1, 4)


def test_few_values_of_a_scorer_cost_nothing(iris):
    """Its ties lasted for the first epochs, and the first of them was the best."""
    X, y = iris
    params = {"hidden_layer_sizes": 100, "max_epochs": 100, "patience": 20}
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    scores = {
        monitor: small(monitor=monitor, **params)
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for monitor in ("valid_loss", "f1_macro")
    }
    assert scores["f1_macro"] >= scores["valid_loss"] - 0.03


def test_a_key_wins_over_a_scorer_of_the_same_name(iris):
    """skorch says which way an EpochScoring goes; a scorer's values go up."""
    scoring = EpochScoring("f1_macro", name="f1_macro", lower_is_better=True)
    net = small(monitor="f1_macro", callbacks=(scoring,), patience=50).fit(*iris)
    assert net.best_epoch_ == np.argmin(net.history[:, "f1_macro"]) + 1
    assert "valid_f1_macro" not in net.history[0]


def test_the_name_of_a_scoring_callback(iris):
    """Early stopping comes after it, wherever it is, and the log after both."""
    scoring = EpochScoring("f1_macro", name="f1", lower_is_better=False)
    net = small(
        callbacks=[EarlyStopping(3, "f1"), scoring],
        callbacks__early_stopping__monitor="f1",
        callbacks__early_stopping__patience=3,
        lr=0.05,
    ).fit(*iris)
    values = net.history[:, "f1"]
    assert net.best_epoch_ == np.argmax(values) + 1
    assert len(values) == min(30, net.best_epoch_ + 4)
    assert [name for name, _ in net.callbacks_][-4:] == [
        *("EpochScoring", "early_stopping", "EarlyStopping", "print_log")
    ]


def test_the_direction_can_be_said(iris):
    net = small(
        monitor="param_norm", callbacks__early_stopping__lower_is_better=True
    ).fit(*iris)
    assert net.best_epoch_ == np.argmin(net.history[:, "param_norm"]) + 1
    net = small(monitor="param_norm").fit(*iris)
    assert net.best_epoch_ == np.argmax(net.history[:, "param_norm"]) + 1


@pytest.mark.parametrize("monitor", [None, 3, ["valid_loss"]])
def test_what_is_no_monitor(iris, monitor):
    with pytest.raises(ValueError, match=r"monitor=.* must be a key of the history or"):
        small(monitor=monitor).fit(*iris)


def test_keys_that_there_are_not(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"monitors 'val_f1', .*'valid_acc'"):
        small(monitor="val_f1").fit(X, y)
    with pytest.raises(ValueError, match=r"monitors 'f1_macro', .* need validation"):
        small(monitor="f1_macro", train_split=lambda data, y: (data, None)).fit(X, y)
    with pytest.raises(ValueError, match=r"monitor='valid_acc' is an accuracy, which"):
        small(RegularizedNetRegressor, monitor="valid_acc").fit(X, X[:, 0])
    with pytest.raises(ValueError, match="metric function"):
        small(monitor=f1_score).fit(X, y)


def test_a_new_monitor_of_a_warm_net(iris):
    net = small(warm_start=True, max_epochs=5).fit(*iris)
    net.set_params(monitor="train_loss").fit(*iris)
    stopping = dict(net.callbacks_)["early_stopping"]
    assert stopping.best_score_ == min(net.history[5:, "train_loss"])


# -- callbacks that do not apply ----------------------------------------------------


@pytest.mark.parametrize("on_train", [True, False])
@pytest.mark.parametrize("context", ["plain", "skreg"])
def test_a_regressor_has_no_accuracy(iris, on_train, context):
    net = small(RegularizedNetRegressor, callbacks=[AccuracyTracker(on_train)])
    with (
        joblib.parallel_config("skreg" if context == "skreg" else "threading"),
        pytest.raises(ValueError, match="RegularizedNetRegressor is a regressor"),
    ):
        joblib.Parallel()([joblib.delayed(net.fit)(iris[0], iris[0][:, 0])])
    assert len(net.history) == 0


# -- data from which nothing can be held out ----------------------------------------

TINY = {
    "five samples": (np.eye(5), [0, 1, 0, 1, 0]),
    "a class with one": (np.arange(40.0).reshape(20, 2) / 40, [0, 1] * 9 + [0, 2]),
}


@pytest.mark.parametrize("context", ["plain", "skreg"])
@pytest.mark.parametrize("data", TINY)
def test_what_cannot_be_split_trains_on_all_of_it(data, context):
    X, y = TINY[data]
    params = {"max_epochs": 7, "lr": 0.01}
    with (
        joblib.parallel_config("skreg" if context == "skreg" else "threading"),
        pytest.warns(UserWarning, match="cannot hold out validation_fraction=0.1 of"),
    ):
        nets = joblib.Parallel()(
            joblib.delayed(small(random_state=s, **params).fit)(X, y) for s in range(3)
        )
    plain = small(early_stopping=False, **params).fit(X, y)
    for mine, theirs in zip(
        nets[0].module_.parameters(), plain.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)
    assert nets[0].best_epoch_ == 7
    assert "valid_loss" not in nets[0].history[0]


def test_it_warns_once_a_fit():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        small(max_epochs=3).fit(*TINY["five samples"])
    assert len(record) == 1


def test_groups_that_cannot_be_split():
    X, y = TINY["a class with one"]
    with pytest.warns(UserWarning, match="cannot hold out"):
        small(max_epochs=2).fit(X, y, groups=np.zeros(len(y)))


def test_bags_that_are_too_small(iris):
    bagging = BaggingClassifier(small(max_epochs=2), max_samples=8, random_state=0)
    with pytest.warns(UserWarning, match="cannot hold out"):
        assert bagging.fit(*iris).predict(iris[0][:3]).shape == (3,)


def test_a_monitor_that_needs_no_validation_data_works_without(recwarn):
    X, y = TINY["five samples"]
    strict = {"callbacks__early_stopping__tol": 0, "patience": 0}
    net = small(monitor="train_loss", lr=0.5, max_epochs=500, **strict).fit(X, y)
    assert "cannot hold out" in str(recwarn.pop(UserWarning).message)
    assert len(net.history) == net.best_epoch_ + 1 < 500


def test_data_that_are_given_are_looked_at(iris):
    """Too few samples to split do not matter if validation data come with them."""
    X, y = iris
    strict = {"callbacks__early_stopping__tol": 0}
    net = small(max_epochs=3, **strict).fit(X[::30], y[::30], X_val=X, y_val=y)
    assert net.best_epoch_ == np.argmin(net.history[:, "valid_loss"]) + 1
    with pytest.raises(ValueError, match="least populated class"):
        small(
            train_split=lambda data, y: train_test_split(data, stratify=[0, 1, 2, 3, 4])
        ).fit(X[::30], y[::30])
