"""The compiled loop of max pools (Numba): which of a layer's spikes pass (``jaxsnn.networks.senders``)."""

# Numba gives an intrinsic its first parameter (the typing context) itself, which pyright takes for missing:
# pyright: reportCallIssue=false

import numpy as np

from jaxsnn.simulation.events.kernels import compiled
from jaxsnn.simulation.events.vectors import lowest_bit


@compiled
def pass_spikes(bits, windows, counts, most, passed):
    """Set the ``passed`` bits of a max pool where a spike of ``bits`` raises the largest count of a window.

    ``windows`` (H * W, K) lists the outputs that read each position, then -1. ``counts`` (n, H * W, C), the spikes
    of each input so far, and ``most`` (n, H' * W', C), the largest count of each window, move on.
    """
    images, steps, height, columns, words = bits.shape
    positions, outputs, words = height * columns, most.shape[1], words // 2
    read, to = bits.reshape(-1).view(np.uint32), passed.reshape(-1).view(np.uint32)
    at = 0
    for i in range(images):
        for t in range(steps):
            for position in range(positions):
                for word in range(words):
                    left = read[at]
                    at += 1
                    while left:
                        bit = lowest_bit(left)
                        left &= left - np.uint32(1)
                        channel = word * 32 + np.int64(bit)
                        counts[i, position, channel] += 1
                        for k in range(windows.shape[1]):
                            output = windows[position, k]
                            if output < 0:
                                break
                            if counts[i, position, channel] > most[i, output, channel]:
                                most[i, output, channel] += 1
                                to[((i * steps + t) * outputs + output) * words + word] |= np.uint32(1) << bit
