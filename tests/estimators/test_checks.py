"""scikit-learn's checks, with parameters that are not the default.

What is expected to fail is listed with the reason, and fails for scikit-learn's own
estimators too where they have such a parameter; a check that passes although it is
listed is a failure.
"""

import pytest
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import (
    check_classifiers_multilabel_representation_invariance,
    check_estimator,
    check_sample_weight_equivalence_on_dense_data,
    check_supervised_y_2d,
)

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.transforms import GaussianNoise

WEIGHTS = (
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
)
DRAWN = dict.fromkeys(WEIGHTS, "of two equal samples, chance treats each on its own")
ROUNDED = dict.fromkeys(WEIGHTS, "bfloat16 rounds to 1e-2, and the check wants 1e-7")
TWICE = "a second fit goes on with the weights of the first"
PARAMETERS = {
    "early_stopping": ({"early_stopping": True}, DRAWN),
    "momentum": (
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.01},
        {},
    ),
    "warm_start": (
        {"warm_start": True},
        {
            "check_supervised_y_2d": TWICE,
            "check_classifiers_multilabel_representation_invariance": TWICE,
        },
    ),
    "amp": (
        {"amp": "bfloat16"},
        ROUNDED | {"check_regressor_multioutput": "float32, as the weights are"},
    ),
    "augment": ({"augment": GaussianNoise(0.01)}, DRAWN),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("kind", [RegularizedNetClassifier, RegularizedNetRegressor])
@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings of all kinds
def test_checks_pass_with_other_parameters(kind, name, record_property):
    parameters, reasons = PARAMETERS[name]
    net = kind(random_state=0, max_epochs=30, **parameters)
    results = check_estimator(net, on_fail=None, on_skip=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    run = {r["check_name"] for r in results}
    record_property(
        "checks",
        f"{kind.__name__}({name}): {len(results) - len(failed)} passed, {len(failed)} "
        "expected to fail",
    )
    assert failed == reasons.keys() & run


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.filterwarnings("ignore")
def test_with_early_stopping_scikit_learn_fails_that_check_too(kind):
    with pytest.raises(AssertionError, match="is not equivalent"):
        check_sample_weight_equivalence_on_dense_data(
            kind.__name__, kind(early_stopping=True)
        )


@pytest.mark.parametrize(
    "check",
    [
        check_supervised_y_2d,
        check_classifiers_multilabel_representation_invariance,
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_with_warm_starts_scikit_learn_fails_those_checks_too(check):
    with pytest.raises(AssertionError):
        check("MLPClassifier", MLPClassifier(warm_start=True, random_state=0))
