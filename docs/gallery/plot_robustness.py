"""
Accuracy under attack
=====================

The fast gradient sign method moves each pixel by eps where it raises the loss. A net
that is trained on such images withstands them better.
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skreg import RegularizedNetClassifier
from skreg.displays import RobustnessDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

nets = {
    name: RegularizedNetClassifier(
        max_epochs=20, adversarial_eps=eps, random_state=0
    ).fit(X_train, y_train)
    for name, eps in {"plain": 0.0, "trained at 0.1": 0.1}.items()
}
RobustnessDisplay.from_estimator(nets, X_test, y_test, eps=[0, 0.05, 0.1, 0.15, 0.2])
