"""Moved images, one pixel at a time, on the same draws as `views.shift`."""

import torch


def move(x, *, pixels, fill, generator):
    n_moves = 2 * pixels + 1
    tops, lefts = torch.randint(n_moves, (2, len(x)), generator=generator).tolist()
    out = torch.full_like(x, fill)
    n_images, n_channels, height, width = x.shape
    for i in range(n_images):
        down, right = pixels - tops[i], pixels - lefts[i]
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    for channel in range(n_channels):
                        out[i, channel, row + down, column + right] = x[i, channel, row, column]
    return out
