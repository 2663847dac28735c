"""Tensors copied to this machine's memory, to be written from there while training changes the originals."""

from copy import copy
from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """Memory for one copy of a tree of tensors, which is used again by the next copy of it.

    Memory that is new for every copy would cost more than the copying: the system clears each of its pages,
    and a GPU writes at full speed only into pages that are pinned.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    @torch.no_grad()
    def take(self, tree: Any) -> Any:
        """The same dicts and lists with copies of all tensors; the copies taken before become these."""
        copied = self._copied(tree, ())
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # copies into pinned memory are still on their way
        return copied

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._buffer(value, place).copy_(value, non_blocking=True)
        if isinstance(value, dict):
            other = copy(value)  # keeps what a module notes beside its entries
            other.update((key, self._copied(part, (*place, key))) for key, part in value.items())
            return other
        if isinstance(value, list):
            return [self._copied(part, (*place, index)) for index, part in enumerate(value)]
        return value

    def _buffer(self, value: Tensor, place: tuple[Any, ...]) -> Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._buffers[place] = buffer
        return buffer
