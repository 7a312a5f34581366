"""What scikit-learn's users, meta-estimators and searches expect of an estimator."""

import copy
import io
import pickle
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import EpochTimer
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators import _pickling
from skreg.modules import MLP, AnimalNetDropout
from skreg.transforms import RandomFlip

SGD = {"optimizer": torch.optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9}


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True)


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


def small_regressor(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetRegressor(**params)


def weights(net):
    return [w.detach() for w in net.module_.parameters()]


def equal_weights(a, b):
    return all(map(torch.equal, weights(a), weights(b)))


def assert_close_weights(a, b, atol):
    for left, right in zip(weights(a), weights(b), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol)


# -- scikit-learn's own checks ------------------------------------------------------


@parametrize_with_checks([RegularizedNetClassifier(), RegularizedNetRegressor()])
def test_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_dataframe_column_names_consistency,
        estimator_checks.check_inplace_ensure_writeable,
    ],
)
@pytest.mark.parametrize("net", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_checks_that_scikit_learn_keeps_for_its_own(net, check):
    check(net.__name__, net(random_state=0))


def failed_checks(estimator, name, record_property=None):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 40
    assert not [r for r in results if r["status"] == "skipped"]
    failed = {r["check_name"] for r in results if r["status"] != "passed"}
    if record_property:
        passed = sum(r["status"] == "passed" for r in results)
        counts = f"{name}: {passed} passed, {len(results) - passed} failed"
        record_property("checks", f"{counts} {sorted(failed) or ''}")
    return failed


@pytest.mark.filterwarnings("ignore")  # what the checks provoke; failures are counted
@pytest.mark.parametrize(
    ("ours", "peer"),
    [(RegularizedNetClassifier, LogisticRegression), (RegularizedNetRegressor, Ridge)],
)
def test_pipelines_fail_no_check_that_those_of_scikit_learn_pass(
    ours, peer, record_property
):
    """Any Pipeline replaces the list ``steps`` in fit, which two checks object to."""
    of_pipelines = failed_checks(make_pipeline(StandardScaler(), peer()), "peer")
    pipeline = make_pipeline(StandardScaler(), ours(random_state=0))
    assert failed_checks(pipeline, f"Pipeline of {ours.__name__}", record_property) <= (
        of_pipelines
        & {"check_dont_overwrite_parameters", "check_estimators_overwrite_params"}
    )


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["cuda", "auto"])
@pytest.mark.parametrize("ours", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_estimator_checks_pass_on_cuda(cuda, ours, device, record_property):
    name = f"{ours.__name__}(device={device!r})"
    assert not failed_checks(ours(device=device), name, record_property)


class ByName(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.fc = nn.Linear(4, out_features)

    def forward(self, inputs):
        return self.fc(inputs)


@pytest.mark.parametrize("net", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_tags_are_true(iris, net):
    X, y = iris[0].astype(np.float32), iris[1]
    n_outputs = 3 if net is RegularizedNetClassifier else 1
    accepted = {
        "two_d_array": (net(max_epochs=1), X),
        "three_d_array": (net(max_epochs=1), X.reshape(150, 2, 2)),
        "dict": (net(ByName(n_outputs), max_epochs=1), {"inputs": X}),
        "sparse": (net(max_epochs=1), csr_array(X)),
    }
    refused = {
        "one_d_array": X[:, 0],
        "string": np.full((150, 2), "a"),
        "allow_nan": np.where(X > 0, np.nan, X),
    }
    tags = net().__sklearn_tags__().input_tags
    for tag, (estimator, data) in accepted.items():
        assert getattr(tags, tag), tag
        assert estimator.fit(data, y).predict(data).shape == (150,)
    for tag, data in refused.items():
        assert not getattr(tags, tag), tag
        with pytest.raises((TypeError, ValueError)):
            net().fit(data, y)


# -- weights of samples and classes -------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"batch_size": 7, "dropout": 0.3}])
@pytest.mark.parametrize("value", [1, 1.0, 7, 0.3])
def test_equal_weights_are_no_weights_bit_for_bit(iris, params, value):
    X, y = iris
    none = small(lambda1=1e-3, **params).fit(X, y)
    equal = small(lambda1=1e-3, **params).fit(X, y, np.full(len(y), value))
    assert equal_weights(none, equal)


@pytest.mark.parametrize("regression", [False, True])
def test_integer_weights_are_repeated_rows(iris, diabetes, regression):
    make, (X, y) = (small_regressor, diabetes) if regression else (small, iris)
    sample_weight = np.random.default_rng(0).integers(0, 4, len(y))
    params = {"batch_size": -1, "max_epochs": 50, "lambda1": 1e-3, "lambda2": 1e-3}
    weighted = make(**params, **SGD).fit(X, y, sample_weight=sample_weight)
    rows = np.repeat(np.arange(len(y)), sample_weight)
    repeated = make(**params, **SGD).fit(X[rows], y[rows])
    assert_close_weights(weighted, repeated, atol=1e-8)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)


def test_only_the_ratios_of_weights_count(iris):
    """Ten times the weights, and the penalty weighs what it did."""
    X, y = iris
    sample_weight = np.random.default_rng(0).uniform(size=len(y))
    one = small(lambda2=0.01, batch_size=16).fit(X, y, sample_weight)
    ten = small(lambda2=0.01, batch_size=16).fit(X, y, 10 * sample_weight)
    assert_close_weights(one, ten, atol=1e-10)
    np.testing.assert_allclose(
        one.history[:, "train_penalty"], ten.history[:, "train_penalty"], rtol=1e-10
    )


def test_weighted_loss_is_the_weighted_mean(iris):
    X, y = iris
    sample_weight = np.random.default_rng(0).uniform(size=len(y))
    net = small(batch_size=-1, max_epochs=1, lr=0.0).fit(X, y, sample_weight)
    losses = -np.log(net.predict_proba(X)[np.arange(len(y)), y])
    expected = np.average(losses, weights=sample_weight)
    assert net.history[0, "train_loss"] == pytest.approx(expected, rel=1e-10)


def test_weights_through_a_dataloader_are_the_same_weights(iris):
    X, y = iris
    sample_weight = np.arange(len(y)) % 3 + 1
    in_memory = small(shuffle=False, batch_size=32).fit(X, y, sample_weight)
    loader = small(
        shuffle=False, batch_size=32, iterator_train=torch.utils.data.DataLoader
    ).fit(X, y, sample_weight)
    assert_close_weights(in_memory, loader, atol=1e-12)
    pairs = [(x, label) for x, label in zip(X.astype(np.float32), y, strict=True)]
    dataset = small(shuffle=False, batch_size=32).fit(
        pairs_dataset(pairs), None, sample_weight
    )
    assert_close_weights(
        dataset,
        small(shuffle=False, batch_size=32, dtype="float32").fit(X, y, sample_weight),
        1e-6,
    )


def pairs_dataset(pairs):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(pairs)

        def __getitem__(self, i):
            return pairs[i]

    return Pairs()


def test_weights_survive_the_validation_split(iris):
    X, y = iris
    zero_or_one = (np.arange(len(y)) % 2).astype(float)
    split = {"early_stopping": True, "patience": 100}
    weighted = small(**split).fit(X, y, zero_or_one)
    dropped = small(**split).fit(X[1::2], y[1::2])
    assert equal_weights(weighted, dropped)


@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series, torch.from_numpy])
def test_groups_follow_the_samples_that_have_weight(iris, kind):
    X, y = iris
    zero_or_one, groups = (np.arange(150) % 4 > 0).astype(float), np.arange(150) % 3
    params = {"train_split": ValidSplit(GroupKFold(3))}
    weighted = small(**params).fit(X, y, zero_or_one, groups=kind(groups))
    rows = zero_or_one > 0
    dropped = small(**params).fit(X[rows], y[rows], groups=groups[rows])
    assert equal_weights(weighted, dropped)
    assert weighted.history[:, "valid_loss"] == dropped.history[:, "valid_loss"]


def test_other_fit_params_follow_the_samples_too(iris):
    X, y = iris
    seen = {}

    def split(dataset, y=None, *, months, name, table):
        seen.update(months=months, name=name, table=table)
        return Subset(dataset, range(50)), None

    class Named(MLP):
        def forward(self, x, months=None, name=None, table=None):
            return super().forward(x)

    net = small(module=Named, train_split=split)
    weight = np.arange(150) % 2
    table, name = {"a": 1}, "n" * 150
    net.fit(X, y, weight, months=list(range(150)), name=name, table=table)
    assert list(seen["months"]) == list(range(1, 150, 2))
    assert seen["name"] is name
    assert seen["table"] is table


def test_groups_are_held_out_as_a_whole_by_early_stopping(iris):
    X, y = iris
    groups, held_out = np.arange(150) // 10, []

    class Spy(RegularizedNetClassifier):
        def get_split_datasets(self, X, y=None, **fit_params):
            train, valid = super().get_split_datasets(X, y, **fit_params)
            held_out.extend([train.X, valid.X])
            return train, valid

    Spy(early_stopping=True, max_epochs=1, random_state=0).fit(X, y, groups=groups)
    rows = [{tuple(row) for row in part} for part in held_out]
    sides = [{g for x, g in zip(X, groups, strict=True) if tuple(x) in r} for r in rows]
    assert len(held_out[1]) == 20  # two of fifteen groups
    assert len(sides[1] - sides[0]) == 2
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(X, y, groups=groups[:-1])


def test_a_class_of_weight_zero_is_a_class(iris):
    """As for LogisticRegression: y tells the classes, whatever the weights."""
    X, y = iris
    labels, no_cats = np.array(["ape", "bee", "cat"])[y], (y < 2).astype(float)
    net = small(max_epochs=40, lr=0.02).fit(X, labels, no_cats)
    peer = LogisticRegression().fit(X, labels, no_cats)
    assert list(net.classes_) == list(peer.classes_) == ["ape", "bee", "cat"]
    assert net.predict_proba(X).shape == (150, 3)
    assert net.score(X[:100], labels[:100]) == 1
    told = small(max_epochs=40, lr=0.02, classes=["ape", "bee", "cat"])
    assert equal_weights(net, told.fit(X[:100], labels[:100]))
    apes = small(max_epochs=40, lr=0.02).fit(X, labels, (y == 0).astype(float))
    assert apes.predict_proba(X).shape == (150, 3)
    assert (apes.predict(X[:50]) == "ape").all()


def test_class_weight_is_a_weight_of_samples(iris):
    X, y = iris[0][:120], iris[1][:120]  # 50, 50 and 20 of the classes
    named = np.array(["a", "b", "c"])[y]
    balanced = small(class_weight="balanced").fit(X, named)
    by_hand = small().fit(X, named, np.array([1 / 50, 1 / 50, 1 / 20])[y])
    assert_close_weights(balanced, by_hand, atol=1e-10)
    chosen = small(class_weight={"a": 1, "b": 2, "c": 3}).fit(X, named)
    assert_close_weights(chosen, small().fit(X, named, y + 1), atol=1e-10)
    both = small(class_weight={"a": 1, "b": 2, "c": 3}).fit(X, named, y + 1)
    assert_close_weights(both, small().fit(X, named, (y + 1) ** 2), atol=1e-10)


@pytest.mark.parametrize(
    ("sample_weight", "message"),
    [
        ([1.0, 2.0], r"sample_weight.shape=\(2,\) must be \(150,\)"),
        (np.zeros(150), "sample_weight is zero for all samples"),
        (np.full(150, -1.0), "sample_weight holds -1.0; negative"),
        (np.full(150, np.nan), "Input sample_weight contains NaN"),
    ],
)
def test_bad_sample_weight(iris, sample_weight, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*iris, sample_weight)


def test_bad_class_weight(iris):
    with pytest.raises(
        ValueError, match="class_weight='auto' must be None, 'balanced'"
    ):
        small(class_weight="auto").fit(*iris)
    with pytest.raises(
        ValueError, match=r"classes, \[0, 1, 2\], are not in class_weight"
    ):
        small(class_weight={9: 1}).fit(*iris)


def test_criterion_without_reduction_cannot_be_weighted(iris):
    class Loss(nn.Module):
        def forward(self, outputs, y):
            return nn.functional.cross_entropy(outputs, y)

    small(criterion=Loss).fit(*iris)
    with pytest.raises(ValueError, match="criterion=Loss has no reduction='mean'"):
        small(criterion=Loss).fit(*iris, np.arange(150.0) + 1)


@pytest.mark.parametrize(
    "params", [{"weight": torch.ones(3)}, {"ignore_index": 1}, {"reduction": "sum"}]
)
def test_criterion_that_weighs_by_itself_cannot_be_weighted(iris, params):
    params = {f"criterion__{name}": value for name, value in params.items()}
    with pytest.raises(ValueError, match="criterion=CrossEntropyLoss has"):
        small(**params).fit(*iris, np.arange(150.0) + 1)


def test_weights_of_held_out_samples_do_not_weigh(iris):
    """Heavy validation samples must not make the training loss light."""
    X, y = iris
    order = np.random.default_rng(0).permutation(len(y))
    X, y, heavy = X[order], y[order], np.repeat([1.0, 5.0], 75)

    def first_half(dataset, y=None):
        return Subset(dataset, range(75)), Subset(dataset, range(75, 150))

    params = {"lambda2": 0.01, "batch_size": -1}
    split = small(train_split=first_half, **params).fit(X, y, heavy)
    assert_close_weights(split, small(**params).fit(X[:75], y[:75]), atol=1e-10)


@pytest.mark.parametrize("weight", [-1, 0, np.nan, np.inf])
def test_class_weights_are_checked(iris, weight):
    with pytest.raises(
        ValueError, match=r"class_weight=.* must hold finite weights >= 0"
    ):
        small(class_weight=dict.fromkeys(range(3), weight)).fit(*iris)


def test_huge_weights(iris):
    X, y = iris
    heavy = 1e307 * (np.arange(150) % 3 + 1)
    assert_close_weights(
        small().fit(X, y, heavy), small().fit(X, y, heavy / 1e307), atol=1e-10
    )


META_CLASSIFIERS = [
    AdaBoostClassifier(small(), n_estimators=3, random_state=0),
    BaggingClassifier(small(), n_estimators=3, random_state=0),
    CalibratedClassifierCV(small(), cv=2),
    OneVsRestClassifier(small()),
    StackingClassifier([("net", small()), ("lr", LogisticRegression())], cv=2),
    VotingClassifier([("net", small()), ("lr", LogisticRegression())], voting="soft"),
]


@pytest.mark.parametrize("meta", META_CLASSIFIERS, ids=lambda m: type(m).__name__)
def test_meta_classifiers(iris, meta):
    nets = {
        n: small(max_epochs=40, lr=0.02)
        for n in meta.get_params()
        if n in ("estimator", "net")
    }
    meta = clone(meta).set_params(**nets)
    assert meta.fit(*iris).score(*iris) > 0.9


def test_meta_regressors(diabetes):
    X, y = diabetes
    net = small_regressor(max_epochs=30, lr=0.01)
    y_two = np.column_stack([y, -y])
    assert MultiOutputRegressor(net).fit(X, y_two).score(X, y_two) > 0.4
    log = TransformedTargetRegressor(net, func=np.log, inverse_func=np.exp).fit(X, y)
    assert log.score(X, y) > 0.4


# -- parameters ---------------------------------------------------------------------


def test_set_params_before_fit_only_stores(iris):
    net = small().set_params(
        module__activation="tanh", optimizer__weight_decay=0.1, callbacks__norms=None
    )
    assert not hasattr(net, "callbacks_")
    net.fit(*iris)
    assert isinstance(net.module_.activation, nn.Tanh)
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.1
    assert "param_norm" not in net.history[0]


@pytest.mark.parametrize(
    "params",
    [
        {"module__activation": "tanh"},
        {"hidden_layer_sizes": 3},
        {"lambda1": 0.1},
        {"lr": 0.1, "optimizer__weight_decay": 0.1},
        {"optimizer": torch.optim.SGD},
        {"criterion__label_smoothing": 0.1},
        {"callbacks__norms": None},
        {"dtype": "float32", "max_epochs": 2},
    ],
)
def test_set_params_after_fit_shows_at_the_next_fit(iris, params):
    X, y = iris
    net = small().fit(X, y)
    before = net.predict_proba(X)
    net.set_params(**params)
    assert np.array_equal(net.predict_proba(X), before)
    assert {name: net.get_params()[name] for name in params} == params
    assert equal_weights(net.fit(X, y), small().set_params(**params).fit(X, y))


def test_set_params_and_warm_start(iris):
    X, y = iris
    net = small(warm_start=True, max_epochs=1).fit(X, y)
    module, optimizer = net.module_, net.optimizer_
    net.set_params(lr=0.5, optimizer__weight_decay=0.25)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5
    net.fit(X, y)
    assert net.module_ is module
    assert net.optimizer_ is optimizer
    assert len(net.history) == 2
    net.set_params(optimizer=torch.optim.SGD, callbacks__norms=None).fit(X, y)
    assert net.module_ is module
    assert isinstance(net.optimizer_, torch.optim.SGD)
    assert "param_norm" not in net.history[-1]
    net.set_params(module__dropout=0.5).fit(X, y)
    assert net.module_ is not module
    assert len(net.history) == 1


def test_dropout_none_on_a_warm_net_is_the_dropout_of_the_module(iris):
    X, y = iris
    net = small(module=AnimalNetDropout, module__in_features=4, dropout=0.125)
    net.fit(X, y)
    layers = net.module_.dropout1, net.module_.dropout2
    net.set_params(dropout=None).partial_fit(X, y)
    assert [layer.p for layer in layers] == [0.5, 0.3]
    layers[0].p = 0.25  # by hand, which nobody has asked to undo
    pickle.loads(pickle.dumps(net)).partial_fit(X, y)
    net.partial_fit(X, y)
    assert [layer.p for layer in layers] == [0.25, 0.3]
    net.set_params(dropout=0.75).partial_fit(X, y)
    copied = pickle.loads(pickle.dumps(net)).set_params(dropout=None)
    copied.partial_fit(X, y)
    assert copied.module_.dropout1.p == 0.5


def test_device_and_dtype_of_a_warm_net_wait(iris):
    X, y = iris
    net, peer = (small(device="cpu").fit(X, y) for _ in range(2))
    net.set_params(dtype="float32", device="cuda:7")
    assert np.array_equal(net.predict_proba(X), peer.predict_proba(X))
    assert equal_weights(net.partial_fit(X, y), peer.partial_fit(X, y))
    assert net.device_.type == "cpu"
    with pytest.raises(ValueError, match="device='cuda:7' cannot be used"):
        net.fit(X, y)
    net.set_params(device="cpu").fit(X, y)
    assert weights(net)[0].dtype == torch.float32


def test_early_stopping_set_on_a_warm_net(iris):
    net = small(warm_start=True).fit(*iris)
    net.set_params(early_stopping=True, patience=0, max_epochs=500, lr=0.1).fit(*iris)
    assert len(net.history) == net.best_epoch_ + 1 < 505


def test_predictions_beyond_all_numbers_are_refused(diabetes):
    X, y = diabetes
    net = small_regressor().fit(X.astype(np.float32), y * 1e40)
    with pytest.raises(ValueError, match="y is too large for its dtype"):
        net.predict(X.astype(np.float32))


def test_unknown_parameters(iris):
    with pytest.raises(ValueError, match="Invalid parameter 'lamda'"):
        small().set_params(lamda=1)
    with pytest.raises(ValueError, match="unexpected argument"):
        small(modul__x=1).fit(*iris)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module__nope": 1}, "module__nope=1 is no argument of module=MLP, .*activ"),
        ({"optimizer__nope": 1}, "optimizer__nope=1 is no .*Adam, .*optimizer__betas"),
        (
            {"criterion__nope": 1},
            "criterion__nope=1 is no .*CrossEntropyLoss, .*weight",
        ),
        ({"iterator_train__nope": 1}, "iterator_train__nope=1 is no .*num_workers"),
        ({"iterator_valid__nope": 1}, "iterator_valid__nope=1 is no .*num_workers"),
        ({"dataset__nope": 1}, "dataset__nope=1 is no .*dataset__length"),
        ({"augment__nope": 1}, "augment__nope=1 is no .*augment=None, .* none"),
        ({"callbacks__norm": None}, "callbacks__norm=None names no callback; .*norms"),
        (
            {"criterion": nn.CrossEntropyLoss(), "criterion__nope": 1},
            "criterion__nope=1 is no argument of criterion=CrossEntropyLoss",
        ),
        (
            {"augment": RandomFlip, "augment__nope": 1},
            "augment=RandomFlip, which accepts augment__horizontal, augment__vertical",
        ),
        ({"module": nn.Bilinear}, "module=Bilinear cannot .*in1_features, module__in2"),
        ({"module__a": 1, "lr": -1}, r"lr=-1 must be .*\n.*module__a=1 is no"),
    ],
)
def test_arguments_that_components_do_not_take(iris, params, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        small(**params).fit(*iris)
    net = small().fit(*iris).set_params(**params)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        net.partial_fit(*iris)


def test_arguments_that_components_do_take(iris):
    class Open(MLP):
        def __init__(self, in_features, out_features, **anything):
            super().__init__(in_features, out_features)

    net = small(
        module=Open,
        module__nope=1,
        optimizer__param_groups=[("fc1.*", {"lr": 0.5})],
        callbacks=[("mine", EpochTimer())],
        callbacks__mine=None,
        callbacks__early_stopping__patience=3,
        iterator_train__drop_last=True,
    )
    assert net.fit(*iris).optimizer_.param_groups[0]["lr"] == 0.5


def test_a_data_loader_is_no_data(iris):
    X, y = iris
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    for call in (
        lambda: small().fit(loader),
        lambda: small().fit(loader, y),
        lambda: small().partial_fit(loader),
        lambda: small().fit(X, y, X_val=loader),
        lambda: small().fit(X, y).predict(loader),
    ):
        with pytest.raises(
            ValueError, match=r"is a DataLoader, .*batch_size=.*workers"
        ):
            call()
    assert small().fit(loader.dataset).score(loader.dataset, y) > 0


def test_partial_fit_with_classes(iris):
    X, y = iris
    names = np.array(["a", "b", "c"])
    net = small(lr=0.02, max_epochs=1)
    for _ in range(40):
        for part in (slice(0, 100), slice(50, 150)):  # neither shows all the classes
            net.partial_fit(X[part], names[y[part]], classes=names)
    assert list(net.classes_) == list(names)
    assert net.score(X, names[y]) > 0.9
    with pytest.raises(
        ValueError, match=r"labels \['d'\] that are none of the classes"
    ):
        net.partial_fit(X[:2], ["a", "d"])
    with pytest.raises(
        ValueError, match=r"are not those of the first call, \['a', 'b'"
    ):
        net.partial_fit(X, names[y], classes=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="X has 3 features"):
        net.partial_fit(X[:, :3], names[y])


# -- copies -------------------------------------------------------------------------


ROUND_TRIPS = {
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "joblib": lambda net, path: joblib.load(joblib.dump(net, path / "net")[0]),
}


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_round_trips(iris, tmp_path, way):
    X, y = iris
    params = {"lambda1": 1e-3, "module__activation": "tanh", "callbacks__norms": None}
    unfitted = ROUND_TRIPS[way](small(**params), tmp_path)
    with pytest.raises(NotFittedError):
        check_is_fitted(unfitted)
    fitted = small(**params).fit(X, y, X_val=X, y_val=y)
    copied = ROUND_TRIPS[way](fitted, tmp_path)
    check_is_fitted(copied)
    assert copied.get_params(deep=False) == fitted.get_params(deep=False)
    assert np.array_equal(copied.predict_proba(X), fitted.predict_proba(X))
    assert copied.history == fitted.history
    assert equal_weights(copied.partial_fit(X, y), fitted.partial_fit(X, y))
    assert equal_weights(unfitted.fit(X, y), small(**params).fit(X, y))


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_pickles_that_say_cuda_load_on_a_cpu(iris, device, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device: real pickles are tested")
    X, y = iris
    net = small(early_stopping=True).fit(X, y).set_params(device=device)
    net.device_ = torch.device("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(_pickling, "_device_of", lambda tensor: "cuda:0")
        pickled = pickle.dumps(net)
    assert b"cuda:0" in pickled
    net.device_ = torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skorch says that the device has changed
        loaded = pickle.loads(pickled)
    assert loaded.device_.type == "cpu"
    assert np.array_equal(loaded.predict_proba(X), net.predict_proba(X))
    assert equal_weights(loaded.partial_fit(X, y), net.partial_fit(X, y))


def test_clone_keeps_every_parameter():
    net = RegularizedNetRegressor(
        nn.Linear, module__in_features=3, lambda1=0.1, callbacks__norms=None, dropout=0
    )
    params = net.get_params(deep=False)
    assert clone(net).get_params(deep=False) == params
    assert {"module__in_features", "callbacks__norms", "scale_target"} < set(params)
    assert "callbacks__print_log__sink" in net.get_params()


@pytest.mark.parametrize("use_safetensors", [False, True])
def test_save_and_load_params(iris, tmp_path, use_safetensors):
    X, y = iris
    net, file = small().fit(X, y), tmp_path / "weights"
    net.save_params(f_params=file, use_safetensors=use_safetensors)
    other = small(random_state=1).fit(X, y)
    assert not equal_weights(net, other)
    other.load_params(f_params=file, use_safetensors=use_safetensors)
    assert np.array_equal(net.predict_proba(X), other.predict_proba(X))
    assert other.device == "auto"


def test_weights_may_be_saved_and_loaded_before_there_are_data(iris, tmp_path):
    X, y = iris
    params = {"module": MLP, "module__in_features": 4, "module__out_features": 3}
    saved, loaded = (small(**params, random_state=i).initialize() for i in (0, 1))
    saved.save_params(f_params=tmp_path / "weights")
    loaded.load_params(f_params=tmp_path / "weights")
    assert equal_weights(saved, loaded)
    probabilities = loaded.predict_proba(X)
    assert probabilities.shape == (150, 3)
    for call in (
        loaded.predict,
        lambda X: loaded.score(X, y),
        lambda X: loaded.classes_,
    ):
        with pytest.raises(
            NotFittedError, match="call fit, or set the parameter class"
        ):
            call(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(loaded)
    loaded.set_params(classes=["a", "b", "c"])
    assert np.array_equal(
        loaded.predict(X), np.array(["a", "b", "c"])[probabilities.argmax(axis=1)]
    )
    value = {"module": MLP, "module__in_features": 4, "module__out_features": 1}
    with pytest.raises(NotFittedError):
        RegularizedNetRegressor(**value).initialize().predict(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("regression", [False, True])
def test_training_goes_on_from_loaded_weights(iris, dtype, regression):
    """Fine-tuning, as with skorch: initialize, load_params, partial_fit."""
    X, y = iris[0].astype(dtype), iris[1]
    make, n_outputs = (small_regressor, 1) if regression else (small, 3)
    net = make(module=MLP(4, n_outputs), max_epochs=2).initialize()
    start = copy.deepcopy(net.module_)
    with pytest.raises(NotFittedError):
        net.predict(X)
    for _ in range(2):
        net.partial_fit(X, y)
    assert weights(net)[0].dtype == torch.from_numpy(X).dtype
    assert equal_weights(net, make(module=start, max_epochs=4).fit(X, y))
    assert net.n_features_in_ == 4
    with pytest.raises(ValueError, match="X has 3 features"):
        net.partial_fit(X[:, :3], y)
    warm = make(module=MLP(4, n_outputs), warm_start=True, max_epochs=0).initialize()
    before = copy.deepcopy(warm.module_).to(torch.from_numpy(X).dtype)
    warm.fit(X, y)
    assert all(map(torch.equal, warm.module_.parameters(), before.parameters()))


def test_html_and_text_representation(iris):
    net = small(lambda1=0.5)
    assert "lambda1=0.5" in repr(net)
    assert "lambda1" in net._repr_html_()
    assert "RegularizedNetClassifier" in net.fit(*iris)._repr_html_()


# -- metadata routing ---------------------------------------------------------------


def test_sample_weight_and_groups_are_routed(iris):
    X, y = iris
    sample_weight, groups = np.arange(len(y)) % 5 + 1.0, np.arange(len(y)) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        net = small().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, net)
        pipeline.fit(X, y, sample_weight=sample_weight)
        grid = {"regularizednetclassifier__lambda1": [0, 0.1]}
        scoring = get_scorer("accuracy").set_score_request(sample_weight=True)
        search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), scoring=scoring)
        search.fit(X, y, sample_weight=sample_weight, groups=groups)
        unweighted = make_pipeline(StandardScaler(), small()).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    assert equal_weights(pipeline[-1], small().fit(scaled, y, sample_weight))
    assert not equal_weights(pipeline[-1], unweighted[-1])
    best = small(lambda1=search.best_params_["regularizednetclassifier__lambda1"])
    assert equal_weights(search.best_estimator_[-1], best.fit(scaled, y, sample_weight))


def test_groups_reach_the_train_split_of_a_net_that_asks_for_them(iris):
    X, y = iris
    groups = np.arange(len(y)) % 5
    params = {"train_split": ValidSplit(GroupKFold(2))}
    with sklearn.config_context(enable_metadata_routing=True):
        asking = small(**params).set_fit_request(groups=True)
        search = GridSearchCV(asking, {"lambda1": [0.1]}, cv=GroupKFold(3))
        search.fit(X, y, groups=groups)
        pipeline = make_pipeline(asking).fit(X, y, groups=groups)
    alone = small(lambda1=0.1, **params).fit(X, y, groups=groups)
    assert equal_weights(search.best_estimator_, alone)
    assert (
        alone.history[:, "valid_loss"]
        == (search.best_estimator_.history[:, "valid_loss"])
    )
    assert equal_weights(pipeline[0], small(**params).fit(X, y, groups=groups))
    by_name = make_pipeline(small(**params))
    by_name.fit(X, y, regularizednetclassifier__groups=groups)
    assert equal_weights(by_name[0], pipeline[0])


# -- scikit-learn's callbacks -------------------------------------------------------


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


# -- augmentation -------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(y[:, None, None, None], 1, size=(40, 1, 6, 6)).astype(np.float32)
    return X, y


class Spied(nn.Module):
    """Counts calls and shifts what it sees."""

    calls = 0

    def forward(self, X):
        Spied.calls += 1
        return X + 100


def test_augmentation_is_for_training_batches_only(images):
    X, y = images
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(36, 2)

        def forward(self, x):
            seen.append((self.training, x.mean().item() > 50))
            return self.fc(x.flatten(1))

    Spied.calls = 0
    net = RegularizedNetClassifier(Net, augment=Spied(), batch_size=10, max_epochs=2)
    net.fit(X, y, X_val=X, y_val=y)
    assert Spied.calls == 8
    assert set(seen) == {(True, True), (False, False)}
    net.predict(X)
    net.score(X, y)
    assert Spied.calls == 8


def test_augmentation_is_decided_by_random_state(images):
    def fit(seed, augment):
        return small(augment=augment, random_state=seed).fit(*images)

    flips = RandomFlip(horizontal=0.5, vertical=0.5)
    assert equal_weights(fit(0, flips), fit(0, flips))
    assert not equal_weights(fit(0, flips), fit(0, None))
    assert equal_weights(fit(0, RandomFlip(0, 0)), fit(0, None))
    by_parameter = small(
        augment=RandomFlip, augment__horizontal=0.5, augment__vertical=0.5
    )
    assert equal_weights(by_parameter.fit(*images), fit(0, flips))


def test_augmentation_is_searchable(images):
    grid = [{"augment": [None, RandomFlip(0.5, 0)]}]
    search = GridSearchCV(small(), grid, cv=2).fit(*images)
    assert len(search.cv_results_["params"]) == 2
    grid = {"augment__horizontal": [0.0, 0.5]}
    GridSearchCV(small(augment=RandomFlip), grid, cv=2, error_score="raise").fit(
        *images
    )


def test_augmentation_modules_are_copied(images):
    augment = nn.Dropout(0.1).eval()
    small(augment=augment).fit(*images)
    assert not augment.training


def test_bad_augmentation(images):
    for augment in ("flip", [RandomFlip()]):
        with pytest.raises(ValueError, match=r"augment=.* must be None, a transform"):
            small(augment=augment).fit(*images)


OTHER_GET_PARAMS = [
    v1.RandomRotation(20),
    v2.AutoAugment(),
    v2.ColorJitter(0.5),
    v2.GaussianBlur(3),
    v2.RandomAffine(20),
    v2.RandomCrop(4),
    v2.RandomErasing(),
    v2.RandomRotation(20),
]


@pytest.mark.parametrize("augment", OTHER_GET_PARAMS, ids=lambda a: type(a).__name__)
def test_transforms_whose_get_params_means_something_else(augment):
    net = small(augment=augment)
    copied = clone(net).augment
    assert copied is not augment
    assert repr(copied) == repr(augment)
    assert net.get_params()["augment"] is augment
    assert type(augment).__name__ in net._repr_html_()
    assert type(augment).__name__ in repr(net)
    search = clone(GridSearchCV(make_pipeline(net), {}))
    assert search.get_params()["estimator"][-1].augment is not augment


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_such_transforms_are_searched(images, n_jobs):
    rotation = v2.RandomRotation(20)
    cross_validate(small(augment=rotation), *images, cv=2, error_score="raise")
    # Values of a grid are cloned by scikit-learn, which takes it for an estimator.
    grid = {"augment": [None, v2.Compose([rotation])]}
    search = GridSearchCV(small(), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(
        *images
    )
    assert len(search.cv_results_["params"]) == 2
    search.set_params(estimator__augment=rotation).fit(*images)


# -- searches -----------------------------------------------------------------------


GRID = {
    "lambda1": [0, 1e-2],
    "dropout": [0, 0.5],
    "optimizer": [torch.optim.Adam, torch.optim.SGD],
}
BACKENDS = [("loky", 2), ("threading", 2)]


@pytest.fixture(scope="module")
def sequential_search(iris):
    return GridSearchCV(small(), GRID, cv=3).fit(*iris)


@pytest.mark.parametrize(("backend", "n_jobs"), BACKENDS)
def test_grid_search_scores_do_not_depend_on_n_jobs(
    iris, sequential_search, backend, n_jobs
):
    # Arrays of more than a kilobyte reach other processes as read-only memory maps.
    with joblib.parallel_config(backend, n_jobs=n_jobs, max_nbytes="1K"):
        search = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    scores = [
        name for name in search.cv_results_ if "score" in name and "time" not in name
    ]
    for name in scores:
        assert np.array_equal(
            search.cv_results_[name], sequential_search.cv_results_[name]
        )
    assert equal_weights(search.best_estimator_, sequential_search.best_estimator_)


SEARCHES = {
    "randomized": lambda X, y, n_jobs: (
        RandomizedSearchCV(
            small(),
            {"lr": [1e-3, 1e-2, 1e-1], "lambda2": [0, 0.1]},
            n_iter=4,
            cv=2,
            random_state=0,
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "halving": lambda X, y, n_jobs: (
        HalvingGridSearchCV(
            small(),
            {"hidden_layer_sizes": [2, 8, (4, 4)]},
            cv=2,
            random_state=0,
            min_resources=40,
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "validation_curve": lambda X, y, n_jobs: validation_curve(
        small(), X, y, param_name="lambda1", param_range=[0, 0.1], cv=2, n_jobs=n_jobs
    ),
    "learning_curve": lambda X, y, n_jobs: learning_curve(
        small(),
        X,
        y,
        cv=2,
        train_sizes=[0.5, 1.0],
        shuffle=True,
        random_state=0,
        n_jobs=n_jobs,
    )[1:],
    "cross_val_predict": lambda X, y, n_jobs: cross_val_predict(
        small(), X, y, cv=2, method="predict_proba", n_jobs=n_jobs
    ),
    "cross_validate": lambda X, y, n_jobs: cross_validate(
        small(dropout=0.5),
        X,
        y,
        cv=2,
        scoring=["accuracy", "roc_auc_ovr"],
        n_jobs=n_jobs,
    )["test_roc_auc_ovr"],
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_do_not_depend_on_n_jobs(iris, kind):
    one = SEARCHES[kind](*iris, 1)
    assert np.isfinite(one).all()
    for backend, n_jobs in BACKENDS:
        with joblib.parallel_config(backend):
            assert np.array_equal(one, SEARCHES[kind](*iris, n_jobs)), backend


@pytest.mark.parametrize(
    "grid",
    [
        {"lambda1": [0, 0.1]},
        {"lambda2": [0, 0.1]},
        {"dropout": [0, 0.5]},
        {"lr": [1e-3, 1e-1]},
        {"optimizer": [torch.optim.Adam, torch.optim.RMSprop]},
        {"hidden_layer_sizes": [4, (8, 8)]},
        {"augment": [None, RandomFlip(0.5, 0.5)]},
    ],
    ids=lambda grid: next(iter(grid)),
)
def test_each_parameter_is_searched_alike_in_threads(images, grid):
    searches = [
        GridSearchCV(small(lr=0.01), grid, cv=2, scoring="neg_log_loss", n_jobs=n_jobs)
        for n_jobs in (1, 2)
    ]
    with joblib.parallel_config("threading"):
        for search in searches:
            search.fit(*images)
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    assert one[0] != one[1]  # the parameter does something
    assert np.array_equal(one, two)


def test_halving_over_epochs(iris):
    search = HalvingGridSearchCV(
        small(lr=0.02),
        {"lambda2": [0, 10.0, 100.0]},
        resource="max_epochs",
        min_resources=5,
        max_resources=20,
        factor=2,
        cv=2,
        random_state=0,
    ).fit(*iris)
    assert search.best_params_["lambda2"] == 0
    assert set(search.cv_results_["n_resources"]) >= {5, 10}


# -- properties ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(iris):
    return small(max_epochs=20).fit(*iris)


@given(st.permutations(range(150)))
@settings(max_examples=20)
def test_permuting_rows_permutes_predictions(iris, fitted, order):
    X = iris[0]
    np.testing.assert_allclose(
        fitted.predict_proba(X[order]), fitted.predict_proba(X)[order], rtol=1e-10
    )


@given(st.permutations(["ape", "bee", "cat"]))
@settings(max_examples=6)
def test_relabelling_classes_relabels_predictions(iris, labels):
    X, y = iris
    sorted_labels = np.array(sorted(labels))
    codes = np.searchsorted(sorted_labels, np.array(labels)[y])
    named = small().fit(X, np.array(labels)[y])
    assert np.array_equal(
        named.predict(X), sorted_labels[small().fit(X, codes).predict(X)]
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_float32_and_float64_agree(iris, seed):
    X, y = iris
    double = small(random_state=seed).fit(X, y)
    single = small(random_state=seed).fit(X.astype(np.float32), y)
    assert weights(double)[0].dtype == torch.float64
    assert weights(single)[0].dtype == torch.float32
    np.testing.assert_allclose(
        double.predict_proba(X), single.predict_proba(X.astype(np.float32)), atol=1e-3
    )


def test_frames_of_pandas_and_polars(iris):
    X, y = iris
    polars = pytest.importorskip("polars")
    for frame in (
        pd.DataFrame(X, columns=list("abcd")),
        polars.DataFrame(X, schema=list("abcd")),
    ):
        net, peer = small().fit(frame, y), StandardScaler().fit(frame)
        # Older versions of scikit-learn know no column names but those of pandas.
        names = getattr(peer, "feature_names_in_", None)
        assert np.array_equal(getattr(net, "feature_names_in_", None), names)
        assert np.array_equal(net.predict(frame), small().fit(X, y).predict(X))


# -- the device ---------------------------------------------------------------------


@pytest.mark.cuda
def test_pickles_of_cuda_load_where_there_is_none(cuda, iris, tmp_path):
    import subprocess

    X, y = iris
    for device in ("auto", "cuda"):
        net = small(device=device, early_stopping=True).fit(X, y)
        joblib.dump((net, X, net.predict_proba(X)), tmp_path / "net")
        code = (
            "import joblib, numpy, warnings; warnings.simplefilter('ignore')\n"
            f"net, X, expected = joblib.load({str(tmp_path / 'net')!r})\n"
            "assert net.device_.type == 'cpu'\n"
            "numpy.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-6)"
        )
        environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.cuda
def test_pickles_of_a_cpu_go_on_on_cuda(cuda, iris):
    X, y = iris
    net = small(device="auto", max_epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        net.fit(X, y)
        assert net.device_.type == "cpu"
        expected, pickled = net.predict_proba(X), pickle.dumps(net)
    loaded = pickle.loads(pickled)
    assert loaded.device_.type == "cuda"
    assert next(loaded.module_.parameters()).device.type == "cuda"
    np.testing.assert_allclose(loaded.predict_proba(X), expected, rtol=1e-6)
    np.testing.assert_allclose(
        loaded.partial_fit(X, y).predict_proba(X),
        small(device="cpu", max_epochs=4).fit(X, y).predict_proba(X),
        rtol=1e-5,
    )


@pytest.mark.cuda
def test_weights_saved_on_one_device_load_on_the_other(cuda, iris, tmp_path):
    X, y = iris
    for safe in (False, True):
        for source, target in (("cuda", "cpu"), ("cpu", "cuda")):
            net = small(device=source).fit(X, y)
            net.save_params(f_params=tmp_path / "weights", use_safetensors=safe)
            other = small(device=target, random_state=1).fit(X, y)
            other.load_params(f_params=tmp_path / "weights", use_safetensors=safe)
            assert next(other.module_.parameters()).device.type == target
            np.testing.assert_allclose(
                other.predict_proba(X), net.predict_proba(X), rtol=1e-6
            )


@pytest.mark.cuda
def test_the_contract_holds_on_cuda(cuda, iris):
    X, y = iris
    net = small(
        device="cuda", dropout=0.3, class_weight="balanced", augment=nn.Identity()
    )
    a, b = clone(net).fit(X, y), clone(net).fit(X, y)
    assert equal_weights(a, b)
    assert a.device_.type == "cuda"
    loaded = pickle.loads(pickle.dumps(a))
    assert np.array_equal(loaded.predict_proba(X), a.predict_proba(X))
    assert equal_weights(loaded.partial_fit(X, y), a.partial_fit(X, y))
    search = GridSearchCV(net, {"lambda1": [0, 0.1]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    buffer = io.BytesIO()
    a.save_params(f_params=buffer)
    assert buffer.tell() > 0


# -- what belongs to the user, and what comes from NumPy ----------------------------


class InPlace(nn.Module):
    """Writes into what it is given."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        x -= 0.5
        return self.linear(x)


class OutOfPlace(InPlace):
    def forward(self, x):
        return self.linear(x - 0.5)


@pytest.mark.parametrize("params", [{"batch_size": -1}, {"shuffle": False}])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, "dataset"])
def test_modules_that_work_in_place_leave_the_data_alone(iris, params, kind):
    X, y = iris[0].astype(np.float32), iris[1]
    given = torch.as_tensor(X) if kind == "dataset" else kind(X)
    data = (TensorDataset(given, torch.as_tensor(y)),) if kind == "dataset" else (X, y)
    if kind is torch.as_tensor:
        data = given, y
    before, validation = X.copy(), given if kind != "dataset" else X
    net = small(module=InPlace, **params).fit(*data, X_val=validation, y_val=y)
    np.testing.assert_array_equal(X, before)
    twin = small(module=OutOfPlace, **params).fit(X, y, X_val=X, y_val=y)
    assert equal_weights(net, twin)
    assert net.history[:, "valid_loss"] == twin.history[:, "valid_loss"]
    np.testing.assert_array_equal(
        net.predict_proba(validation), twin.predict_proba(before)
    )
    np.testing.assert_array_equal(X, before)


def test_an_activation_in_place_may_come_first(iris):
    X, y = iris
    before = X.copy()
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    small(module=module, batch_size=-1).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, before)


def test_adversarial_training_of_modules_that_work_in_place(iris):
    X, y = iris
    before = X.copy()
    params = {"adversarial_eps": 0.1, "batch_size": -1}
    net = small(module=InPlace, **params).fit(X, y)
    assert equal_weights(net, small(module=OutOfPlace, **params).fit(before, y))
    np.testing.assert_array_equal(X, before)


def test_batch_sizes_of_numpy(iris):
    X, y = iris
    net = small(batch_size=np.int64(16)).fit(X, y)
    assert equal_weights(net, small(batch_size=16).fit(X, y))
    assert equal_weights(net, small(iterator_train__batch_size=np.int32(16)).fit(X, y))
    grid = {
        "batch_size": np.array([16, -1]),
        "iterator_valid__batch_size": [np.int8(9)],
    }
    GridSearchCV(small(), grid, cv=2, error_score="raise").fit(X, y)
    pairs = pairs_dataset(list(zip(X.astype(np.float32), y, strict=True)))
    small(batch_size=np.int64(16)).fit(pairs).predict(pairs)


DOUBLES = {
    "list": lambda X: X.tolist(),
    "list of arrays": list,
    "list of tensors": lambda X: list(torch.as_tensor(X)),
    "mixed list": lambda X: [X[0].astype(int).tolist(), *X[1:].tolist()],
    "mixed objects": lambda X: np.array(DOUBLES["mixed list"](X), dtype=object),
    "mixed frame": lambda X: pd.DataFrame(DOUBLES["mixed objects"](X)),
    "big-endian": lambda X: X.astype(">f8"),
    "object": lambda X: X.astype(object),
    "longdouble": lambda X: X.astype(np.longdouble),
    "pandas": pd.DataFrame,
    "pandas Float64": lambda X: pd.DataFrame(X).astype("Float64"),
    "pandas object": lambda X: pd.DataFrame(X).astype(object),
    "polars": lambda X: pytest.importorskip("polars").DataFrame(X),
    "tensor": torch.as_tensor,
}


@pytest.mark.parametrize("form", DOUBLES)
def test_float64_in_any_form_trains_in_float64(iris, form):
    X, y = iris
    X = X.copy()
    X[0] = np.round(X[0])
    given = DOUBLES[form](X)
    net = small().fit(given, y)
    assert {w.dtype for w in net.module_.parameters()} == {torch.float64}
    assert net.predict_proba(given).dtype == np.float64
    assert equal_weights(net, small().fit(X, y))


SINGLES = {
    "list": lambda X: X.tolist(),
    "integers": lambda X: X,
    "bool": lambda X: X > 0,
    "object": lambda X: X.astype(object),
    "big-endian": lambda X: X.astype(">f4"),
    "half": lambda X: X.astype(np.float16),
    "list of arrays": lambda X: list(X.astype(np.float32)),
    "pandas": pd.DataFrame,
    "pandas Int64": lambda X: pd.DataFrame(X).astype("Int64"),
    "polars": lambda X: pytest.importorskip("polars").DataFrame(X),
    "polars Float32": lambda X: pytest.importorskip("polars").DataFrame(
        X.astype(np.float32)
    ),
    "bfloat16": lambda X: torch.as_tensor(X).bfloat16(),
}


@pytest.mark.parametrize("form", SINGLES)
def test_all_else_trains_in_float32(iris, form):
    X, y = iris
    X = np.round(X).astype(int)
    given = SINGLES[form](X)
    net = small().fit(given, y)
    assert {w.dtype for w in net.module_.parameters()} == {torch.float32}
    assert net.predict_proba(given).dtype == np.float32


def test_log_probabilities():
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 3
    net = RegularizedNetClassifier(max_epochs=3, random_state=0).fit(X, y)
    expected = np.log(net.predict_proba(X))
    assert np.allclose(net.predict_log_proba(X), expected, rtol=1e-10)
    extreme = net.predict_log_proba(1e6 * X)
    assert np.isfinite(extreme).all()
    assert extreme.min() < -1000
    own = cross_val_predict(net, X, y, cv=2, method="predict_log_proba")
    assert own.shape == (20, 3)


def test_huge_and_tiny_targets():
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = X[:, 0] + 0.1 * X[:, 1] ** 2
    net = RegularizedNetRegressor(random_state=0, max_epochs=30)
    reference = net.fit(X, y).predict(X)
    for unit in (1e200, 1e-200, 1e307, 1e-300):
        scaled = clone(net).fit(X, y * unit).predict(X)
        assert np.allclose(scaled / unit, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e306, 1e-306])
def test_weights_of_any_size_in_a_regression(diabetes, size):
    X, y = diabetes
    weight = np.arange(len(y)) % 3 + 1.0
    scaled = small_regressor().fit(X, y, weight * size)
    peer = small_regressor().fit(X, y, weight)
    np.testing.assert_allclose(scaled.target_scale_, peer.target_scale_, rtol=1e-12)
    np.testing.assert_allclose(scaled.predict(X), peer.predict(X), rtol=1e-8)


def test_the_mean_and_deviation_of_targets_lose_no_bit():
    y = np.random.default_rng(0).normal(5, 3, size=(100, 2))
    net = small_regressor(max_epochs=1).fit(np.arange(100.0)[:, None], y)
    assert np.array_equal(net.target_mean_, y.mean(axis=0))
    assert np.array_equal(net.target_scale_, y.std(axis=0))


def test_classes_are_told_once(iris):
    X, y = iris
    net = small(classes=[0, 1, 2, 3])
    for _ in range(2):  # before there are classes, and after
        with pytest.raises(
            ValueError, match=r"given classes=\[0, 1, 2\], but the parameter is"
        ):
            net.partial_fit(X, y, classes=[0, 1, 2])
        net.partial_fit(X, y, classes=[3, 2, 1, 0])
    assert net.predict_proba(X).shape == (150, 4)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("iterator_train__batch_size", 0, "a positive integer or -1"),
        ("iterator_valid__batch_size", 1.5, "a positive integer or -1"),
        ("dataset", None, "a Dataset class"),
    ],
)
def test_what_makes_batches_is_checked_with_the_rest(iris, name, value, allowed):
    net = small(lambda1=-1, **{name: value})
    with pytest.raises(ValueError, match="lambda1=-1 must be") as error:
        net.fit(*iris)
    assert f"{name}={value} must be {allowed}" in str(error.value)


ERRORS = {
    "classes=": lambda net, X, y: net.partial_fit(X, y, classes=[]),
    "class_weight='balanced' cannot": lambda net, X, y: net.set_params(
        class_weight="balanced"
    ).partial_fit(X, y),
    "groups has shape": lambda net, X, y: net.fit(X, y, groups=np.zeros((20, 2))),
    "iterator_train=3 must be": lambda net, X, y: net.set_params(iterator_train=3).fit(
        X, y
    ),
    "compile='x' must be": lambda net, X, y: net.set_params(compile="x").fit(X, y),
    "verbose=-1 must be": lambda net, X, y: net.set_params(verbose=-1).fit(X, y),
    "given to set_callbacks": lambda net, X, y: net.set_params(
        callbacks=[object()]
    ).fit(X, y),
    "pairs": lambda net, X, y: net.fit(TensorDataset(torch.ones(4, 2)), y[:4]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_one_error_names_the_parameter(message):
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    with pytest.raises(ValueError, match=message):
        ERRORS[message](RegularizedNetClassifier(max_epochs=1), X, y)


def test_targets_too_large_for_the_dtype():
    X = np.random.default_rng(0).random((20, 3))
    far_apart = np.array([-1.7e308] + 19 * [1.7e308])
    for net, dtype, y in (
        (small_regressor(scale_target=False), np.float32, 1e200 * np.arange(20)),
        (small_regressor(), np.float64, far_apart),
    ):
        with pytest.raises(ValueError, match=r"y holds .* too large to train on in"):
            net.fit(X.astype(dtype), y)


def test_log_probabilities_of_other_criteria_are_finite(iris):
    X, y = iris

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            sure = nn.functional.one_hot(x[:, 0].gt(0).long(), 3).to(x)
            return sure + 0 * self.shift

    class Loss(nn.Module):
        def forward(self, outputs, y):
            return outputs.square().mean()

    net = small(module=Sure, criterion=Loss).fit(X, y)
    logs = net.predict_log_proba(X)
    assert np.isfinite(logs).all()
    assert set(np.unique(logs)) == {0.0, np.log(np.finfo(np.float64).tiny)}


class Grayish(nn.Module):
    def forward(self, x):
        return x.numpy()


def test_arrays_are_no_augmented_batches(images):
    for augment in (lambda x: x.numpy(), Grayish()):
        with pytest.raises(ValueError, match="into ndarray; an augmentation must"):
            small(augment=augment).fit(*images)


def test_datasets_of_something_else_than_pairs():
    for sample in ((torch.ones(2),), (torch.ones(2), 1, 2), torch.ones(2)):
        with pytest.raises(ValueError, match=r"X=Pairs yields a .* pairs \(x, y\)"):
            small().fit(pairs_dataset([sample] * 4))
        with pytest.raises(ValueError, match=r"X=Pairs yields a .* pairs \(x, y\)"):
            small().fit(pairs_dataset([sample] * 4), [0, 1, 0, 1])


def test_bad_components_are_listed_together(iris):
    bad = {
        "augment": 3,
        "callbacks": [("ours",)],
        "compile": "x",
        "iterator_train": 3,
        "iterator_valid": "loader",
        "verbose": -1,
        "lambda1": -1,
    }
    with pytest.raises(ValueError, match="must be") as caught:
        small(**bad).fit(*iris)
    for name, value in bad.items():
        assert f"{name}={value!r} must be" in str(caught.value)


def test_callbacks_of_scikit_learn_have_a_way_of_their_own(iris):
    callback = pytest.importorskip("sklearn.callback").ProgressBar()
    for callbacks in ([callback], [("bar", callback)]):
        with pytest.raises(ValueError, match=r"callbacks=.*set_callbacks"):
            small(callbacks=callbacks).fit(*iris)
    kinds = [EpochTimer, EpochTimer(), ("a", EpochTimer()), ["b", EpochTimer]]
    small(callbacks=[*kinds[1:], ("off", None)]).fit(*iris)


@pytest.mark.parametrize("classes", [[], [1], np.array([])])
def test_too_few_classes(iris, classes):
    for fit in (
        lambda X, y: small().partial_fit(X, y, classes=classes),
        lambda X, y: small(classes=classes).fit(X, y),
    ):
        with pytest.raises(ValueError, match=r"classes=.* at least 2 classes"):
            fit(*iris)


def test_one_weight_for_all():
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    net = RegularizedNetClassifier(max_epochs=2, random_state=0)
    expected = net.fit(X, y).predict_proba(X)
    assert np.array_equal(net.fit(X, y, 3.0).predict_proba(X), expected)
