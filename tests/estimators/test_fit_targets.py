"""User code that ``fit`` calls sees the labels and units of y, not encoded targets."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from fit_spies import NAMES, Looks, Pairs, classifier, make_pairs, regressor
from joblib import parallel_config
from sklearn import metrics
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EpochScoring,
    LRScheduler,
    ProgressBar,
)
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker

F1 = make_scorer(metrics.f1_score, labels=["c1", "c2"], average="macro")
ERROR = "neg_mean_absolute_error"
# Names of two classes, of which the second in the order of the alphabet is "yes".
RECALL = make_scorer(metrics.recall_score, pos_label="yes", response_method="predict")


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


class Weights(Callback):
    """Keeps the weights as they are at the begin and the end of each epoch."""

    def on_train_begin(self, net, **kwargs):
        self.begins_, self.ends_ = [], []

    def on_epoch_begin(self, net, **kwargs):
        self.begins_.append(deepcopy(net.module_.state_dict()))

    def on_epoch_end(self, net, **kwargs):
        self.ends_.append(deepcopy(net.module_.state_dict()))


# -- scoring callbacks --------------------------------------------------------------


def assert_scores(make, data, scoring, caching, on_train):
    X, y = data
    parts = (X[::2], y[::2]) if on_train else (X[1::2], y[1::2])
    callback = EpochScoring(
        scoring, use_caching=caching, on_train=on_train, name="mine"
    )
    weights = Weights()
    net = make(callbacks=[callback, weights])
    net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    # What is cached in training are the outputs of the weights before the step.
    states = weights.begins_ if on_train and caching else weights.ends_
    scorer = metrics.get_scorer(scoring) if isinstance(scoring, str) else scoring
    right = []
    for state in states:
        net.module_.load_state_dict(state)
        right.append(scorer(net, *parts))
    assert net.history[:, "mine"] == pytest.approx(right, rel=1e-6)
    return right


@pytest.mark.parametrize("on_train", [False, True])
@pytest.mark.parametrize("caching", [False, True])
def test_scorers_of_a_classifier_are_given_labels(flowers, caching, on_train):
    scores = assert_scores(classifier, flowers, F1, caching, on_train)
    assert scores[-1] > 0.2
    assert_scores(classifier, flowers, "accuracy", caching, on_train)
    assert_scores(classifier, flowers, "roc_auc_ovr", caching, on_train)
    answers = flowers[0], np.where(flowers[1] == "c1", "yes", "no")
    assert_scores(classifier, answers, RECALL, caching, on_train)


@pytest.mark.parametrize("on_train", [False, True])
@pytest.mark.parametrize("caching", [False, True])
def test_scorers_of_a_regressor_are_given_units_of_y(numbers, pairs, caching, on_train):
    errors = assert_scores(regressor, numbers, ERROR, caching, on_train)
    assert errors[-1] < -50
    assert_scores(regressor, numbers, "r2", caching, on_train)
    assert_scores(regressor, pairs, ERROR, caching, on_train)


@pytest.mark.parametrize("use_caching", [False, True, "auto"])
def test_the_caching_of_the_net_changes_no_score(flowers, use_caching):
    X, y = flowers
    callback = EpochScoring(F1, name="f1", use_caching=not use_caching)
    net = classifier(callbacks=[callback], use_caching=use_caching)
    if use_caching is False:  # skorch lets the callback look where nothing is kept
        callback.use_caching = False
    net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert net.history[-1, "f1"] == pytest.approx(F1(net, X[1::2], y[1::2]))


@pytest.mark.parametrize("caching", [False, True])
def test_scores_of_batches_are_of_labels_and_units(flowers, numbers, caching):
    for make, (X, y), scoring in [
        (classifier, flowers, F1),
        (regressor, numbers, ERROR),
    ]:
        callback = BatchScoring(scoring, name="mine", use_caching=caching)
        net = make(callbacks=[callback], batch_size=-1)
        net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
        scorer = metrics.get_scorer(scoring) if isinstance(scoring, str) else scoring
        assert net.history[-1, "mine"] == pytest.approx(
            scorer(net, X[1::2], y[1::2]), rel=1e-6
        )


@pytest.mark.parametrize("caching", [False, True])
def test_a_metric_of_counts_is_given_the_counts_themselves(caching):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)).astype(np.float32)
    y = rng.poisson(3, 200)
    assert (y == 0).sum() > 3  # rounded, some of these would be below zero
    seen = []

    def deviance(net, X, y):
        seen.append(np.asarray(y))
        return metrics.mean_poisson_deviance(y, np.maximum(net.predict(X), 1e-3))

    for on_train in (False, True):
        callback = EpochScoring(deviance, use_caching=caching, on_train=on_train)
        net = regressor(callbacks=[callback], max_epochs=1, lr=0.0)
        net.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
        assert sorted(seen.pop()) == sorted(y[:150] if on_train else y[150:])


def test_targets_that_no_data_hold_are_decoded_too(numbers):
    class Shifted(RegularizedNetRegressor):
        def get_iterator(self, dataset, training=False):
            batches = super().get_iterator(dataset, training)
            return [(X, y + 1) for X, y in batches]

    X, y = numbers
    seen = []
    scoring = EpochScoring(lambda net, X, y: seen.append(y) or 0.0, on_train=True)
    net = Shifted(callbacks=[("mine", scoring)], max_epochs=1, batch_size=-1)
    net.fit(X, y)
    assert np.allclose(seen[0], y + net.target_scale_, rtol=1e-6)


def test_a_scorer_inside_a_search_sees_what_it_sees_outside(flowers):
    X, y = flowers
    callback = EpochScoring(F1, name="f1", on_train=True, use_caching=False)

    def search():
        net = classifier(callbacks=[callback])
        grid = {"lambda2": [0.0, 0.1]}
        return GridSearchCV(net, grid, cv=2, scoring=F1, error_score="raise").fit(X, y)

    plain = search()
    with parallel_config("skreg"):
        stacked = search()
    for found in (plain, stacked):
        net = found.best_estimator_
        assert net.history[-1, "f1"] == pytest.approx(F1(net, X, y))
    key = "mean_test_score"
    assert stacked.cv_results_[key] == pytest.approx(plain.cv_results_[key])


# -- callbacks of the user's --------------------------------------------------------


def test_every_hook_of_a_callback_sees_labels(flowers):
    X, y = flowers
    looks = Looks(X, y)
    net = classifier(callbacks=[looks], max_epochs=2)
    net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    for score, predicted in looks.scores_:
        assert score == np.mean(predicted == y)
    assert len(looks.scores_) == 2 + 2 * 7
    assert looks.scores_[-1][0] == net.score(X, y)
    train, valid = looks.told_["datasets"]
    assert np.array_equal(train.y, y[::2])
    assert np.array_equal(valid.y, y[1::2])
    assert train[3][1] == y[6]
    assert np.array_equal(train.X, X[::2])
    for when in ("begin", "end"):
        assert np.array_equal(looks.told_[when][0], X[::2])
        assert np.array_equal(looks.told_[when][1], y[::2])
    codes = torch.from_numpy(np.searchsorted(NAMES, y))
    assert torch.equal(looks.told_["batch", True][1], codes[::2])
    assert torch.equal(looks.told_["batch", False][1], codes[1::2])


def test_every_hook_of_a_callback_sees_units_of_y(numbers, pairs):
    for X, y in (numbers, pairs):
        looks = Looks(X, y)
        net = regressor(callbacks=[looks], max_epochs=2)
        net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
        for score, predicted in looks.scores_:
            assert score == pytest.approx(metrics.r2_score(y, predicted))
        train, valid = looks.told_["datasets"]
        assert np.array_equal(train.y, y[::2])  # to the last bit
        assert np.array_equal(valid.y, y[1::2])
        assert np.array_equal(train[3][1], y[6])
        assert np.array_equal(looks.told_["end"][1], y[::2])
        encoded = looks.told_["batch", True][1].numpy()
        unit = encoded * net.target_scale_ + net.target_mean_
        assert np.allclose(unit.reshape(y[::2].shape), y[::2], rtol=1e-5)


def test_hooks_of_the_net_itself_see_labels(flowers):
    seen = []

    class Mine(RegularizedNetClassifier):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            super().on_train_begin(net, X, y, **kwargs)
            seen.append(y)

        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            super().on_epoch_end(net, dataset_train=dataset_train, **kwargs)
            seen.append(dataset_train.y)
            seen.append(self.predict(dataset_train))

    X, y = flowers
    net = Mine(max_epochs=1, random_state=0).fit(X, y)
    assert np.array_equal(seen[0], y)
    assert np.array_equal(seen[1], y)
    assert np.array_equal(seen[2], net.predict(X))


def test_losses_are_computed_from_encoded_targets(flowers):
    seen = []

    class Mine(RegularizedNetClassifier):
        def get_loss(self, y_pred, y_true, **kwargs):
            seen.append(y_true)
            return super().get_loss(y_pred, y_true, **kwargs)

    X, y = flowers
    Mine(max_epochs=1, batch_size=-1).fit(X, y)
    assert torch.equal(seen[0], torch.from_numpy(np.searchsorted(NAMES, y)))


def test_batches_of_a_dataset_that_is_shown_can_be_trained_on(flowers):
    losses = []

    class Losses(Callback):
        def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            part = torch.utils.data.Subset(dataset_valid, range(len(dataset_valid)))
            for dataset in (dataset_valid, part):
                (batch,) = net.get_iterator(dataset)
                losses.append(net.validation_step(batch)["loss"].item())

    X, y = flowers
    net = classifier(callbacks=[Losses(), AccuracyTracker(on_train=True)])
    net.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert np.repeat(net.history[:, "valid_loss"], 2) == pytest.approx(losses)
    assert net.history[-1, "train_acc"] == pytest.approx(net.score(X[::2], y[::2]))


def test_a_dataset_that_was_shown_outlives_the_fit(numbers):
    X, y = numbers
    looks = Looks(X, y)
    net = regressor(callbacks=[looks]).fit(X, y)
    train = pickle.loads(pickle.dumps(looks.told_["datasets"][0]))
    assert np.array_equal(train.y, y)
    assert train[1][1] == y[1]
    assert np.array_equal(net.predict(train), net.predict(X))
    assert pickle.loads(pickle.dumps(net)).predict(X) == pytest.approx(net.predict(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_dataset_of_the_user_is_shown_as_it_is(flowers, weighted):
    X, y = flowers
    data, valid = Pairs(X, y), Pairs(X[:30], y[:30])
    weight = np.linspace(0.5, 1.5, len(y)) if weighted else None
    seen, tracked = [], []
    labels = [label for _, label in valid]

    def accuracy(net, dataset, y=None):
        seen.append(dataset)
        return metrics.accuracy_score(labels, net.predict(dataset))

    class Scores(Callback):
        def on_epoch_end(self, net, dataset_valid=None, **kwargs):
            tracked.append((net.predict(X), accuracy(net, dataset_valid)))

    class Trained(Callback):
        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            assert dataset_train is data

    scorings = [
        ("plain", EpochScoring(accuracy, use_caching=False, name="plain")),
        ("cached", EpochScoring(F1, name="cached")),
        Scores(),
        Trained(),
        ProgressBar(),
    ]
    net = classifier(callbacks=scorings).fit(data, sample_weight=weight, X_val=valid)
    assert all(dataset is valid for dataset in seen)
    accuracies = net.history[:, "plain"]
    assert accuracies == [score for _, score in tracked]
    assert accuracies == pytest.approx(net.history[:, "valid_acc"])
    assert net.history[-1, "cached"] == pytest.approx(F1(net, X[:30], y[:30]))


class BothInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], dim=1))


def test_a_dict_of_inputs_is_shown_with_labels(flowers):
    X, y = flowers
    X = {"a": X[:, :2], "b": X[:, 2:]}
    seen = []

    class Spy(Callback):
        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            seen.append(dataset_train)

    scoring = EpochScoring(F1, use_caching=False, on_train=True, name="f1")
    net = classifier(module=BothInputs(), callbacks=[Spy(), scoring]).fit(X, y)
    assert np.array_equal(seen[0].y, y)
    assert net.history[-1, "f1"] == pytest.approx(F1(net, X, y))


def test_samples_of_weight_zero_are_not_shown(flowers):
    X, y = flowers
    weight = np.arange(len(y)) % 2
    looks = Looks(X, y)
    classifier(callbacks=[looks]).fit(X, y, weight)
    assert np.array_equal(looks.told_["datasets"][0].y, y[1::2])
    assert np.array_equal(looks.told_["begin"][1], y[1::2])
    looks = Looks(X, y)
    classifier(callbacks=[looks]).fit(Pairs(X, y), sample_weight=weight)
    shown = looks.told_["datasets"][0]
    assert [label for _, label in shown] == list(y[1::2])


def test_partial_fit_shows_labels_with_classes_known_beforehand(flowers):
    X, y = flowers
    some = y != "c3"
    looks = Looks(X, y)
    net = classifier(callbacks=[looks])
    net.partial_fit(X[some], y[some], classes=NAMES)
    assert np.array_equal(looks.told_["datasets"][0].y, y[some])
    net.partial_fit(X, y)
    assert np.array_equal(looks.told_["datasets"][0].y, y)
    assert all(score == np.mean(predicted == y) for score, predicted in looks.scores_)


def test_class_weights_leave_labels_as_they_are(flowers):
    X, y = flowers
    looks = Looks(X, y)
    weights = {"c1": 1.0, "c2": 2.0, "c3": 3.0}
    net = classifier(callbacks=[looks], class_weight=weights).fit(X, y)
    assert np.array_equal(looks.told_["datasets"][0].y, y)
    assert looks.scores_[-1][0] == net.score(X, y)


def test_parameters_of_callbacks_reach_scorers_of_labels(flowers):
    X, y = flowers
    scoring = EpochScoring("accuracy", name="mine", on_train=True)
    net = classifier(callbacks=[("mine", scoring)], callbacks__mine__scoring=F1)
    net.set_params(callbacks__mine__use_caching=False).fit(X, y)
    assert net.history[-1, "mine"] == pytest.approx(F1(net, X, y))


def test_monitors_that_are_functions_see_labels(flowers, tmp_path):
    X, y = flowers
    errors, accuracies = [], []

    def error(net):
        errors.append(np.mean(net.predict(X) != y))
        return errors[-1]

    def improved(net):
        accuracies.append(net.score(X, y))
        return True

    schedule = LRScheduler("ReduceLROnPlateau", monitor=error, patience=50)
    checkpoint = Checkpoint(monitor=improved, dirname=tmp_path)
    net = classifier(callbacks=[schedule, checkpoint], max_epochs=20)
    net.fit(X, y)
    assert errors[-1] == pytest.approx(1 - net.score(X, y))
    assert accuracies[-1] == net.score(X, y) > 0.8


def test_callbacks_of_scikit_learn_see_labels(flowers):
    callback_module = pytest.importorskip("sklearn.callback")
    X, y = flowers
    told = []

    class Watches:
        def setup(self, estimator, context):
            """Have nothing to set up."""

        teardown = setup

        def on_fit_task_begin(self, estimator, context, *, y):
            told.append(y)

        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            told.append(y)
            for net in (estimator, fitted_estimator):
                assert net.score(X, y) == np.mean(net.predict(X) == y)

    assert isinstance(Watches(), callback_module.FitCallback)
    net = classifier(max_epochs=2)
    net.set_callbacks(Watches())
    net.fit(X, y)
    assert len(told) == 6
    assert all(labels is y for labels in told)
