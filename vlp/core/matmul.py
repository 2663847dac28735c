"""The ways of multiplying float32 matrices on a CPU, by name."""

from typing import Literal

Matmul = Literal["pytorch", "onednn"]
"""What multiplies in linear layers: PyTorch's own choice, which is MKL on a PC, or oneDNN. The products may
differ in their last bits."""
