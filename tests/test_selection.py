"""Tools that choose the settings of a net."""

import numpy as np
import pytest

from skreg.datasets import load_digit_images
from skreg.modules import AnimalNet
from skreg.selection import lr_range_test
from skreg.selection._lr_range_test import suggest
from skreg.studies.common import fitting
from skreg.studies.common.sampling import draw_sample


def test_the_suggestion_is_a_tenth_of_where_the_loss_is_smallest():
    rates = np.geomspace(1e-5, 1, 101)
    losses = 2 + np.abs(np.log10(rates) + 1)  # smallest at 0.1
    assert suggest(rates, losses) == pytest.approx(0.01)
    assert suggest(rates, np.linspace(1, 2, 101)) is None
    assert suggest(rates, 1 + 1e-3 * np.sin(rates)) is None


def test_a_range_test_raises_the_rate_from_step_to_step():
    digits = load_digit_images()
    net = fitting.image_net(
        AnimalNet, digits, lr=1, epochs=1, device="cpu", momentum=0.9, batch_size=50
    ).set_params(random_state=0)
    X, y = draw_sample(digits, 200, 10, 0)[:2]
    test = lr_range_test(net, X, y, low=1e-4, high=10, n_steps=60)
    assert not hasattr(net, "module_")
    np.testing.assert_allclose(
        test.rates, np.geomspace(1e-4, 10, 60)[: len(test.rates)]
    )
    assert len(test.losses) == len(test.rates) < 60  # it ended where the loss blew up
    assert test.losses[0] == pytest.approx(np.log(10), rel=0.1)
    assert 0.003 < test.suggestion < 0.1
