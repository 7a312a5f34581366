"""
The learning rate
=================

Small steps follow the loss into the nearest narrow valley, large ones jump out of it,
and larger ones never settle. With a given number of epochs, the learning rate decides
how far a net gets.
"""

# %%
# Three learning rates of the course, and two larger ones, in batches of 128.
import matplotlib.pyplot as plt
import torch
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images
from skreg.displays import LearningCurvesDisplay, NormDisplay
from skreg.modules import AnimalNet
from skreg.selection import lr_range_test

X, y = load_digit_images(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X, y, train_size=1000, test_size=400, stratify=y, random_state=0
)


def make_net(lr, seed=0):
    return RegularizedNetClassifier(
        AnimalNet,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=lr,
        max_epochs=20,
        batch_size=128,
        callbacks=[AccuracyTracker(on_train=True)],
        random_state=seed,
    )


nets = {
    f"lr = {lr:g}": [
        make_net(lr, seed).fit(X_train, y_train, X_val=X_val, y_val=y_val)
        for seed in range(3)
    ]
    for lr in (5e-4, 1e-3, 5e-3, 5e-2, 5e-1)
}
LearningCurvesDisplay.from_estimator(nets, show_best=False)

# %%
# How far the weights have come:
NormDisplay.from_estimator(nets)

# %%
# A range test (Smith, 2017) raises the learning rate from step to step and looks where
# the loss is smallest; it suggests a tenth of that rate.
test = lr_range_test(make_net(1e-3), X_train, y_train)
figure, ax = plt.subplots(layout="constrained")
ax.plot(test.rates, test.losses)
ax.axvline(test.suggestion, linestyle="--", color="black")
ax.set(xscale="log", xlabel="Learning rate", ylabel="Training loss, smoothed")

# %%
suggested = make_net(test.suggestion).fit(X_train, y_train)
print(f"lr = {test.suggestion:.3g}: accuracy {suggested.score(X_val, y_val):.3f}")
