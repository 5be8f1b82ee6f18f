"""What units read, one weight at a time: the twins of `measures.locality`."""


def radius_squared(row, channels, size):
    """Half of the mean squared distance between two different weights, weighted by both."""
    weights = [abs(float(w)) for w in row]
    places = [divmod(i % size**2, size) for i in range(channels * size**2)]
    above, below = 0.0, 0.0
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            if i != j:
                both = weights[i] * weights[j]
                above += both * ((y - v) ** 2 + (x - u) ** 2) / 2
                below += both
    return above / below


def window(position, after, size, stride):
    """The positions of the input that an output position of a 3 x 3 convolution reads."""
    y, x = divmod(position, after)
    return {
        (y * stride + i) * size + x * stride + j
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if 0 <= y * stride + i < size and 0 <= x * stride + j < size
    }


def best_inside(kept, places, size, stride):
    """For each unit [(excess, kept weights inside)] of all windows, numbered as positions are."""
    after, everywhere = (size - 1) // stride + 1, sum(sum(row) for row in kept)
    found = []
    for row in kept:
        windows = []
        for position in range(after**2):
            inside = [i for i in range(len(places))
                      if places[i] in window(position, after, size, stride)]  # fmt: skip
            counted = sum(row[i] for i in inside)
            readers = sum(other[i] for other in kept for i in inside)
            windows.append((counted - sum(row) * readers / everywhere, counted))
        found.append(windows)
    return found
