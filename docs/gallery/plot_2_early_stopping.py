"""
Early stopping
==============

Validation accuracy rises quickly and then rises no more, or falls, while the net learns
the noise in its labels. Early stopping ends training when there has been no new best
for `patience` epochs, and goes back to the best weights. What it looks at is `monitor`:
here the validation accuracy, as in the course, by default the validation loss.
"""

# %%
# A third of the labels of 200 digits is drawn at random, so that there is something
# that had better not be learnt.
import numpy as np
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images, randomize_labels
from skreg.displays import LearningCurvesDisplay, NormDisplay
from skreg.modules import AnimalNet

X, y = load_digit_images(return_X_y=True)
X_train, X_rest, y_train, y_rest = train_test_split(
    X, y, train_size=200, stratify=y, random_state=0
)
X_val, X_test, y_val, y_test = train_test_split(
    X_rest, y_rest, train_size=300, stratify=y_rest, random_state=0
)
y_noisy = randomize_labels(y_train, 1 / 3, random_state=0)


def fit(seed, **params):
    net = RegularizedNetClassifier(
        AnimalNet,
        max_epochs=150,
        batch_size=-1,
        lr=2e-3,
        callbacks=[AccuracyTracker(on_train=True)],
        random_state=seed,
        **params,
    )
    return net.fit(X_train, y_noisy, X_val=X_val, y_val=y_val)


nets = {
    "to the end": [fit(seed) for seed in range(5)],
    "early stopping": [
        fit(seed, early_stopping=True, patience=20, monitor="valid_acc")
        for seed in range(5)
    ],
}

# %%
# The curves of both are the same until the second one ends. (Where the nets of some
# seeds have stopped, the mean is that of the others.)
LearningCurvesDisplay.from_estimator(nets)

# %%
# Weights grow as noise is learnt. Stopping keeps them small: it is a regulariser.
NormDisplay.from_estimator(nets)

# %%
# Images that took part in neither training nor stopping say what it is worth, with the
# standard error over the seeds:
for name, seeds in nets.items():
    scores = [net.score(X_test, y_test) for net in seeds]
    error = np.std(scores, ddof=1) / np.sqrt(len(scores))
    epochs = [len(net.history) for net in seeds]
    print(f"{name:15} test {np.mean(scores):.3f} +- {error:.3f}, epochs {epochs}")

# %%
# The best epochs, counted from 1:
tuple(net.best_epoch_ for net in nets["early stopping"])
