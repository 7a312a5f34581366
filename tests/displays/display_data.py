"""Histories to draw, and what is read off a figure."""

import numpy as np
import torch
from skorch.history import History

from skreg.displays import HeatMapDisplay, ValidationCurveDisplay

N_SEEDS, N_EPOCHS = 3, 40
PARAMETERS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def make_history(rng, n_epochs, scale=1.0):
    history = History()
    for _ in range(n_epochs):
        history.new_epoch()
        history.new_batch()
        history.record_batch("train_loss", 1.0)
        history.record("epoch", len(history))
        for key in ("train_acc", "valid_acc", "train_loss", "valid_loss", "param_norm"):
            history.record(key, scale * rng.random())
        history.record("param_norms", {p: scale * rng.random() for p in PARAMETERS})
    return history


def band_limits(band, n_epochs):
    """Return the lower and upper edge of a fill_between over epochs 1, 2, ..."""
    points = band.get_paths()[0].vertices
    edges = [points[points[:, 0] == epoch, 1] for epoch in range(1, n_epochs + 1)]
    return np.array([e.min() for e in edges]), np.array([e.max() for e in edges])


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts() if text.get_text()]


def assert_texts_are_legible(figure):
    figure.canvas.draw()
    for ax in figure.axes:
        legend = ax.get_legend()
        texts = [ax.xaxis.label, ax.yaxis.label, ax.title, *ax.texts]
        texts += ax.get_xticklabels() + ax.get_yticklabels()
        texts += legend.get_texts() if legend else []
        assert all(t.get_fontsize() >= 9 for t in texts if t.get_text())


def make_heat_map(**params):
    params = {
        "scores": [[0.1, 0.2, np.nan], [0.3, 0.9, 0.4]],
        "row_name": "lambda1",
        "row_values": [0, 1e-3],
        "column_name": "optimizer",
        "column_values": [torch.optim.SGD, None, "adam"],
        **params,
    }
    return HeatMapDisplay(**params)


def make_validation_curve(rng, values=(0, 1e-4, 1e-3, 1e-2), **params):
    shape = len(values), 5
    scores = {"train_scores": rng.random(shape), "test_scores": rng.random(shape)}
    params = {"param_name": "lambda2", "param_range": values, **scores, **params}
    return ValidationCurveDisplay(**params)
