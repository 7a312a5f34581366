"""A search of two processes, to be killed: checkpoint and file of scores are given."""

import sys

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skreg import RegularizedNetClassifier
from skreg.batching.checkpoint import running

if __name__ == "__main__":
    checkpoint, file = sys.argv[1:]
    running.SECONDS = 0.2
    X, y = load_digits(return_X_y=True)
    net = RegularizedNetClassifier(
        hidden_layer_sizes=16, max_epochs=60, dropout=0.1, random_state=0
    )
    grid = {"lambda2": np.logspace(-6, -2, 8), "lambda1": [0, 1e-4, 1e-3]}
    search = GridSearchCV(net, grid, cv=3, refit=False, scoring="neg_log_loss")
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    with joblib.parallel_config("skreg", n_jobs=2, checkpoint=checkpoint or None):
        search.fit((X / 16).astype(np.float32), y)
    np.save(file, [search.cv_results_[f"split{i}_test_score"] for i in range(3)])
