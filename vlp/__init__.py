"""Vision-language pre-training in plain PyTorch.

Shapes in docstrings and comments use one legend:

    B  images in the batch          P  numbers in one patch (patch_size**2 * 3)
    N  patches per image            D  encoder width
    V  visible slots per image      E  shared embedding width
    T  text tokens per caption      K  classes (the vocabulary, for SuperClass)
"""
