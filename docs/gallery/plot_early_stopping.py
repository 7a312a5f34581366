"""
Early stopping with noisy labels
================================

A quarter of the labels are wrong. The net learns the right ones first, and stopping
when the validation accuracy has no new best keeps the weights of that moment.
"""

import numpy as np

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images, randomize_labels
from skreg.displays import LearningCurvesDisplay

images = load_digit_images()
order = np.random.default_rng(0).permutation(len(images.target))
X, y = images.data[order], images.target[order]
noisy = randomize_labels(y[:300], fraction=0.25, random_state=0)
held_out = {"X_val": X[300:600], "y_val": y[300:600]}

params = {
    "max_epochs": 100,
    "callbacks": [AccuracyTracker(on_train=True)],
    "random_state": 0,
}
to_the_end = RegularizedNetClassifier(**params).fit(X[:300], noisy, **held_out)
stopped = RegularizedNetClassifier(early_stopping=True, patience=20, **params)
stopped.fit(X[:300], noisy, **held_out)

LearningCurvesDisplay.from_estimator({"to the end": to_the_end, "stopped": stopped})

# %%
# On images that took no part in the choice:

for name, net in {"to the end": to_the_end, "stopped": stopped}.items():
    print(f"{name}: {net.score(X[600:], y[600:]):.3f}")
print(f"best epoch: {stopped.best_epoch_}")
