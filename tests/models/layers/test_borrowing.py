from __future__ import annotations

import paddle
from paddle import nn

from paddlemix.models.layers.borrowing import Borrowing


def test_a_borrowed_weight_is_used_and_trained_but_belongs_to_another_layer():
    lender = nn.Linear(3, 2, bias_attr=False)
    borrower = Borrowing(lender.weight)
    assert borrower.parameters() == [] and borrower.state_dict() == {}
    assert borrower.extra_parameters[0] is lender.weight
    borrower(paddle.matmul, paddle.ones([1, 3]), lender.weight).sum().backward()
    assert lender.weight.grad.tolist() == [[1, 1]] * 3
