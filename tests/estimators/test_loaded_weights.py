"""Nets that are initialised and get their weights from a file; shapes in score."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skreg import RegularizedNetClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4)).astype(np.float32)
labels = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
Y = (X[:, :3] > 0).astype(int)
METHODS = "predict_proba", "predict_log_proba", "decision_function", "predict"


def make(**params):
    return RegularizedNetClassifier(
        hidden_layer_sizes=5, max_epochs=3, random_state=0, **params
    )


@pytest.mark.parametrize("method", METHODS)
def test_loaded_weights_are_enough_for_each_method(method, tmp_path):
    params = {"classes": ["no", "yes"]}
    params |= {"module__in_features": 4, "module__out_features": 2}
    fitted = make(**params).fit(X, labels)
    fitted.save_params(f_params=tmp_path / "weights.pt")
    loaded = make(**params).initialize()
    loaded.load_params(f_params=tmp_path / "weights.pt")
    expected = getattr(fitted, method)(X)
    np.testing.assert_array_equal(getattr(loaded, method)(X), expected)
    with pytest.raises(NotFittedError):
        getattr(make(**params), method)(X)


def test_score_compares_no_matrix_with_a_column():
    fitted = make().fit(X, Y)
    for n in (3, 40):
        with pytest.raises(ValueError, match=rf"y has shape \({n},\).*\({n}, 3\)"):
            fitted.score(X[:n], Y[:n, 0])
    assert fitted.score(X, Y) == (fitted.predict(X) == Y).all(axis=1).mean()
    with pytest.raises(ValueError, match="multilabel"):
        make().fit(X, labels == "yes").score(X, Y)
