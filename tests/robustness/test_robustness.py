"""Nets under attack: definitions, known worst cases, an independent implementation."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from attack_norms import FREE, NORMS, flat_length
from numpy.testing import assert_allclose, assert_array_equal
from random_states import global_states
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.robustness import fgsm, make_robust_scorer, pgd, robust_accuracy


@pytest.fixture(scope="module")
def iris_net(iris):
    return RegularizedNetClassifier(max_epochs=30, lr=0.01, random_state=0).fit(*iris)


@pytest.fixture(scope="module")
def digits_net(digits):
    net = RegularizedNetClassifier(max_epochs=20, random_state=0)
    return net.fit(*digits[:2])


# -- what robust accuracy is --------------------------------------------------------


@pytest.mark.parametrize("attack", ["pgd", "fgsm"])
@pytest.mark.parametrize("norm", NORMS)
def test_without_an_attack_it_is_the_score(iris, iris_net, attack, norm):
    X, y = iris
    weight = np.random.default_rng(0).random(len(y))
    options = {"attack": attack, "norm": norm, "sample_weight": weight}
    assert robust_accuracy(iris_net, X, y, eps=0) == iris_net.score(X, y)
    assert robust_accuracy(iris_net, X, y, eps=0, **options) == iris_net.score(
        X, y, weight
    )
    y = np.where(np.arange(len(y)) % 10, y, "a class that fit has not seen")
    assert robust_accuracy(iris_net, X, y, eps=0) == iris_net.score(X, y)
    assert robust_accuracy(iris_net, X, y, eps=0.1) <= iris_net.score(X, y)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["pgd", "fgsm"])
def test_of_a_linear_net_it_is_known(norm, attack):
    """Two classes: right up to the distance |margin| / dual norm of the weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    y = np.where(X @ [1, -2, 0.5, 0, 1] + rng.normal(size=300) > 0, "yes", "no")
    net = RegularizedNetClassifier(hidden_layer_sizes=(), max_epochs=20, lr=0.01)
    net.fit(X, y)
    weight = net.module_.fc1.weight.detach().numpy()
    bias = net.module_.fc1.bias.detach().numpy()
    w, b = weight[1] - weight[0], bias[1] - bias[0]
    margin = np.where(y == "yes", 1, -1) * (X @ w + b)
    distance = margin / np.linalg.norm(w, 1 if norm == "linf" else 2)
    eps = np.linspace(0, 1, 11)
    options = {"attack": attack, "norm": norm, "bounds": FREE}
    if attack == "pgd":
        options |= {"steps": 40, "step_size": 0.2}
    accuracies = robust_accuracy(net, X, y, eps=eps, **options)
    tolerance = 0.0 if (norm, attack) != ("l2", "pgd") else 0.01
    assert_allclose(
        accuracies, [(distance > e).mean() for e in eps], rtol=0, atol=tolerance
    )
    assert (np.diff(accuracies) <= 0).all()
    one_by_one = [robust_accuracy(net, X, y, eps=e, **options) for e in eps]
    assert_allclose(one_by_one, accuracies, rtol=0, atol=tolerance)


@pytest.mark.parametrize("norm", NORMS)
def test_it_falls_with_eps_and_pgd_finds_more_than_fgsm(digits, digits_net, norm):
    X, y = digits[2:]
    eps = np.array([0.1, 0.0, 0.2]) * (1 if norm == "linf" else 5)
    by_pgd = robust_accuracy(digits_net, X, y, eps=eps, norm=norm)
    by_fgsm = robust_accuracy(digits_net, X, y, eps=eps, norm=norm, attack="fgsm")
    for accuracies in (by_pgd, by_fgsm):  # in the order of eps
        assert digits_net.score(X, y) == accuracies[1]
        assert accuracies[1] > accuracies[0] + 0.2 > accuracies[2] + 0.4
    assert (by_pgd <= by_fgsm + 0.005).all()
    assert by_pgd.sum() < by_fgsm.sum() - 0.01


def test_a_sample_must_be_right_before_the_attack_and_after(digits, digits_net):
    X, y = digits[2:]
    attacked = pgd(digits_net, X, y, eps=0.1)
    right = digits_net.predict(X) == y
    both = right & (digits_net.predict(attacked) == y)
    # The random starts differ: only what is right is attacked there.
    expected = robust_accuracy(digits_net, X, y, eps=0.1)
    assert_allclose(both.mean(), expected, atol=0.01)
    one = fgsm(digits_net, X, y, eps=0.1)
    both = right & (digits_net.predict(one) == y)
    options = {"eps": 0.1, "attack": "fgsm", "bounds": (0, 1)}
    assert robust_accuracy(digits_net, X, y, **options) == both.mean()


# -- attacks ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fgsm_by_its_definition(iris, dtype):
    X, y = iris[0].astype(dtype), iris[1]
    net = RegularizedNetClassifier(max_epochs=5, dropout=0.5, random_state=0).fit(X, y)
    inputs = torch.tensor(X, requires_grad=True)
    targets = torch.as_tensor(np.searchsorted(net.classes_, y))
    net.module_.eval()
    loss = nn.CrossEntropyLoss(reduction="sum")(net.module_(inputs), targets)
    (gradient,) = torch.autograd.grad(loss, inputs)
    gradient = gradient.numpy()
    attacked = fgsm(net, X, y, eps=0.25, bounds=FREE)
    assert attacked.dtype == dtype
    assert_array_equal(attacked, X + dtype(0.25) * np.sign(gradient))
    attacked = fgsm(net, X, y, eps=0.25, norm="l2", bounds=FREE)
    step = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    assert_allclose(attacked, X + 0.25 * step, rtol=1e-5)
    clipped = fgsm(net, X, y, eps=0.25)
    low, high = X.min(), X.max()
    assert_array_equal(clipped, np.clip(X + dtype(0.25) * np.sign(gradient), low, high))


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("norm", NORMS)
def test_attacks_lead_away_from_the_right_class(iris, iris_net, attack, norm):
    """Labels are strings, and not in the order of first appearance."""
    X, y = iris[0][::-1], iris[1][::-1]
    column = np.searchsorted(iris_net.classes_, y)
    rows = np.arange(len(y))
    attacked = attack(iris_net, X, y, eps=0.05, norm=norm)
    before = iris_net.predict_proba(X)[rows, column]
    after = iris_net.predict_proba(attacked)[rows, column]
    assert (after < before).all()
    assert (flat_length(attacked - X, norm) <= 0.05 + 1e-12).all()


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_attacks_of_regressors_raise_the_squared_error(attack):
    X, y = make_regression(100, 5, n_targets=2, random_state=0)
    net = RegularizedNetRegressor(max_epochs=20, random_state=0).fit(X, 1000 * y)
    attacked = attack(net, X, 1000 * y, eps=0.05, bounds=FREE)
    before = np.square(net.predict(X) - 1000 * y) / net.target_scale_**2
    after = np.square(net.predict(attacked) - 1000 * y) / net.target_scale_**2
    assert (after.sum(axis=1) > before.sum(axis=1)).all()


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("norm", NORMS)
def test_bounds(digits, digits_net, attack, norm):
    X, y = digits[2:]
    size = {"eps": 0.3 if norm == "linf" else 2.0, "norm": norm}
    inside = attack(digits_net, X, y, **size)
    assert inside.min() >= X.min() == 0
    assert inside.max() <= X.max() == 1
    assert (inside == 0).any()
    outside = attack(digits_net, X, y, bounds=FREE, **size)
    assert outside.min() < 0
    low, high = X.min(axis=0), np.maximum(X.max(axis=0), 0.5)
    by_pixel = attack(digits_net, X, y, bounds=(low, high), **size)
    assert (by_pixel >= low).all()
    assert (by_pixel <= high).all()
    assert np.any(by_pixel == low)


def test_no_eps_no_change(iris, iris_net):
    X, y = iris
    for attack in (fgsm, pgd):
        attacked = attack(iris_net, X, y, eps=0)
        assert_array_equal(attacked, X)
        assert not np.shares_memory(attacked, X)


def test_the_start_is_random_and_decided_by_random_state(digits, digits_net):
    X, y = digits[2][:50], digits[3][:50]
    options = {"eps": 0.1, "steps": 2}
    straight = pgd(digits_net, X, y, n_restarts=0, **options)
    repeated = pgd(digits_net, X, y, n_restarts=0, random_state=1, **options)
    assert_array_equal(straight, repeated)
    one = pgd(digits_net, X, y, random_state=1, **options)
    assert_array_equal(one, pgd(digits_net, X, y, random_state=1, **options))
    assert (one != pgd(digits_net, X, y, random_state=2, **options)).any()
    state = np.random.RandomState(0)
    first = pgd(digits_net, X, y, random_state=state, **options)
    assert (first != pgd(digits_net, X, y, random_state=state, **options)).any()
    odds = [
        digits_net.predict_proba(x)[np.arange(50), y]
        for x in (straight, one, pgd(digits_net, X, y, n_restarts=5, **options))
    ]
    assert (odds[1] <= odds[0] + 1e-6).all()
    assert (odds[2] <= odds[0] + 1e-6).all()
    assert odds[2].sum() < odds[1].sum()
    fresh = [pgd(digits_net, X, y, random_state=None, **options) for _ in range(2)]
    assert (fresh[0] != fresh[1]).any()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("norm", NORMS)
def test_the_size_of_batches_plays_no_part(iris, iris_net, batch_size, norm):
    X, y = iris
    options = {"eps": 0.2, "norm": norm, "steps": 4}
    expected = pgd(iris_net, X, y, **options)
    attacked = pgd(iris_net, X, y, batch_size=batch_size, **options)
    # Sums of products are rounded differently in batches of other sizes.
    assert_allclose(attacked, expected, rtol=0, atol=1e-6)


def test_batches_bound_what_is_computed_at_once(iris):
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    X, y = iris
    net = RegularizedNetClassifier(Spy, module__in_features=4, module__out_features=3)
    net.set_params(max_epochs=1, batch_size=10).fit(X, y)  # predicts 40 at once
    seen.clear()
    fgsm(net, X, y, eps=0.1, batch_size=40)
    robust_accuracy(net, X, y, eps=0.1, batch_size=40, steps=2)
    assert max(seen) == 40


def test_nothing_changes_but_the_inputs(iris):
    class Net(nn.Sequential):
        def __init__(self):
            layers = [nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3)]
            super().__init__(*layers)

    X, y = iris
    net = RegularizedNetClassifier(Net, max_epochs=2, random_state=0).fit(X, y)
    net.module_.train()
    net.module_[0].eval()
    for weight in net.module_.parameters():
        weight.grad = torch.ones_like(weight)
    before = deepcopy(net.module_.state_dict()), X.copy()
    modes = [part.training for part in net.module_.modules()]
    states = global_states()
    first = pgd(net, X, y, eps=0.1, random_state=None)
    assert_array_equal(fgsm(net, X, y, eps=0.1), fgsm(net, X, y, eps=0.1))
    assert first.shape == X.shape
    assert modes == [part.training for part in net.module_.modules()]
    robust_accuracy(net, X, y, eps=0.1)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[0][name]), name
    assert all((weight.grad == 1).all() for weight in net.module_.parameters())
    assert_array_equal(X, before[1])
    assert global_states() == states


def test_of_a_pipeline_the_net_is_attacked(iris):
    X, y = iris
    net = RegularizedNetClassifier(max_epochs=20, random_state=0)
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), net).fit(X, y)
    transformed = pipeline[:-1].transform(X)
    for attack in (fgsm, pgd):
        attacked = attack(pipeline, X, y, eps=0.1)
        assert_array_equal(attacked, attack(pipeline[-1], transformed, y, eps=0.1))
        assert np.abs(attacked - transformed).max() <= 0.1 + 1e-12
    assert robust_accuracy(pipeline, X, y, eps=0) == pipeline.score(X, y)
    assert robust_accuracy(pipeline, X, y, eps=0.1) == robust_accuracy(
        pipeline[-1], transformed, y, eps=0.1
    )
    alone = make_pipeline(net).fit(X, y)
    assert robust_accuracy(alone, X, y, eps=0) == alone.score(X, y)


def test_frames_lists_and_whole_numbers(iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    net = RegularizedNetClassifier(max_epochs=5, random_state=0)
    net.fit(frame, pd.Series(y))
    assert_array_equal(
        fgsm(net, frame, pd.Series(y), eps=0.1), fgsm(net, frame, list(y), eps=0.1)
    )
    assert robust_accuracy(net, frame, pd.Series(y), eps=0) == net.score(frame, y)
    shades = (10 * X).astype(np.uint8)
    net = RegularizedNetClassifier(max_epochs=5, random_state=0).fit(shades, y)
    attacked = fgsm(net, shades, y, eps=0.5, bounds=FREE)
    assert attacked.dtype == np.float32
    assert set(np.unique(np.abs(attacked - shades))) == {0.5}


def test_modules_that_return_log_probabilities_or_tuples(iris):
    class Net(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return logits.log_softmax(dim=1), x

    X, y = iris
    params = {"module__in_features": 4, "module__out_features": 3, "random_state": 0}
    net = RegularizedNetClassifier(Net, criterion=nn.NLLLoss, **params)
    plain = RegularizedNetClassifier(nn.Linear, **params)
    nets = [n.set_params(max_epochs=20).fit(X, y) for n in (net, plain)]
    one, other = (fgsm(n, X, y, eps=0.1) for n in nets)
    assert_allclose(one, other, atol=1e-9)
    one, other = (robust_accuracy(n, X, y, eps=0.1) for n in nets)
    assert one == other


# -- an independent implementation --------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_as_the_adversarial_robustness_toolbox(digits, digits_net, norm):
    X, y = digits[2][:300], digits[3][:300]
    size = {"norm": np.inf if norm == "linf" else 2, "eps": 0.1}
    if norm == "l2":
        size["eps"] = 0.7
    peer = PyTorchClassifier(
        digits_net.module_,
        nn.CrossEntropyLoss(),
        input_shape=X.shape[1:],
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    expected = FastGradientMethod(peer, **size).generate(X, y)
    options = {"eps": size["eps"], "norm": norm, "bounds": (0, 1)}
    ours = fgsm(digits_net, X, y, **options)
    assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - X).max() > 0.05
    step_size = size["eps"] / 8
    theirs = ProjectedGradientDescent(
        peer, **size, eps_step=step_size, max_iter=20, verbose=False
    ).generate(X, y)
    ours = pgd(digits_net, X, y, step_size=step_size, n_restarts=0, **options)
    assert np.median(np.abs(ours - theirs)) < 1e-3
    scores = digits_net.score(ours, y), digits_net.score(theirs, y)
    assert abs(scores[0] - scores[1]) < 0.01
    assert max(scores) < digits_net.score(X, y) - 0.3
    both = pgd(digits_net, X, y, step_size=step_size, **options)
    assert digits_net.score(both, y) <= scores[0]


# -- scorer -------------------------------------------------------------------------


def test_scorer_in_searches(iris):
    X, y = iris
    net = RegularizedNetClassifier(max_epochs=10, lr=0.01, random_state=0)
    scorer = make_robust_scorer(0.3, steps=3, bounds=FREE)
    scores = cross_val_score(net, X, y, cv=3, scoring=scorer)
    assert_array_equal(scores, cross_val_score(net, X, y, cv=3, scoring=scorer))
    assert scores.mean() < cross_val_score(net, X, y, cv=3).mean() - 0.02
    search = GridSearchCV(
        make_pipeline(StandardScaler(), net),
        {"regularizednetclassifier__adversarial_eps": [0, 0.3]},
        cv=2,
        scoring={"clean": "accuracy", "robust": make_robust_scorer(0.3)},
        refit="robust",
        error_score="raise",
    ).fit(X, y)
    robust = search.cv_results_["mean_test_robust"]
    assert (robust <= search.cv_results_["mean_test_clean"]).all()


def test_scorer_is_robust_accuracy(iris, iris_net):
    X, y = iris
    weight = np.arange(len(y))
    scorer = pickle.loads(pickle.dumps(make_robust_scorer(0.3, attack="fgsm")))
    options = {"eps": 0.3, "attack": "fgsm"}
    assert scorer(iris_net, X, y) == robust_accuracy(iris_net, X, y, **options)
    assert scorer(iris_net, X, y, sample_weight=weight) == robust_accuracy(
        iris_net, X, y, sample_weight=weight, **options
    )
    assert repr(scorer) == "make_robust_scorer(0.3, attack='fgsm')"
    with pytest.raises(TypeError, match="no parameter 'epsilon'; it has eps, attack"):
        make_robust_scorer(0.1, epsilon=3)
    with pytest.raises(ValueError, match="eps=-1 must be a finite number >= 0"):
        make_robust_scorer(-1)
    with pytest.raises(ValueError, match="norm='l7' must be one of"):
        make_robust_scorer(0.1, norm="l7")
    with pytest.raises(ValueError, match="attack='cw' must be one of"):
        make_robust_scorer(0.1, attack="cw")
    of_array = robust_accuracy(iris_net, X, y, eps=np.array(0.3))
    assert of_array == robust_accuracy(iris_net, X, y, eps=0.3)


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"eps": -0.1}, "eps=-0.1 must be a finite number >= 0"),
        ({"eps": np.nan}, "eps=nan must be"),
        ({"eps": "0.1"}, "eps='0.1' must be"),
        ({"eps": True}, "eps=True must be"),
        ({"norm": 2}, r"norm=2 must be one of \('linf', 'l2'\)"),
        ({"batch_size": 0}, "batch_size=0 must be an integer >= 1"),
        ({"bounds": (5, 9)}, r"X must lie within bounds=\(5, 9\).*from 0.1 to 7.9"),
        ({"bounds": 3}, "bounds=3 must be None or a pair"),
        ({"bounds": (np.zeros(3), 9)}, r"of the shape of one sample, \(4,\)"),
    ],
)
def test_bad_options(iris, iris_net, options, match):
    for attack in (fgsm, pgd, robust_accuracy):
        with pytest.raises(ValueError, match=match):
            attack(iris_net, *iris, **{"eps": 0.1, **options})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "steps=0 must be an integer >= 1"),
        ({"steps": 2.5}, "steps=2.5 must be an integer >= 1"),
        ({"n_restarts": -1}, "n_restarts=-1 must be an integer >= 0"),
        ({"random_state": "one"}, "random_state='one' must be None, an integer"),
        ({"step_size": 0}, "step_size=0 must be None or a finite number > 0"),
    ],
)
def test_bad_options_of_pgd(iris, iris_net, options, match):
    for attack in (pgd, robust_accuracy):
        with pytest.raises(ValueError, match=match):
            attack(iris_net, *iris, eps=0.1, **options)


def test_bad_input(iris, iris_net):
    X, y = iris
    with pytest.raises(ValueError, match=r"attack='cw' must be one of \('pgd', 'fgsm"):
        robust_accuracy(iris_net, X, y, eps=0.1, attack="cw")
    for eps in ([], [[0.1]]):
        with pytest.raises(ValueError, match="must be a number or a non-empty one-dim"):
            robust_accuracy(iris_net, X, y, eps=eps)
    with pytest.raises(ValueError, match="eps=-1 must be"):
        robust_accuracy(iris_net, X, y, eps=[0, -1])
    for attack in (fgsm, pgd, robust_accuracy):
        with pytest.raises(NotFittedError):
            attack(clone(iris_net), X, y, eps=0.1)
        with pytest.raises(TypeError, match="net=DummyClassifier must be a fitted"):
            attack(DummyClassifier().fit(X, y), X, y, eps=0.1)
        with pytest.raises(TypeError, match=r"pass search.best_estimator_"):
            attack(GridSearchCV(iris_net, {}), X, y, eps=0.1)
        with pytest.raises(TypeError, match="X=TensorDataset must be an array"):
            attack(iris_net, torch.utils.data.TensorDataset(), y, eps=0.1)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            attack(iris_net, X, y[:-1], eps=0.1)
        with pytest.raises(ValueError, match="X has 3 features"):
            attack(iris_net, X[:, :3], y, eps=0.1)
    with pytest.raises(ValueError, match=r"y holds labels \['tulip'\]"):
        fgsm(iris_net, X[:1], ["tulip"], eps=0.1)
    net = RegularizedNetRegressor(max_epochs=1).fit(X, X[:, 0])
    with pytest.raises(TypeError, match="RegularizedNetRegressor is no classifier"):
        robust_accuracy(net, X, X[:, 0], eps=0.1)
