"""Norms of attacks, and lengths in them."""

import numpy as np

NORMS = ("linf", "l2")
FREE = (-np.inf, np.inf)


def flat_length(difference, norm):
    order = np.inf if norm == "linf" else 2
    return np.linalg.norm(difference.reshape(len(difference), -1), order, axis=1)
