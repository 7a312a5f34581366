import torch

from skreg.objective import penalized_objective


def test_objective_is_loss_plus_penalty():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = (w * torch.tensor([3.0, 1.0])).sum()
    value, penalty = penalized_objective(loss, [w], lambda1=0.1, lambda2=0.01)
    torch.testing.assert_close(penalty, torch.tensor(0.1 * 3 + 0.01 * 5))
    assert not penalty.requires_grad
    value.backward()
    torch.testing.assert_close(w.grad, torch.tensor([3.0 + 0.1 + 0.02, 1 - 0.1 - 0.04]))


def test_zero_coefficients_leave_the_loss_itself():
    loss = torch.tensor(1.0, requires_grad=True)
    assert penalized_objective(loss, [torch.ones(2)], 0, 0.0).value is loss
    assert penalized_objective(loss, [], 1.0, 1.0).value is loss


def test_coefficients_that_are_tensors_are_always_used():
    """Their values would have to be fetched from the device to be looked at."""
    loss, zero = torch.tensor(1.0), torch.tensor(0.0)
    value, penalty = penalized_objective(loss, [torch.ones(2)], zero, zero)
    assert isinstance(penalty, torch.Tensor)
    assert value.item() == 1
