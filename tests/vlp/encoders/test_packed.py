"""Padding is left out and put back without a trace, in values and in gradients."""

import pytest
import torch
from torch import Tensor

from vlp.encoders._packed import MULTIPLE, PackedAttention, pack, unpack


@pytest.fixture(params=[1, 3])
def is_real(request: pytest.FixtureRequest) -> Tensor:
    """(B, 5), the first of each image real; of a single image, and of several."""
    return torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[
        : request.param
    ]


def test_what_is_packed_comes_back_with_zeros_for_padding(is_real: Tensor) -> None:
    tokens = torch.randn(len(is_real), 5, 4)
    packed = pack(tokens, is_real)
    assert packed.shape[1] % MULTIPLE == 0
    assert torch.equal(packed[0, : is_real.sum()], tokens[is_real])
    assert torch.equal(unpack(packed, is_real), torch.where(is_real[:, :, None], tokens, 0))


def test_gradients_are_those_of_indexing(is_real: Tensor) -> None:
    tokens = torch.randn(len(is_real), 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unpack(pack(x, is_real) ** 2, is_real), tokens)


def test_attention_is_that_of_the_padded_batch(is_real: Tensor) -> None:
    torch.manual_seed(0)
    attention, tokens = PackedAttention(8, num_heads=2, qkv_bias=True), torch.randn(len(is_real), 5, 8)
    mask = is_real[:, None, None]
    padded, packed = (tokens.clone().requires_grad_() for _ in range(2))
    expected = attention(padded, attn_mask=mask)[is_real]
    found = unpack(attention(pack(packed, is_real), attn_mask=mask), is_real)[is_real]
    torch.testing.assert_close(found, expected)
    for states in (expected, found):
        states.square().sum().backward()
    torch.testing.assert_close(packed.grad, padded.grad)
