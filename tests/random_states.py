"""The states of the global generators of random numbers."""

import random

import numpy as np
import torch


def global_states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        np.random.get_state()[2],  # noqa: NPY002
        random.getstate(),
    )
