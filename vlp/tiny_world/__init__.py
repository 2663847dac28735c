"""A generated world of coloured shapes: pictures with captions whose truth is known."""

from vlp.tiny_world.corpus import TinyWorldConfig, write_corpus

__all__ = ["TinyWorldConfig", "write_corpus"]
