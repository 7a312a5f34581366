"""The protocol: each method acts as it is meant to, on every training path."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_validate
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg._utils.flat import FlatTensors, joined
from skreg.estimators.paths import forced_path
from skreg.regularizers import REGULARIZERS, ElasticNet, Regularizer
from skreg.training.regularizing import Active, NotStackable, penalized

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}


class Orthogonality(Regularizer):
    """Penalty strength * |W W' - I|^2 of each weight matrix."""

    def __init__(self, strength=0.1):
        self.strength = strength

    def add_gradients(self, gradients, weights):
        value = 0.0
        for name, w in weights.items():
            if name.endswith("weight"):
                strength = torch.as_tensor(self.strength, dtype=w.dtype)[
                    ..., None, None
                ]
                rest = w @ w.mT - torch.eye(w.shape[-2], dtype=w.dtype)
                gradients[name] += 4 * strength * (rest @ w)
                value = value + (strength * rest.square()).sum((-2, -1))
        return value

    @classmethod
    def stack(cls, members):
        strengths = [member.strength for member in members]
        return cls(torch.tensor(strengths, dtype=torch.float64))


class Flips(Regularizer):
    """Turns some inputs around, by chance."""

    def batch(self, X, y):
        return torch.where(torch.rand(len(X), 1) < 0.5, -X, X), y


class Sharpness(Regularizer):
    """Takes the gradient at the worst weights within a radius of the present ones."""

    def __init__(self, radius=0.05):
        self.radius = radius

    def gradients(self, evaluate, weights, slopes):
        found = evaluate()
        norm = torch.stack([slopes[name].norm() for name in weights]).norm()
        kept = {name: w.clone() for name, w in weights.items()}
        for name, w in weights.items():
            w.add_(slopes[name], alpha=float(self.radius / norm))
        evaluate()
        for name, w in weights.items():
            w.copy_(kept[name])
        return found


class NotNegative(Regularizer):
    """Lets no weight be negative."""

    def project(self, weights, step_sizes):
        for w in weights.values():
            w.clamp_(min=0)

    @classmethod
    def stack(cls, members):
        return cls()


OWN = [Orthogonality(), Flips(), Sharpness(), NotNegative()]
PATHS = ["backprop", "autograd", "hooks"]


def net(*own, make=RegularizedNetClassifier, **params):
    return make(regularizers=list(own), **SMALL | params)


def tensors(fitted):
    return [w.detach() for w in fitted.module_.parameters()]


def assert_same(one, other, rtol=1e-9):
    for w, v in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(w, v, rtol=rtol, atol=rtol / 100)
    for name in ("train_loss", "train_penalty"):
        assert one.history[:, name] == pytest.approx(other.history[:, name], rel=rtol)


@pytest.mark.parametrize("own", OWN, ids=lambda own: type(own).__name__)
@pytest.mark.parametrize("params", [{}, {"lambda1": 1e-2, "lambda2": 1e-2}])
def test_a_regularizer_trains_the_same_net_on_every_path(own, params):
    nets = []
    for path in PATHS:
        with forced_path(path):
            nets.append(net(own, **params).fit(X, Y))
        assert nets[-1].training_path_ == path
    for other in nets[1:]:
        assert_same(nets[0], other)
    plain = net(**params).fit(X, Y)
    assert any(
        not torch.equal(w, v)
        for w, v in zip(tensors(plain), tensors(nets[0]), strict=True)
    )


def plain_loop(n_steps, penalty, project=lambda w: None):
    """The course's loop in double precision: full batches, plain SGD."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    data = torch.from_numpy(X), torch.from_numpy(Y)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(data[0]), data[1])
        (loss + penalty(module)).backward()
        optimizer.step()
        with torch.no_grad():
            for w in module.parameters():
                project(w)
    return start, module


def orthogonality(module):
    weights = [w for name, w in module.named_parameters() if name.endswith("weight")]
    rests = [w @ w.T - torch.eye(len(w), dtype=w.dtype) for w in weights]
    return 0.1 * sum(rest.square().sum() for rest in rests)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("own", "penalty", "project"),
    [
        (Orthogonality(0.1), orthogonality, lambda w: None),
        (NotNegative(), lambda module: 0.0, lambda w: w.clamp_(min=0)),
    ],
    ids=["penalty", "projection"],
)
def test_it_is_the_plain_training_loop_with_this_term(path, own, penalty, project):
    start, expected = plain_loop(7, penalty, project)
    ours = net(
        own,
        module=start,
        optimizer=torch.optim.SGD,
        lr=0.05,
        batch_size=-1,
        max_epochs=7,
    )
    with forced_path(path):
        ours.fit(X, Y)
    for w, v in zip(tensors(ours), expected.parameters(), strict=True):
        torch.testing.assert_close(w, v.detach(), rtol=1e-10, atol=1e-12)


def test_a_gradient_of_its_own_is_the_one_at_the_worst_weights():
    module = nn.Linear(4, 3).double()
    data = torch.from_numpy(X), torch.from_numpy(Y)
    loss = nn.functional.cross_entropy(module(data[0]), data[1])
    slopes = torch.autograd.grad(loss, list(module.parameters()))
    norm = torch.stack([g.norm() for g in slopes]).norm()
    moved = [
        w + 0.5 * g / norm for w, g in zip(module.parameters(), slopes, strict=True)
    ]
    outputs = data[0] @ moved[0].T + moved[1]
    worst = torch.autograd.grad(nn.functional.cross_entropy(outputs, data[1]), moved)
    ours = net(
        Sharpness(0.5),
        module=nn.Sequential(module),
        optimizer=torch.optim.SGD,
        lr=1.0,
        batch_size=-1,
        max_epochs=1,
    ).fit(X, Y)
    for w, before, g in zip(tensors(ours), module.parameters(), worst, strict=True):
        torch.testing.assert_close(w, before.detach() - g, rtol=1e-10, atol=1e-12)
    assert ours.history[0, "train_loss"] == pytest.approx(float(loss.detach()))


# -- stacks ---------------------------------------------------------------------------


def folds(estimator, backend):
    with joblib.parallel_config("skreg" if backend else "sequential"):
        found = cross_validate(
            estimator, X, Y, cv=3, return_estimator=True, error_score="raise"
        )
    return found["estimator"]


@pytest.mark.parametrize("own", OWN, ids=lambda own: type(own).__name__)
def test_the_nets_of_a_search_are_those_of_single_fits_or_train_alone(own):
    estimator = net(own, lambda2=1e-3)
    for one, other in zip(folds(estimator, True), folds(estimator, False), strict=True):
        assert_same(one, other)
        if isinstance(own, Sharpness):
            reason = "regularizer Sharpness has no stack"
            assert one.training_path_reasons_["stack"] == reason
        else:
            assert one.training_path_ == "stack"


class Overwrites(Regularizer):
    """Turns inputs around where they are."""

    def batch(self, X, y):
        return X.neg_(), y


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_may_be_overwritten_and_the_data_are_not(backend, shuffle):
    data = X.copy()
    for one in folds(net(Overwrites(), shuffle=shuffle, batch_size=-1), backend):
        assert len(one.history) == 3
    net(Overwrites(), shuffle=shuffle).fit(data, Y)
    np.testing.assert_array_equal(data, X)
    mirrored = net(shuffle=shuffle, batch_size=-1).fit(-X, Y)
    turned = net(Overwrites(), shuffle=shuffle, batch_size=-1).fit(X, Y)
    assert_same(turned, mirrored)


class Looks(Flips):
    def begin(self, module):
        self.module_ = module


def test_who_changes_batches_and_looks_at_the_module_trains_alone():
    together, alone = (folds(net(Looks()), backend) for backend in (True, False))
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)
        assert "may look at the module" in one.training_path_reasons_["stack"]


def test_changed_batches_and_dropout_draw_in_turns_in_a_stack():
    estimator = net(Flips(), module=_with_dropout, lambda2=1e-3)
    grid = {"dropout": [0.0, 0.3], "lambda2": [0.0, 1e-3]}

    def search(backend):
        with joblib.parallel_config("skreg" if backend else "sequential"):
            return GridSearchCV(estimator, grid, cv=3).fit(X, Y)

    together, alone = search(True), search(False)
    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def _with_dropout(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, out_features)
    )


def test_strengths_may_differ_within_a_stack():
    grid = {"regularizers__Orthogonality__strength": [0.0, 0.01, 0.1]}
    grid["lambda1"] = [0.0, 0.001]

    def search(backend):
        with joblib.parallel_config("skreg" if backend else "sequential"):
            return GridSearchCV(net(Orthogonality()), grid, cv=2).fit(X, Y)

    together, alone = search(True), search(False)
    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    assert_same(together.best_estimator_, alone.best_estimator_)


def test_objects_in_a_grid_are_searched():
    grid = {"regularizers": [None, [Orthogonality(0.1)], [NotNegative()]]}
    with joblib.parallel_config("skreg"):
        together = GridSearchCV(net(), grid, cv=3).fit(X, Y)
    alone = GridSearchCV(net(), grid, cv=3).fit(X, Y)
    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


class Refuses(Orthogonality):
    @classmethod
    def stack(cls, members):
        return None


def test_members_that_cannot_act_as_one_train_alone():
    for one, other in zip(
        folds(net(Refuses()), True), folds(net(Refuses()), False), strict=True
    ):
        assert_same(one, other)
        assert "regularizer Refuses" in one.training_path_reasons_["stack"]
    weights = {"weight": torch.zeros(2, 3, 3)}
    with pytest.raises(NotStackable, match="Refuses"):
        Active.stack([Active([Refuses()]), Active([Refuses()])], weights)


# -- parameters -----------------------------------------------------------------------


def test_parameters_are_those_of_the_objects():
    estimator = net(Orthogonality(0.3), ("second", Orthogonality(0.4)))
    params = estimator.get_params()
    assert params["regularizers__Orthogonality__strength"] == 0.3
    assert params["regularizers__second__strength"] == 0.4
    estimator.set_params(regularizers__second__strength=0.0)
    assert clone(estimator).get_params()["regularizers__second__strength"] == 0.0
    expected = net(Orthogonality(0.3)).fit(X, Y)
    assert_same(estimator.fit(X, Y), expected, rtol=1e-12)
    assert estimator.regularizers[1][1].strength == 0.4  # the user's object


def test_equal_classes_are_numbered():
    estimator = net(Orthogonality(0.1), Orthogonality(0.2))
    assert estimator.get_params()["regularizers__Orthogonality_2__strength"] == 0.2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"regularizers": Orthogonality()},
            "regularizers=Orthogonality.* must be None",
        ),
        ({"regularizers": [0.1]}, r"regularizers=\[0.1\] must be None or a list"),
        (
            {"regularizers": [Orthogonality()], "regularizers__Orthogonal__x": 1},
            "regularizers__Orthogonal__x=1 names nothing; there are "
            "regularizers__Orthogonality__",
        ),
        (
            {"regularizers": [Orthogonality()], "regularizers__Orthogonality__x": 1},
            "there are regularizers__Orthogonality__strength",
        ),
        ({"regularizers__Orthogonality__x": 1}, "names nothing; there are none"),
    ],
)
def test_what_is_no_regularizer_is_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        RegularizedNetClassifier(**SMALL | params).fit(X, Y)


def test_the_users_object_is_not_changed_by_a_fit():
    own = Looks()
    net(own).fit(X, Y)
    assert not hasattr(own, "module_")


def test_strength_zero_is_absence_bit_for_bit():
    expected = net(lambda1=0.0).fit(X, Y)
    nothing = net(ElasticNet(0.0, 0.0)).fit(X, Y)
    for w, v in zip(tensors(nothing), tensors(expected), strict=True):
        assert torch.equal(w, v)


def test_own_and_given_penalties_add_up():
    both = net(ElasticNet(lambda1=0.01), lambda2=0.02).fit(X, Y)
    assert_same(both, net(lambda1=0.01, lambda2=0.02).fit(X, Y))


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_penalties_are_not_scaled_with_the_losses_of_mixed_precision(amp):
    params = {"dtype": "float32", "optimizer": torch.optim.SGD, "max_epochs": 9}

    def norm(strength, amp=None):
        fitted = net(Orthogonality(strength), amp=amp, **params).fit(X, Y)
        return fitted.history[-1, "param_norm"]

    effect = norm(0.0) - norm(0.2)
    assert abs(effect) > 0.1
    assert norm(0.2, amp) == pytest.approx(norm(0.2), abs=abs(effect) / 5)


def test_a_regressor_has_them_too():
    data, targets = load_digits(return_X_y=True)
    nets = []
    for path in PATHS:
        with forced_path(path):
            ours = net(Orthogonality(0.01), make=RegularizedNetRegressor)
            nets.append(ours.fit(data[:200], targets[:200].astype(float)))
    assert_same(nets[0], nets[1])
    assert_same(nets[0], nets[2])


def test_a_strength_that_a_callback_changes_is_followed_at_once():
    from skorch.callbacks import Callback

    class Weaker(Callback):
        def on_epoch_begin(self, net, **kwargs):
            net.lambda2 = 0.1 if len(net.history) < 2 else 0.0

    for path in PATHS:
        with forced_path(path):
            fitted = net(callbacks=[Weaker()]).fit(X, Y)
        penalties = np.array(fitted.history[:, "train_penalty"])
        assert penalties[0] > 0
        assert (penalties[1:] == 0).all()


# -- the penalty under autograd -------------------------------------------------------


def module_and_weights():
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    return module, dict(module.named_parameters())


def active(*members):
    module, _ = module_and_weights()
    for member in members:
        member.begin(module)
    return Active(members)


@pytest.mark.parametrize("penalty", [ElasticNet(0.3, 0.7), Orthogonality(0.2)])
def test_the_gradient_is_the_numerical_derivative(penalty):
    _, weights = module_and_weights()
    work = active(penalty)

    def objective(*params):
        named = dict(zip(weights, params, strict=True))
        return penalized(params[0].sum() * 0, work, named)[0]

    assert torch.autograd.gradcheck(objective, list(weights.values()))
    assert torch.autograd.gradgradcheck(objective, list(weights.values()))


def test_backward_twice_gives_the_gradient_twice_and_no_alias():
    module, weights = module_and_weights()
    value, penalty = penalized(
        torch.zeros((), dtype=torch.float64), active(ElasticNet(0.5, 0.25)), weights
    )
    value.backward(retain_graph=True)
    first = [w.grad.clone() for w in module.parameters()]
    for w in module.parameters():
        w.grad.zero_()
    (3 * value).backward()
    for w, g in zip(module.parameters(), first, strict=True):
        torch.testing.assert_close(w.grad, 3 * g)
        torch.testing.assert_close(g, 0.5 * w.detach().sign() + 0.5 * w.detach())
    assert not penalty.requires_grad


def test_no_penalty_is_the_loss_itself():
    loss = torch.ones(())
    _, weights = module_and_weights()
    assert penalized(loss, Active(), weights) == (loss, 0.0)
    assert penalized(loss, active(ElasticNet()), weights)[0] is loss


# -- tensors side by side -------------------------------------------------------------


def test_neighbours_in_memory_are_joined_in_one_order():
    shapes = {"a": torch.empty(2, 2), "b": torch.empty(3), "c": torch.empty(())}
    flat = FlatTensors(torch.arange(8.0), shapes)
    assert {name: tuple(t.shape) for name, t in flat.items()} == {
        name: tuple(t.shape) for name, t in shapes.items()
    }
    assert [t.tolist() for t in joined(flat, ("a", "b"))] == [list(range(7))]
    assert [t.tolist() for t in joined(flat, ("c", "a"))] == [[0, 1, 2, 3], [7]]
    flat["b"].fill_(9.0)
    assert joined(flat, ("a", "b", "c"))[0].tolist() == [0, 1, 2, 3, 9, 9, 9, 7]
    assert [t.tolist() for t in joined(dict(flat), ("c",))] == [7]


# -- the registry ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", REGULARIZERS)
def test_what_has_parameters_is_neutral_by_default_and_can_be_stacked(kind):
    defaults = {name: p.default for name, p in kind.parameters.items()}
    assert kind.of(defaults, {prefix: {} for prefix in kind.options}).is_neutral
    options = [p for of in kind.options.values() for p in (of or {}).values()]
    assert all(option.rule.accepts(option.default) for option in options)
    for name, parameter in kind.parameters.items():
        assert parameter.rule.accepts(parameter.default)
        assert f"{name} : {parameter.type}" in RegularizedNetClassifier.__doc__
        assert f"{name} : {parameter.type}" in RegularizedNetRegressor.__doc__
