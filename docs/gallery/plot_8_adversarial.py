"""
Adversarial attacks
===================

A change too small to matter to anybody, chosen for the purpose, makes a net wrong. Nets
that were trained on attacked images withstand it better.
"""

# %%
# Three nets: without regularisation, with an L2 penalty, and trained against FGSM.
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.datasets import load_digit_images
from skreg.displays import AttackedImagesDisplay, RobustnessDisplay

X, y = load_digit_images(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=1000, test_size=300, stratify=y, random_state=0
)
params = {
    "none": {},
    "L2": {"lambda2": 1e-3},
    "adversarial": {"adversarial_eps": 0.1},
}
nets = {
    name: [
        RegularizedNetClassifier(max_epochs=30, random_state=seed, **more).fit(
            X_train, y_train
        )
        for seed in range(3)
    ]
    for name, more in params.items()
}

# %%
# Accuracy under PGD, the stronger attack, by its size in units of X: images lie in
# [0, 1]. At 0 it is the plain accuracy.
RobustnessDisplay.from_estimator(
    nets, X_test, y_test, eps=[0, 0.05, 0.1, 0.15, 0.2], chance=0.1
)

# %%
# What such an attack looks like, and what the first net takes the images for:
AttackedImagesDisplay.from_estimator(
    nets["none"][0], X_test, y_test, eps=0.15, value_range=(0, 1)
)

# %%
# The net that was trained against attacks:
AttackedImagesDisplay.from_estimator(
    nets["adversarial"][0], X_test, y_test, eps=0.15, value_range=(0, 1)
)
