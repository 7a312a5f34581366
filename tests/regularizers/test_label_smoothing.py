"""Label smoothing: torch's own for classes, moved targets for 0/1 matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from same_nets import PATHS, assert_a_stack, assert_same, on_paths, tensors
from sklearn.datasets import load_iris
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.regularizers import LabelSmoothing, TrainingData

X, Y = load_iris(return_X_y=True)
LABELS = np.stack([Y == 0, X[:, 1] > 3.0], axis=1).astype(int)
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("class_weight", [None, {0: 1, 1: 2, 2: 3}])
def test_it_is_torchs_own_in_training_and_none_in_validation(path, class_weight):
    params = SMALL | {"class_weight": class_weight}
    with forced_path(path):
        ours = RegularizedNetClassifier(label_smoothing=0.3, **params)
        theirs = RegularizedNetClassifier(criterion__label_smoothing=0.3, **params)
        for net in (ours, theirs):
            net.fit(X, Y, X_val=X, y_val=Y)
            assert net.training_path_ == path
    assert_same([ours], [theirs], rtol=0)
    loss = nn.functional.cross_entropy(
        torch.from_numpy(ours.decision_function(X)), torch.from_numpy(Y)
    )
    if class_weight is None:
        assert ours.history[-1, "valid_loss"] == pytest.approx(float(loss))
    assert ours.history[-1, "valid_loss"] != theirs.history[-1, "valid_loss"]


@given(share=st.floats(0, 0.99), size=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_of_labels_the_loss_is_that_of_both_answers(share, size, seed):
    torch.manual_seed(seed)
    y = (torch.rand(5, 3) < 0.5).double()
    logits = (size * torch.randn(5, 3, dtype=torch.float64)).requires_grad_()
    member = LabelSmoothing(share)
    member.data_ = TrainingData("labels", 3, None)
    _, smooth = member.batch(logits, y)

    def loss(targets):
        value = binary_cross_entropy_with_logits(logits, targets)
        return value, *torch.autograd.grad(value, logits)

    # A share of s / 2 of the loss is that of the wrong answer.
    for mine, right, wrong in zip(loss(smooth), loss(y), loss(1 - y), strict=True):
        torch.testing.assert_close(mine, (1 - share / 2) * right + share / 2 * wrong)


class OfSmoothTargets(nn.BCEWithLogitsLoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets * 0.6 + 0.2)


def test_of_labels_every_path_trains_on_the_smooth_targets():
    expected = RegularizedNetClassifier(
        criterion=OfSmoothTargets, predict_nonlinearity=torch.sigmoid, **SMALL
    ).fit(X, LABELS)
    smoothing = RegularizedNetClassifier(label_smoothing=0.4, **SMALL)
    nets = on_paths(smoothing, X, LABELS, X_val=X, y_val=LABELS)
    assert_same(nets, [expected] * 3)
    outputs = torch.from_numpy(nets[0].decision_function(X))
    loss = binary_cross_entropy_with_logits(
        outputs, torch.from_numpy(LABELS.astype(float))
    )
    assert nets[0].history[-1, "valid_loss"] == pytest.approx(float(loss))


@pytest.mark.parametrize("y", [Y, LABELS], ids=["classes", "labels"])
def test_each_net_of_a_stack_has_its_own(y):
    nets = [
        RegularizedNetClassifier(label_smoothing=share, **SMALL)
        for share in (0.0, 0.1, 0.4, 0.9)
    ]
    found = assert_a_stack(nets, X, y, X_val=X, y_val=y)
    assert len({net.history[-1, "valid_loss"] for net in found}) == 4


def test_nets_of_a_stack_share_their_batches_whatever_their_smoothing_of_classes():
    of = {}
    for kind in ("classes", "labels"):
        member = LabelSmoothing(0.1)
        member.data_ = TrainingData(kind, 3, None)
        of[kind] = member.acts_in("batch")
    assert of == {"classes": False, "labels": True}


@pytest.mark.parametrize("y", [Y, LABELS], ids=["classes", "labels"])
def test_zero_is_absence_bit_for_bit(y):
    plain = RegularizedNetClassifier(**SMALL).fit(X, y)
    none = RegularizedNetClassifier(label_smoothing=0.0, **SMALL).fit(X, y)
    assert_same([none], [plain], rtol=0)
    some = RegularizedNetClassifier(label_smoothing=1e-3, **SMALL).fit(X, y)
    assert not torch.equal(tensors(some)[0], tensors(plain)[0])


def test_the_criterion_of_the_user_is_not_changed():
    criterion = nn.CrossEntropyLoss()
    net = RegularizedNetClassifier(
        criterion=criterion, label_smoothing=0.2, **SMALL
    ).fit(X, Y)
    assert criterion.label_smoothing == net.criterion_.label_smoothing == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"criterion__label_smoothing": 0.2},
            "label_smoothing=0.1 and criterion__label_smoothing=0.2 both smooth",
        ),
        (
            {"criterion": nn.CrossEntropyLoss(label_smoothing=0.2)},
            "set only one of them",
        ),
        (
            {"criterion": nn.MultiMarginLoss},
            "label_smoothing=0.1 cannot smooth the targets of "
            "criterion=MultiMarginLoss; use criterion=nn.CrossEntropyLoss",
        ),
        (
            {"criterion": nn.NLLLoss, "module": lambda: nn.Sequential(
                nn.Linear(4, 3), nn.LogSoftmax(dim=1)
            )},
            "criterion=NLLLoss",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_smoothed_is_an_error(path, params, message):
    net = RegularizedNetClassifier(label_smoothing=0.1, **SMALL | params)
    with forced_path(path), pytest.raises(ValueError, match=message):
        net.fit(X, Y)


def test_an_unknown_criterion_of_labels_is_an_error():
    net = RegularizedNetClassifier(
        criterion=nn.MultiLabelMarginLoss,
        predict_nonlinearity=torch.sigmoid,
        label_smoothing=0.1,
    )
    with pytest.raises(ValueError, match=r"MultiLabelMarginLoss; use .*BCEWithLogits"):
        net.fit(X, LABELS)


def test_numbers_are_an_error():
    net = RegularizedNetRegressor(label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"smooths classes, but y holds numbers"):
        net.fit(X, Y)


@pytest.mark.parametrize("share", [1.0, -0.1, "much", None, float("nan")])
def test_a_share_is_in_the_interval(share):
    net = RegularizedNetClassifier(label_smoothing=share)
    with pytest.raises(ValueError, match=r"label_smoothing=.*a number in \[0, 1\)"):
        net.fit(X, Y)
