"""Every public method of a net leaves its parameters alone, also those of skorch."""

import copy
import io

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from skorch.callbacks import Callback
from skorch.exceptions import NotInitializedError, SkorchTrainingImpossibleError
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import EarlyStopping

X, y = load_iris(return_X_y=True)
NETS = {
    "classifier": RegularizedNetClassifier,
    "regressor": RegularizedNetRegressor,
}


MODULES = {NETS["classifier"]: nn.Linear(4, 3), NETS["regressor"]: nn.Linear(4, 1)}


class Quiet(Callback):
    """A callback of the user's."""


def fitted(make, **params):
    net = make(
        MODULES[make],
        max_epochs=2,
        random_state=0,
        callbacks=[("quiet", Quiet())],
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        **params,
    )
    return net.fit(X, y)


def outputs(net):
    if isinstance(net, RegularizedNetClassifier):
        return np.hstack([net.predict_proba(X), net.predict_log_proba(X)])
    return net.predict(X)


def batch_of(net):
    dtype = torch.int64 if isinstance(net, RegularizedNetClassifier) else torch.float64
    targets = torch.as_tensor(y[:8], dtype=dtype)
    return torch.as_tensor(X[:8]), targets.reshape(8, *[1] * dtype.is_floating_point)


def dataset_of(net):
    targets = y if isinstance(net, RegularizedNetClassifier) else y.reshape(-1, 1) * 1.0
    return net.get_dataset(X, targets)


def saved(net):
    file = io.BytesIO()
    net.save_params(f_params=file)
    file.seek(0)
    return file


def epoch_of(net, training):
    net.history.new_epoch()
    batches = net.get_iterator(dataset_of(net), training=training)
    step = net.train_step if training else net.validation_step
    net.run_single_epoch(batches, training, "train" if training else "valid", step)


# What is called on a fitted net, and must leave it as it is.
READING = {
    "check_data": lambda net: net.check_data(X, y),
    "check_is_fitted": lambda net: net.check_is_fitted(),
    "check_training_readiness": lambda net: net.check_training_readiness(),
    "evaluation_step": lambda net: net.evaluation_step(batch_of(net), training=True),
    "forward": lambda net: net.forward(X, training=True),
    "forward_iter": lambda net: list(net.forward_iter(X, training=True)),
    "get_all_learnable_params": lambda net: list(net.get_all_learnable_params()),
    "get_dataset": lambda net: net.get_dataset(X, y),
    "get_default_callbacks": lambda net: net.get_default_callbacks(),
    "get_iterator": lambda net: list(net.get_iterator(dataset_of(net), training=True)),
    "get_loss": lambda net: net.get_loss(
        net.infer(batch_of(net)[0]), batch_of(net)[1], training=True
    ),
    "get_metadata_routing": lambda net: net.get_metadata_routing(),
    "get_params": lambda net: net.get_params(deep=True),
    "get_params_for": lambda net: net.get_params_for("optimizer").clear(),
    "get_params_for_optimizer": lambda net: net.get_params_for_optimizer(
        "optimizer", net.module_.named_parameters()
    ),
    "get_split_datasets": lambda net: net.get_split_datasets(X, y),
    "get_train_step_accumulator": lambda net: net.get_train_step_accumulator(),
    "infer": lambda net: net.infer(batch_of(net)[0]),
    "initialize_callbacks": lambda net: net.initialize_callbacks(),
    "initialize_criterion": lambda net: net.initialize_criterion(),
    "initialize_history": lambda net: net.initialize_history(),
    "initialize_optimizer": lambda net: net.initialize_optimizer(),
    "initialize_virtual_params": lambda net: net.initialize_virtual_params(),
    "initialized_instance": lambda net: net.initialized_instance(nn.ReLU, {}),
    "load_params": lambda net: net.load_params(f_params=saved(net)),
    "notify": lambda net: net.notify("on_train_begin", X=X, y=y),
    "on_batch_begin": lambda net: net.on_batch_begin(net),
    "on_batch_end": lambda net: net.on_batch_end(net),
    "on_epoch_begin": lambda net: net.on_epoch_begin(net),
    "on_epoch_end": lambda net: net.on_epoch_end(net),
    "on_grad_computed": lambda net: net.on_grad_computed(net, named_parameters=[]),
    "on_train_begin": lambda net: net.on_train_begin(net),
    "on_train_end": lambda net: net.on_train_end(net),
    "predict": lambda net: net.predict(X),
    "predict_log_proba": lambda net: net.predict_log_proba(X),
    "decision_function": lambda net: net.decision_function(X),
    "predict_proba": lambda net: net.predict_proba(X),
    "run_single_epoch": lambda net: epoch_of(net, training=False),
    "save_params": saved,
    "score": lambda net: net.score(X, y),
    "set_params": lambda net: net.set_params(),
    "torch_compile": lambda net: net.torch_compile(nn.ReLU(), name="module"),
    "train_step_single": lambda net: net.train_step_single(batch_of(net)),
    "trim_for_prediction": lambda net: net.trim_for_prediction(),
    "validation_step": lambda net: net.validation_step(batch_of(net)),
}
if hasattr(RegularizedNetClassifier, "set_callbacks"):  # scikit-learn >= 1.9
    READING["set_callbacks"] = lambda net: net.set_callbacks()
# What trains, or begins anew: parameters stay, predictions need not.
TRAINING = {
    "fit": lambda net: net.fit(X, y),
    "fit_loop": lambda net: net.fit_loop(X, dataset_of(net).y),
    "initialize": lambda net: net.initialize(),
    "initialize_module": lambda net: net._initialize_module(),
    "partial_fit": lambda net: net.partial_fit(X, y),
    "run_single_epoch": lambda net: epoch_of(net, training=True),
    "train_step": lambda net: net.train_step(batch_of(net)),
}
# Made by scikit-learn for the routing of metadata, which is off.
OF_SCIKIT_LEARN = {"set_fit_request", "set_partial_fit_request", "set_score_request"}


def test_no_public_method_is_forgotten():
    methods = {
        name
        for name in dir(RegularizedNetClassifier)
        if not name.startswith("_")
        and callable(getattr(RegularizedNetClassifier, name, None))
    }
    assert methods == {*READING, *TRAINING, *OF_SCIKIT_LEARN}


def assert_parameters_stay(net, call):
    before = net.get_params(deep=False)
    contents = copy.deepcopy({k: v for k, v in before.items() if k != "callbacks"})
    callbacks = list(before["callbacks"])
    call(net)
    after = net.get_params(deep=False)
    assert before.keys() == after.keys()
    assert all(after[name] is value for name, value in before.items())
    assert after["callbacks"] == callbacks
    for a, b in zip(
        net.module.parameters(), contents.pop("module").parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert {k: v for k, v in after.items() if k in contents} == contents


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", READING)
def test_methods_leave_parameters_and_predictions_alone(kind, name, capsys):
    if kind == "regressor" and name in {
        *("predict_proba", "predict_log_proba", "decision_function")
    }:
        assert not hasattr(NETS[kind](), name)
        return
    net = fitted(NETS[kind])
    expected = outputs(net)
    assert_parameters_stay(net, READING[name])
    assert np.array_equal(outputs(net), expected)
    assert clone(net).fit(X, y).score(X, y) == fitted(NETS[kind]).score(X, y)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", TRAINING)
def test_methods_that_train_leave_parameters_alone(kind, name):
    net = fitted(NETS[kind])
    assert_parameters_stay(net, TRAINING[name])
    assert np.isfinite(outputs(net)).all()
    assert clone(net).fit(X, y).score(X, y) == fitted(NETS[kind]).score(X, y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_trimmed_nets_predict_and_can_be_fitted_anew(early_stopping):
    given = [("quiet", Quiet())]
    net = RegularizedNetClassifier(
        max_epochs=3, random_state=0, early_stopping=early_stopping, callbacks=given
    ).fit(X, y)
    history, expected = net.history, outputs(net)
    net.trim_for_prediction()
    assert np.array_equal(outputs(net), expected)
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1)
    assert net.optimizer_ is None
    assert len(net.history) == 0
    assert len(history) == 3  # what was given out before
    assert [name for name, _ in given] == ["quiet"]
    assert hasattr(net, "best_epoch_") is early_stopping
    net.trim_for_prediction()  # again
    net.set_params(lr=0.001)
    for copied in (net, copy.deepcopy(net)):
        with pytest.raises(SkorchTrainingImpossibleError, match="trimmed"):
            copied.partial_fit(X, y)
        warm = clone(copied).set_params(warm_start=True).fit(X, y)
        warm.trim_for_prediction()
        with pytest.raises(SkorchTrainingImpossibleError, match="trimmed"):
            warm.fit(X, y)
        assert np.array_equal(outputs(clone(copied).fit(X, y)), expected)
        assert np.array_equal(outputs(copied.fit(X, y)), expected)
        copied.partial_fit(X, y)
        copied.trim_for_prediction()


def test_only_fitted_nets_can_be_trimmed():
    with pytest.raises(NotInitializedError):
        RegularizedNetClassifier().trim_for_prediction()


def test_a_trimmed_net_still_tells_its_best_epoch():
    net = RegularizedNetClassifier(
        max_epochs=5,
        random_state=0,
        callbacks=[EarlyStopping(monitor="valid_loss", lower_is_better=True)],
    ).fit(X, y, X_val=X, y_val=y)
    best = net.best_epoch_
    net.trim_for_prediction()
    assert net.best_epoch_ == best == 5
