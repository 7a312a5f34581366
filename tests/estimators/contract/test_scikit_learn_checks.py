"""The checks of scikit-learn, and what the tags of the nets say."""

import io
import pickle

import numpy as np
import pytest
from contract_nets import equal_weights, small
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


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


@pytest.mark.slow
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
