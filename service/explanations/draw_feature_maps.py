"""A layer's outputs for one image as a grid, drawn as kernels are."""

from service.drawing.canvas import drawing
from service.explanations.feature_maps import FeatureMaps
from service.kernels import tiles
from service.kernels.draw import draw_tiles, fitting_scale, gap_of, signed


def render_feature_maps(found: FeatureMaps, *, name: str, scaling: str = "layer", format: str = "png") -> bytes:  # noqa: A002
    """Draw a tile a map, from black (the lowest value) to white. `name` is the experiment's."""
    title = f"{name}, {found.predicted.name}, {found.layer}"
    grid = tiles.lay_out(found.maps[:, None], scaling)
    scale = fitting_scale(grid)
    gap = max(2, gap_of(grid, scale))
    with drawing():
        picture = tiles.mosaic(grid, scale, gap)
        return draw_tiles(picture, grid, _notes(found, grid, scaling), title, scale, gap).save(format, title=title)


def _notes(found: FeatureMaps, grid: tiles.Grid, scaling: str) -> list[str]:
    count, height, width = found.shape
    notes = [f"{count} map{'s' if count > 1 else ''} of {height} \u00d7 {width}."]
    if grid.minimum == grid.maximum:
        notes.append(f"All values are {signed(grid.minimum)}, drawn mid-grey.")
    elif scaling == "layer":
        notes.append(f"Scaled over the layer: black {signed(grid.minimum)}, white {signed(grid.maximum)}.")
    else:
        notes.append("Each map scaled by itself: black its lowest value, white its highest.")
    shown, *sides = found.maps.shape
    if shown < count:
        notes.append(f"Shown: the first {shown} maps of {count}.")
    if tuple(sides) != (height, width):
        notes.append(f"Drawn {sides[0]} \u00d7 {sides[1]}: each value is the mean of a block.")
    single_values = grid.minimum == grid.maximum or (height * width == 1 and scaling == "layer")
    if grid.num_constant and not single_values:
        is_are = "is" if grid.num_constant == 1 else "are"
        notes.append(f"{grid.num_constant} of {shown} maps {is_are} the same everywhere for this image.")
    return notes
