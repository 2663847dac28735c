"""Square cells of several patches, which are hidden or seen as one."""

from torch import Tensor

from vlp.masking.strategy import grid_side


def cells_per_side(num_patches: int, cell_size: int) -> int:
    """Cells in a row of the image; a ValueError if they do not fill it."""
    side = grid_side(num_patches)
    if side % cell_size:
        raise ValueError(f"cell_size {cell_size} does not divide the {side} patches of a side")
    return side // cell_size


def mean_of_cells(scores: Tensor, cell_size: int) -> Tensor:
    """The mean score of each cell's patches: (B, N) -> (B, cells)."""
    side = cells_per_side(scores.shape[1], cell_size)
    return scores.reshape(-1, side, cell_size, side, cell_size).mean(dim=(2, 4)).flatten(1)


def patches_of_cells(cells: Tensor, cell_size: int) -> Tensor:
    """What holds of a cell, for each of its patches: (B, cells) -> (B, N)."""
    side = grid_side(cells.shape[1])
    rows = cells.reshape(-1, side, side).repeat_interleave(cell_size, dim=1)
    return rows.repeat_interleave(cell_size, dim=2).flatten(1)
