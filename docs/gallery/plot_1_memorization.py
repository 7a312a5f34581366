"""
Learning by heart
=================

A net with more weights than images can learn any labels by heart, also labels drawn at
random, of which nothing can be learnt. That is what "Understanding deep learning
requires rethinking generalization" by Zhang et al. (2017) shows on large nets; here a
small one does it with 100 digits.
"""

# %%
# Three sets of labels for the same training images: the true ones, the true ones but
# for a tenth that is drawn at random, and all drawn at random. The validation labels
# are true.
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images, randomize_labels
from skreg.displays import ImageGridDisplay, LearningCurvesDisplay, NormDisplay
from skreg.modules import BigAnimalNet

X, y = load_digit_images(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X, y, train_size=100, test_size=400, stratify=y, random_state=0
)
labels = {
    "true": y_train,
    "10 % random": randomize_labels(y_train, 0.1, random_state=0),
    "random": randomize_labels(y_train, 1.0, random_state=0),
}

# %%
# What the net sees when all labels are random:
titles = [f"labelled {label}" for label in labels["random"][:12]]
ImageGridDisplay(images=X_train[:12], titles=titles).plot()

# %%
# Three seeds for each. ``AccuracyTracker(on_train=True)`` writes the training accuracy
# into the history; the validation accuracy is there anyway.
nets = {
    name: [
        RegularizedNetClassifier(
            BigAnimalNet,
            max_epochs=150,
            batch_size=-1,
            callbacks=[AccuracyTracker(on_train=True)],
            random_state=seed,
        ).fit(X_train, target, X_val=X_val, y_val=y_val)
        for seed in range(3)
    ]
    for name, target in labels.items()
}
LearningCurvesDisplay.from_estimator(nets, show_best=False)

# %%
# Training accuracy (solid) says nothing about what has been learnt: look at the dashed
# lines. It takes larger weights to learn exceptions than to learn a rule:
NormDisplay.from_estimator(nets)

# %%
for name, seeds in nets.items():
    net = seeds[0]
    print(
        f"{name:12} train {net.history[-1, 'train_acc']:.2f}, "
        f"validation {net.history[-1, 'valid_acc']:.2f}, "
        f"norm {net.history[-1, 'param_norm']:.1f}"
    )
