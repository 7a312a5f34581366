"""
Augmentation
============

Images that are shifted, rotated or flipped a little are new images at no cost, provided
that they still show what the label says. A mirrored cat is a cat; a mirrored 3 is no 3.
"""

# %%
# ``augment=`` changes each training batch, every image by random numbers of its own,
# and leaves alone what is validated, scored or predicted.
import numpy as np
import torch
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.datasets import load_digit_images
from skreg.displays import ImageGridDisplay, LearningCurvesDisplay, NormDisplay
from skreg.modules import AnimalNet
from skreg.transforms import RandomFlip, RandomRotation, RandomShift

X, y = load_digit_images(size=16, return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X, y, train_size=100, test_size=400, stratify=y, random_state=0
)
augmentations = {
    "none": torch.nn.Identity(),
    "flips": RandomFlip(0.1, 0.1),
    "shifts, rotations": torch.nn.Sequential(RandomShift(1), RandomRotation(15)),
}

# %%
# The same eight digits under each of them:
generator_state = torch.random.get_rng_state()
torch.manual_seed(0)
batch = torch.from_numpy(X_train[:8])
images = torch.cat([augment(batch) for augment in augmentations.values()])
torch.random.set_rng_state(generator_state)
labels = [name for name in augmentations for _ in range(8)]
ImageGridDisplay(images=images.numpy(), labels=labels).plot(n_columns=8)

# %%
# Trained with each, three seeds, and validated on images as they are:
nets = {
    name: [
        RegularizedNetClassifier(
            AnimalNet,
            augment=augment,
            max_epochs=150,
            batch_size=-1,
            lr=3e-3,
            callbacks=[AccuracyTracker(on_train=True)],
            random_state=seed,
        ).fit(X_train, y_train, X_val=X_val, y_val=y_val)
        for seed in range(3)
    ]
    for name, augment in augmentations.items()
}
LearningCurvesDisplay.from_estimator(nets)

# %%
# The norm of the weights, against the expectation that whatever regularises makes it
# smaller:
NormDisplay.from_estimator(nets)

# %%
for name, seeds in nets.items():
    scores = [net.score(X_val, y_val) for net in seeds]
    error = np.std(scores, ddof=1) / np.sqrt(len(scores))
    print(f"{name:18} {np.mean(scores):.3f} +- {error:.3f}")
