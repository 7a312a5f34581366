"""
L1 and L2 penalties on few images
=================================

A net with more parameters than images, without a penalty and with either: its accuracy
on images it has not seen, and the norm of its weights, over three seeds.
"""

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images
from skreg.displays import LearningCurvesDisplay, NormDisplay

images = load_digit_images()
X, y = images.data[:100], images.target[:100]
X_val, y_val = images.data[100:400], images.target[100:400]

nets = {}
for name, penalty in {
    "none": {},
    "L1": {"lambda1": 1e-3},
    "L2": {"lambda2": 1e-2},
}.items():
    nets[name] = [
        RegularizedNetClassifier(
            **penalty,
            max_epochs=60,
            callbacks=[AccuracyTracker(on_train=True)],
            random_state=seed,
        ).fit(X, y, X_val=X_val, y_val=y_val)
        for seed in range(3)
    ]

# %%
# Solid lines are training images, dashed ones validation images.

LearningCurvesDisplay.from_estimator(nets)

# %%
# The penalties keep the weights small.

NormDisplay.from_estimator(nets)
