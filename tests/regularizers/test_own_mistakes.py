"""A user's regularisers that are not quite right are slow or errors, never wrong."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.callbacks import Callback

from skreg import RegularizedNetClassifier
from skreg.estimators.paths import forced_path
from skreg.regularizers import ElasticNet, MaxNorm, Regularizer

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}
PATHS = ["backprop", "autograd", "hooks"]


def net(*own, **params):
    return RegularizedNetClassifier(regularizers=list(own), **SMALL | params)


def tensors(fitted):
    return [w.detach() for w in fitted.module_.parameters()]


def assert_same(one, other):
    for w, v in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(w, v, rtol=1e-8, atol=1e-10)


def folds(estimator, backend):
    with joblib.parallel_config("skreg" if backend else "sequential"):
        found = cross_validate(
            estimator, X, Y, cv=3, return_estimator=True, error_score="raise"
        )
    return found["estimator"]


def assert_alone(estimator, reason):
    """The nets of a search are those of single fits, and do not come from a stack."""
    for one, other in zip(folds(estimator, True), folds(estimator, False), strict=True):
        assert_same(one, other)
        assert reason in one.training_path_reasons_["stack"]


class Decay(Regularizer):
    def __init__(self, strength=0.2):
        self.strength = strength

    def add_gradients(self, gradients, weights):
        for name, w in weights.items():
            gradients[name] = gradients[name] + 2 * self.strength * w
        return sum(self.strength * w.square().sum() for w in weights.values())


class Clips(Regularizer):
    def project(self, weights, step_sizes):
        for name in weights:
            weights[name] = weights[name].clamp(-0.1, 0.1)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_assigned_to_a_name_is_written_into_its_tensor(path):
    with forced_path(path):
        decayed = net(Decay(0.2)).fit(X, Y)
        clipped = net(Clips()).fit(X, Y)
    assert_same(decayed, net(lambda2=0.2).fit(X, Y))
    assert max(w.abs().max() for w in tensors(clipped)) <= 0.1


def test_names_that_there_are_not_cannot_be_added():
    class Adds(Decay):
        def add_gradients(self, gradients, weights):
            gradients["other"] = torch.zeros(1)
            return 0.0

    with pytest.raises(KeyError, match="'other' is none of the names"):
        net(Adds()).fit(X, Y)


# -- stacks that are not what the members are -----------------------------------------


class Box(MaxNorm):
    def project(self, weights, step_sizes):
        for w in weights.values():
            w.clamp_(-self.max_norm, self.max_norm)


class Halved(ElasticNet):
    """Half of the penalty of its base."""

    def add_gradients(self, gradients, weights):
        halved = ElasticNet(self.lambda1 / 2, self.lambda2 / 2)
        halved.names_ = self.names_
        return halved.add_gradients(gradients, weights)


@pytest.mark.parametrize("path", PATHS)
def test_a_subclass_of_the_elastic_net_has_its_own_gradients(path):
    with forced_path(path):
        halved = net(Halved(0.1, 0.2)).fit(X, Y)
    assert_same(halved, net(lambda1=0.05, lambda2=0.1).fit(X, Y))
    assert_alone(net(Halved(0.1, 0.2)), "has a add_gradients of its own")


class First(Decay):
    """Takes the strength of the first net for all."""

    @classmethod
    def stack(cls, members):
        return members[0]


class Sums(Decay):
    """Adds the penalties of all nets up."""

    @classmethod
    def stack(cls, members):
        return cls(members[0].strength)


class PerNet(Decay):
    def add_gradients(self, gradients, weights):
        strength = torch.as_tensor(self.strength, dtype=torch.float64)
        value = 0.0
        for name, w in weights.items():
            factor = (
                strength.reshape(-1, *[1] * (w.ndim - 1)) if strength.ndim else strength
            )
            gradients[name] += 2 * factor * w
            squares = (
                w.square().reshape(len(w), -1).sum(1) if strength.ndim else (w**2).sum()
            )
            value = value + strength * squares
        return value

    @classmethod
    def stack(cls, members):
        return cls(torch.tensor([m.strength for m in members], dtype=torch.float64))


def test_a_right_stack_is_taken():
    for one in folds(net(PerNet(0.1)), True):
        assert one.training_path_ == "stack"


def test_an_override_without_a_stack_of_its_own():
    assert_alone(net(Box(0.1)), "has a project of its own, but the stack of MaxNorm")


def test_a_stack_that_takes_one_strength_for_all():
    grid = {"regularizers__First__strength": [0.0, 0.1, 1.0]}

    def search(backend):
        with joblib.parallel_config("skreg" if backend else "sequential"):
            found = GridSearchCV(net(First()), grid, scoring="neg_log_loss", cv=3)
            return found.fit(X, Y).cv_results_["mean_test_score"]

    np.testing.assert_allclose(search(True), search(False))


def test_a_stack_that_sums_over_the_nets():
    assert_alone(net(Sums(0.1)), "returns a penalty of shape () in a stack of 3 nets")


class Late(Regularizer):
    """Acts from its fifth step on."""

    def begin(self, module):
        self.n_ = getattr(self, "n_", 0)

    def project(self, weights, step_sizes):
        self.n_ += 1
        if self.n_ > 5:
            for w in weights.values():
                w.clamp_(-0.1, 0.1)

    @classmethod
    def stack(cls, members):
        one = cls()
        one.n_ = 0
        return one


class NoiseInTime(Regularizer):
    """Noise on batches that grows from step to step."""

    def batch(self, X, y):
        self.n_ = getattr(self, "n_", 0) + 1
        return X + 0.01 * self.n_ * torch.randn_like(X), y


@pytest.mark.parametrize("own", [Late(), NoiseInTime()], ids=["project", "batch"])
def test_a_state_survives_nets_that_end_before_others(own):
    grid = {"max_epochs": [2, 4, 6]}

    def search(backend):
        with joblib.parallel_config("skreg" if backend else "sequential"):
            found = GridSearchCV(net(own), grid, scoring="neg_log_loss", cv=3)
            return found.fit(X, Y).cv_results_["mean_test_score"]

    np.testing.assert_allclose(search(True), search(False), rtol=1e-8)


def test_a_state_is_kept_if_all_nets_end_together():
    for one, other in zip(
        folds(net(Late()), True), folds(net(Late()), False), strict=True
    ):
        assert one.training_path_ == "stack"
        assert_same(one, other)


class Fails(Late):
    """Works through its members, and fails in the middle of training."""

    def __init__(self):
        self.n_ = 0

    @classmethod
    def stack(cls, members):
        return _Fails(members)


class _Fails(Fails):
    def __init__(self, members):
        self.members = members

    def project(self, weights, step_sizes):
        for i, member in enumerate(self.members):
            member.project({name: w[i] for name, w in weights.items()}, step_sizes)
        if self.members[0].n_ == 4:
            raise ArithmeticError("late")


def test_members_are_as_before_if_their_stack_fails():
    assert_alone(net(Fails()), "late")


class Unpickled(Regularizer):
    def __init__(self, function=None):
        self.function = function

    def batch(self, X, y):
        return self.function(X), y


def test_what_cannot_be_pickled_trains_alone():
    assert_alone(net(Unpickled(lambda x: 2 * x)), "cannot be pickled")


# -- states and parameters in one fit -------------------------------------------------


class Counts(Regularizer):
    def begin(self, module):
        SEEN.append(getattr(self, "n_", "new"))
        self.n_ = getattr(self, "n_", 0)

    def project(self, weights, step_sizes):
        self.n_ += 1


SEEN = []


class Sets(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.set_params(lambda1=1e-4 * len(net.history))


def test_a_callback_that_sets_another_parameter_leaves_states_alone():
    SEEN.clear()
    net(Counts(), callbacks=[Sets()]).fit(X, Y)
    assert SEEN[0] == "new"
    assert "new" not in SEEN[1:]
    assert SEEN[-1] == 8  # two epochs of four steps


class Masks(Regularizer):
    def __init__(self, mask=None):
        self.mask = mask

    def project(self, weights, step_sizes):
        weights["fc1.weight"].mul_(torch.as_tensor(self.mask))


def test_arrays_as_parameters_may_change_in_training():
    class Opens(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.set_params(regularizers__Masks__mask=np.ones((6, 4)))

    fitted = net(Masks(np.zeros((6, 4))), callbacks=[Opens()]).fit(X, Y)
    assert (tensors(fitted)[0] != 0).any()


# -- errors ---------------------------------------------------------------------------


class Misspelled(Regularizer):
    def add_gradient(self, gradients, weights):
        return 1.0


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([("a", Decay()), ("a", Decay())], "names must be unique"),
        ([("Decay", Decay()), Decay()], "names must be unique"),
        ([("a__b", Decay())], "the name 'a__b' must not be empty or hold '__'"),
        ([("", Decay())], "the name '' must not be empty"),
        ([Misspelled()], "Misspelled overrides none of batch, weighted_batch, perturb"),
    ],
)
def test_names_and_methods_that_will_not_do(own, message):
    with pytest.raises(ValueError, match=message):
        RegularizedNetClassifier(regularizers=own, **SMALL).fit(X, Y)


def method(name, function):
    return type("Mine", (Regularizer,), {name: function})()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("own", "message"),
    [
        (method("add_gradients", lambda self, g, w: None), "Mine must return the pen"),
        (
            method("add_gradients", lambda self, g, w: torch.zeros(1, 1)),
            r"got a Tensor of shape \(1, 1\)",
        ),
        (method("gradients", lambda self, e, w, s: None), "called it 0 times"),
        (method("gradients", lambda self, e, w, s: e()[0]), "a pair; it has called"),
        (method("average", lambda self, w: [1]), "must return a mapping of names"),
        (method("average", lambda self, w: {}), "for 'fc1.weight'; got none"),
        (
            method("average", lambda self, w: {n: v[:1] for n, v in w.items()}),
            r"tensor of shape \(6, 4\) for 'fc1.weight'; got \(1, 4\)",
        ),
    ],
)
def test_wrong_results_are_errors_that_say_whose(own, message, path):
    with forced_path(path), pytest.raises((TypeError, ValueError), match=message):
        net(own).fit(X, Y)


def test_step_sizes_are_those_of_each_group_of_an_optimizer():
    seen = {}

    class Looks(Regularizer):
        def project(self, weights, step_sizes):
            seen.update(step_sizes)

    net(
        Looks(),
        optimizer=torch.optim.SGD,
        optimizer__param_groups=[("fc1.*", {"lr": 0.2})],
    ).fit(X, Y)
    assert seen["fc1.weight"] == 0.2
    assert seen["fc2.weight"] == 0.01
