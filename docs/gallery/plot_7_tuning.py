"""
Tuning, and its dangers
=======================

How strong should the penalties be? A search finds out. But the best of many scores is
partly the luckiest, and so it promises too much.
"""

# %%
# Both penalties at once
# ----------------------
#
# Each of 16 nets in five folds. Under joblib's backend ``"skreg"`` scikit-learn's own
# ``GridSearchCV`` trains these 80 nets as one program.
import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split

from skreg import RegularizedNetClassifier
from skreg.datasets import load_digit_images
from skreg.displays import HeatMapDisplay, ValidationCurveDisplay

X, y = load_digit_images(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X, y, train_size=150, stratify=y, random_state=0
)
net = RegularizedNetClassifier(max_epochs=50, lr=3e-3, batch_size=-1, random_state=0)
grid = {"lambda1": [0, 1e-4, 1e-3, 1e-2], "lambda2": [0, 1e-3, 1e-2, 1e-1]}
search = GridSearchCV(net, grid)
with joblib.parallel_config("skreg"):
    search.fit(X, y)
HeatMapDisplay.from_cv_results(search.cv_results_)

# %%
# Differences within the standard errors, the numbers behind the signs, mean nothing.
# Along one of the two:
with joblib.parallel_config("skreg"):
    ValidationCurveDisplay.from_estimator(
        net, X, y, param_name="lambda2", param_range=[0, 1e-4, 1e-3, 1e-2, 1e-1], cv=5
    )

# %%
# The score of the search, and that of the net it has chosen on images of which it has
# seen none. (The nets of the search have learnt from four fifths of the images, this
# one from all, which helps it.)
print(f"search {search.best_score_:.3f}, test {search.score(X_test, y_test):.3f}")

# %%
# How much of the best score is luck
# ----------------------------------
#
# If labels are permuted there is nothing to learn, and every net is right in about one
# case in ten. Yet the best score of a search over many nets is higher. A search inside
# of a cross-validation, which scores each choice on images that had no part in it, is
# not fooled (Cawley and Talbot, 2010).
rng = np.random.default_rng(0)
permuted = rng.permutation(y)
lucky = GridSearchCV(
    net.set_params(max_epochs=15),
    {"lambda2": [0, 1e-3, 1e-2], "random_state": list(range(8))},
    cv=3,
)
with joblib.parallel_config("skreg"):
    lucky.fit(X, permuted)
    nested = cross_val_score(lucky, X, permuted)
print(f"best of {len(lucky.cv_results_['params'])}: {lucky.best_score_:.2f}")
print(f"nested: {nested.mean():.2f} +- {nested.std(ddof=1) / np.sqrt(5):.2f}")
