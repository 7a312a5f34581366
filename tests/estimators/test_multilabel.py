"""Several labels per sample: y as a matrix of zeros and ones."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import coo_array, csr_matrix
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.utils import estimator_checks, get_tags
from skorch.callbacks import EpochScoring
from skorch.dataset import ValidSplit
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier
from skreg.attacks import log_odds_of_any_error
from skreg.callbacks import AccuracyTracker
from skreg.robustness import fgsm, pgd, robust_accuracy

X, Y = make_multilabel_classification(120, 8, n_classes=4, random_state=0)
X = (X - X.mean(axis=0)) / X.std(axis=0)


def net(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 10, "random_state": 0} | params
    return RegularizedNetClassifier(**({"lr": 0.02} | params))


def weights(fitted):
    return [w.detach().cpu() for w in fitted.module_.parameters()]


@pytest.fixture(scope="module")
def fitted():
    return net().fit(X, Y, X_val=X, y_val=Y)


def test_it_has_the_attributes_of_mlpclassifier(fitted):
    peer = MLPClassifier(4, learning_rate_init=0.05, max_iter=2000, random_state=0)
    peer.fit(X, Y)
    np.testing.assert_array_equal(fitted.classes_, peer.classes_)
    predicted, expected = fitted.predict(X), peer.predict(X)
    assert predicted.dtype == expected.dtype
    assert predicted.shape == expected.shape
    assert fitted.predict_proba(X).shape == peer.predict_proba(X).shape
    assert get_tags(fitted).classifier_tags.multi_label
    assert 0.2 < fitted.score(X, Y) < 1


def test_probabilities_are_sigmoids_of_logits(fitted):
    with torch.no_grad():
        logits = fitted.module_(torch.as_tensor(X).to(fitted.device_)).cpu().numpy()
    np.testing.assert_allclose(fitted.decision_function(X), logits)
    np.testing.assert_allclose(fitted.predict_proba(X), expit(logits))
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(expit(logits)))
    np.testing.assert_array_equal(fitted.predict(X), logits > 0)


def test_the_loss_is_the_binary_cross_entropy(fitted):
    logits = torch.as_tensor(fitted.decision_function(X))
    expected = binary_cross_entropy_with_logits(logits, torch.as_tensor(Y).double())
    assert fitted.history[-1, "valid_loss"] == pytest.approx(expected.item())


def test_the_parameter_stays_as_it_was(fitted):
    assert fitted.criterion is nn.CrossEntropyLoss
    assert isinstance(fitted.criterion_, nn.BCEWithLogitsLoss)
    again = clone(fitted).fit(X, Y.argmax(axis=1))
    assert isinstance(again.criterion_, nn.CrossEntropyLoss)
    np.testing.assert_allclose(again.predict_proba(X).sum(axis=1), 1)
    again.fit(X, Y)
    assert all(map(torch.equal, weights(again), weights(fitted)))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_accuracies_are_of_whole_rows(early_stopping):
    both = net(
        early_stopping=early_stopping, callbacks=[AccuracyTracker(on_train=True)]
    ).fit(X[:80], Y[:80], X_val=X[80:], y_val=Y[80:])
    last = both.best_epoch_ - 1 if early_stopping else -1
    assert both.history[last, "valid_acc"] == pytest.approx(both.score(X[80:], Y[80:]))
    if not early_stopping:
        assert both.history[-1, "train_acc"] == both.score(X[:80], Y[:80])
    expected = (both.predict(X) == Y).all(axis=1).mean()
    assert both.score(X, Y) == expected


def test_early_stopping_holds_out_rows_of_any_labels():
    stopped = net(early_stopping=True, validation_fraction=0.25).fit(X, Y)
    assert stopped.history[-1]["batches"][-1]["valid_batch_size"] == 30


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        csr_matrix,
        coo_array,
        pd.DataFrame,
        torch.as_tensor,
        lambda y: y.astype(bool),
        lambda y: y.astype(float),
        lambda y: y.astype(object),
        lambda y: [list(row) for row in y],
    ],
)
def test_any_form_of_matrix_will_do(convert, fitted):
    other = net().fit(X, convert(Y), X_val=X, y_val=convert(Y))
    assert all(map(torch.equal, weights(other), weights(fitted)))
    assert other.predict(X).dtype == np.int64
    if getattr(convert(Y), "dtype", None) not in (
        object,
        torch.int64,
    ):  # no metrics' kind
        assert other.score(X, convert(Y)) == fitted.score(X, Y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("own", [False, True])
def test_datasets_hold_rows_of_labels(own, dtype):
    class Own(TensorDataset):
        """Whose arrays are not looked at."""

    data = (Own if own else TensorDataset)(
        torch.as_tensor(X), torch.as_tensor(Y).to(dtype)
    )
    by_arrays, by_dataset = net(shuffle=False).fit(X, Y), net(shuffle=False)
    by_dataset.set_params(dtype="float64").fit(data)
    for a, b in zip(weights(by_arrays), weights(by_dataset), strict=True):
        torch.testing.assert_close(a, b)
    np.testing.assert_array_equal(by_dataset.predict(data), by_arrays.predict(X))


def test_weights_of_samples_count():
    weight = np.where(np.arange(120) < 60, 1.0, 0.0)
    half, weighted = net().fit(X[:60], Y[:60]), net().fit(X, Y, weight)
    assert all(map(torch.equal, weights(half), weights(weighted)))
    doubled = net(batch_size=-1).fit(X, Y, 1 + weight)
    rows = np.r_[np.arange(120), np.arange(60)]
    repeated = net(batch_size=-1).fit(X[rows], Y[rows])
    for a, b in zip(weights(doubled), weights(repeated), strict=True):
        torch.testing.assert_close(a, b)


def test_callbacks_and_splits_see_integers():
    seen = []

    def score(net, X, y):
        seen.append(y)
        return net.score(X, y)

    both = net(
        max_epochs=2,
        train_split=ValidSplit(3),
        callbacks=[
            EpochScoring(score, name="own"),
            EpochScoring("f1_macro", name="f1"),
        ],
    ).fit(X, Y)
    assert seen[0].dtype == np.int64
    assert set(np.unique(seen[0])) == {0, 1}
    assert both.history[-1, "own"] == both.history[-1, "valid_acc"]
    assert 0 < both.history[-1, "f1"] < 1


def test_scorers_and_cross_validation():
    probabilities = cross_val_predict(net(), X, Y, cv=3, method="predict_proba")
    logits = cross_val_predict(net(), X, Y, cv=3, method="decision_function")
    np.testing.assert_allclose(expit(logits), probabilities)
    labels = cross_val_predict(net(), X, Y, cv=3)
    np.testing.assert_array_equal(labels, probabilities > 0.5)
    one = net().fit(X[:80], Y[:80])
    rest = X[80:], Y[80:]
    measures = {
        "f1_macro": f1_score(rest[1], one.predict(rest[0]), average="macro"),
        "average_precision": average_precision_score(
            rest[1], one.decision_function(rest[0])
        ),
        "roc_auc": roc_auc_score(rest[1], one.predict_proba(rest[0])),
        "accuracy": one.score(*rest),
    }
    for scoring, expected in measures.items():
        split = [(np.arange(80), np.arange(80, 120))]
        (score,) = cross_val_score(net(), X, Y, cv=split, scoring=scoring)
        assert score == pytest.approx(expected)


def test_it_goes_on_and_is_pickled(fitted):
    started = net(warm_start=True).fit(X, Y)
    more = started.fit(X, Y)
    assert len(more.history) == 20
    first = net().partial_fit(X, Y, classes=[0, 1, 2, 3]).partial_fit(X, Y)
    assert all(map(torch.equal, weights(more), weights(first)))
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict(X), fitted.predict(X))
    prepared = net(classes=range(4), module__in_features=8, module__out_features=4)
    prepared.set_params(dtype="float64").initialize().partial_fit(X, Y)
    assert prepared.predict(X).shape == (120, 4)


def test_saved_weights_are_loaded_into_a_net_that_has_no_data(fitted, tmp_path):
    fitted.save_params(f_params=tmp_path / "weights.pt")
    other = net(
        **{"criterion": nn.BCEWithLogitsLoss, "classes": range(4), "dtype": "float64"},
        **{"module__in_features": 8, "module__out_features": 4},
    ).initialize()
    other.load_params(f_params=tmp_path / "weights.pt")
    np.testing.assert_allclose(other.predict_proba(X), fitted.predict_proba(X), 1e-5)
    assert other.predict(X).shape == (120, 4)


class Sigmoid(nn.Sequential):
    def __init__(self, in_features, out_features):
        super().__init__(nn.Linear(in_features, out_features), nn.Sigmoid())


def test_other_criteria():
    soft = net(criterion=nn.MultiLabelSoftMarginLoss).fit(X, Y)
    assert all(map(torch.allclose, weights(soft), weights(net().fit(X, Y))))
    np.testing.assert_allclose(expit(soft.decision_function(X)), soft.predict_proba(X))
    params = {"lr": 0.1, "max_epochs": 40}
    own = net(module=Sigmoid, criterion=nn.BCELoss, **params).fit(
        X, Y, X_val=X, y_val=Y
    )
    assert not hasattr(own, "decision_function")
    assert own.history[-1, "valid_acc"] == own.score(X, Y)
    np.testing.assert_array_equal(own.predict(X), own.predict_proba(X) > 0.5)
    np.testing.assert_allclose(
        own.predict_log_proba(X), np.log(own.predict_proba(X)), rtol=1e-6
    )
    weight = torch.tensor([100.0, 1, 1, 1])
    heavy = net(criterion=nn.BCEWithLogitsLoss, criterion__pos_weight=weight).fit(X, Y)
    assert heavy.predict(X)[:, 0].mean() > Y[:, 0].mean()


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({"criterion": nn.CrossEntropyLoss()}, Y, "is for one class per sample, but y"),
        ({"criterion": nn.MultiMarginLoss}, Y, r"use criterion=nn\.BCEWithLogitsLoss"),
        (
            {"criterion__label_smoothing": 0.1},
            Y,
            "CrossEntropyLoss, criterion__label_s",
        ),
        ({"criterion": nn.BCEWithLogitsLoss}, Y[:, 0], "for several labels per sample"),
        ({"criterion": nn.BCELoss()}, Y[:, 0], "pass y as a 0/1 matrix"),
        ({"class_weight": "balanced"}, Y, "class_weight='balanced' is for one class"),
        ({"class_weight": {0: 2.0}}, Y, "criterion__pos_weight"),
        ({"classes": ["a", "b"]}, Y, "classes=.* are for one class per sample"),
        ({}, Y + 1, "other values than 0 and 1.*MultiOutputClassifier"),
        ({}, np.where(Y, "a", "b"), "other values than 0 and 1"),
        ({}, 0.5 * Y, r"y has shape \(120, 4\) and holds other values"),
        ({}, np.repeat(Y[:, :, None], 2, 2), "dim 3|array"),
    ],
)
def test_what_does_not_go_together_is_told(params, y, message):
    with pytest.raises(ValueError, match=message):
        net(**params).fit(X, y)


def test_other_targets_than_those_of_the_first_fit_are_told_of(fitted):
    for y in (Y[:, :3], Y[:, 0]):
        with pytest.raises(ValueError, match=r"0/1 matrices of shape \(n_samples, 4\)"):
            net(warm_start=True).fit(X, Y).fit(X, y)
    with pytest.raises(ValueError, match="was fitted on one class per sample"):
        net().fit(X, Y[:, 0], X_val=X, y_val=Y)


def test_a_single_column_is_one_class_per_sample():
    with pytest.warns(sklearn_warning(), match="A column-vector y was passed"):
        single = net().fit(X, Y[:, :1])
    assert single.predict(X).shape == (120,)


def sklearn_warning():
    from sklearn.exceptions import DataConversionWarning

    return DataConversionWarning


# -- attacks -------------------------------------------------------------------------


def test_what_attacks_maximise_is_the_odds_of_any_error():
    torch.manual_seed(0)
    logits = 3 * torch.randn(50, 4, dtype=torch.float64)
    y = (torch.rand(50, 4) < 0.5).double()
    right = torch.where(y > 0.5, logits, -logits).sigmoid().prod(dim=1)
    expected = torch.log((1 - right) / right)
    torch.testing.assert_close(log_odds_of_any_error(logits, y), expected)


def test_a_net_that_is_sure_has_a_gradient():
    logits = torch.tensor([[300.0, -400.0]], requires_grad=True)
    log_odds_of_any_error(logits, torch.tensor([[1.0, 0.0]])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 0.0]]))


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_robust_accuracy_is_of_whole_rows(attack, fitted):
    accuracies = robust_accuracy(fitted, X, Y, eps=[0, 0.1, 0.5], attack=attack)
    assert accuracies[0] == fitted.score(X, Y)
    assert accuracies[0] > accuracies[1] > accuracies[2]
    options = {"eps": 0.5} if attack == "fgsm" else {"eps": 0.5, "n_restarts": 0}
    attacked = {"fgsm": fgsm, "pgd": pgd}[attack](fitted, X, Y, **options)
    both = (fitted.predict(attacked) == Y) & (fitted.predict(X) == Y)
    found = robust_accuracy(fitted, X, Y, attack=attack, **options)
    assert both.all(axis=1).mean() == found


def test_adversarial_training_makes_it_robust():
    params = {"max_epochs": 60, "hidden_layer_sizes": 30}
    plain = net(**params).fit(X, Y)
    robust = net(adversarial_eps=0.2, **params).fit(X, Y)
    found = [robust_accuracy(one, X, Y, eps=0.2) for one in (plain, robust)]
    assert found[1] > found[0]


def test_attacks_need_to_know_how_wrong_outputs_are():
    other = net(module=Sigmoid, criterion=nn.BCELoss).fit(X, Y)
    with pytest.raises(ValueError, match="does not tell how wrong 0/1 targets are"):
        robust_accuracy(other, X, Y, eps=0.1)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_classifiers_multilabel_representation_invariance,
        estimator_checks.check_classifiers_multilabel_output_format_predict,
        estimator_checks.check_classifiers_multilabel_output_format_predict_proba,
        estimator_checks.check_classifiers_multilabel_output_format_decision_function,
    ],
)
def test_checks_of_scikit_learn(check):
    check("RegularizedNetClassifier", net())
