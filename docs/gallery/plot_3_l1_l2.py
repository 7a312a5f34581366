"""
L1, L2, and both
================

Penalties pull weights towards zero: L2 the more, the larger they are, L1 all alike, so
that many of them come to rest near zero.
"""

# %%
# 30 digits to train on, three seeds for each net. ``lambda1`` multiplies the sum of
# absolute values, ``lambda2`` the sum of squares, in training only: the validation loss
# is free of it.
import numpy as np
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images
from skreg.displays import LearningCurvesDisplay, NormDisplay
from skreg.modules import AnimalNet

X, y = load_digit_images(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X, y, train_size=30, test_size=400, stratify=y, random_state=0
)
penalties = {
    "none": {},
    "L1": {"lambda1": 1e-3},
    "L2": {"lambda2": 1e-3},
    "both": {"lambda1": 1e-3, "lambda2": 1e-3},
}
nets = {
    name: [
        RegularizedNetClassifier(
            AnimalNet,
            max_epochs=120,
            batch_size=-1,
            callbacks=[AccuracyTracker(on_train=True)],
            random_state=seed,
            **lambdas,
        ).fit(X_train, y_train, X_val=X_val, y_val=y_val)
        for seed in range(3)
    ]
    for name, lambdas in penalties.items()
}

# %%
# All of them learn the training images (solid). The bands are one standard error; where
# they overlap, nothing has been shown.
LearningCurvesDisplay.from_estimator(nets)

# %%
# What penalties do for sure is to make the net smaller, here by its Frobenius norm,
# after each epoch and for each parameter at the end:
NormDisplay.from_estimator(nets, kind="both")

# %%
# L1 empties the first layer: the share of its weights that are smaller than 0.001.
for name, seeds in nets.items():
    weights = [np.abs(net.module_.fc1.weight.detach().numpy()) for net in seeds]
    print(f"{name:5} {np.mean([(w < 1e-3).mean() for w in weights]):.2f}")

# %%
# The objective at the end, and the part of it that is penalty:
for name, seeds in nets.items():
    loss, penalty = seeds[0].history[-1, ("train_loss", "train_penalty")]
    print(f"{name:5} objective {loss:.3f}, of which penalty {penalty:.3f}")
