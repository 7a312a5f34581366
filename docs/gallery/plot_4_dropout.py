"""
Dropout, on a line and on images
================================

Dropout takes part of the units of a net away, others at every step, so that none can
rely on all the others being there.
"""

# %%
# On a line
# ---------
#
# Ten noisy points, and a net of 150,000 weights that could run through all of them.
# ``PredictionEvolutionDisplay`` trains nets and keeps what they predict after every so
# many epochs.
import joblib
from sklearn.utils import resample

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.datasets import load_digit_images, make_noisy_line
from skreg.displays import (
    LearningCurvesDisplay,
    NormDisplay,
    PredictionEvolutionDisplay,
    ValidationCurveDisplay,
)
from skreg.modules import AnimalNetDropout, ToyNet, ToyNetDropout

X, y = make_noisy_line(10, noise=2.0, random_state=1)
nets = {
    name: RegularizedNetRegressor(
        module, lr=1e-3, max_epochs=400, batch_size=-1, random_state=0
    )
    for name, module in {"no dropout": ToyNet, "dropout": ToyNetDropout}.items()
}
display = PredictionEvolutionDisplay.from_estimator(
    nets, X, y, every=20, truth=lambda x: 2 * x, frames=[0, 4, 19]
)

# %%
# ``display.save("line.gif")`` or ``display.save("line.html")`` writes the animation.
#
# The distance from the line itself, on points without noise, tells which net has learnt
# more of it; the training loss, which dropout makes noisy, tells which has learnt more
# of the points. Both are in units of the standardised target.
line = make_noisy_line(100, noise=0.0)
for net in nets.values():
    net.fit(X, y, X_val=line[0], y_val=line[1])
LearningCurvesDisplay.from_estimator(
    nets, train="train_loss", valid="valid_loss", show_best=False
)

# %%
NormDisplay.from_estimator(nets)

# %%
# On images
# ---------
#
# ``dropout=`` sets the probability of every dropout layer, so that a search finds it
# like any other parameter. Under joblib's backend ``"skreg"`` all these fits are
# trained as one program.
X, y = resample(
    *load_digit_images(return_X_y=True), replace=False, n_samples=200, random_state=0
)
net = RegularizedNetClassifier(
    AnimalNetDropout, max_epochs=50, batch_size=-1, random_state=0
)
with joblib.parallel_config("skreg"):
    curve = ValidationCurveDisplay.from_estimator(
        net,
        X,
        y,
        param_name="dropout",
        param_range=[0, 0.2, 0.4, 0.6, 0.8, 0.9],
        cv=5,
    )

# %%
# The best probability and its accuracy. Neighbours whose bands overlap are as good.
curve.best_
