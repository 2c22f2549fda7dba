"""An independent simulator: float64 NumPy loops straight from eq. 1-2, no code of the package's arithmetic."""

import numpy as np

from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, MaxPool


def apply_edge(ops, params, x, bias):
    """One edge on (B, ...) float64, with or without its biases."""
    for op in ops:
        if isinstance(op, Conv):
            x = convolution(op, np.asarray(params[f"{op.name}.kernel"], np.float64), x)
        elif isinstance(op, Dense):
            x = x.reshape(len(x), -1) @ np.asarray(params[f"{op.name}.kernel"], np.float64)
        elif isinstance(op, AvgPool):
            x = average(op, x)
        elif isinstance(op, MaxPool):
            x = maximum(op, x)
        if bias and getattr(op, "bias", False):
            x = x + np.asarray(params[f"{op.name}.bias"], np.float64)
    return x


def two(value):
    return value if isinstance(value, tuple) else (value, value)


def convolution(op, kernel, x):
    (kh, kw), (sh, sw), (dh, dw) = two(op.kernel), two(op.stride), two(op.dilation)
    pads = ((kh // 2,) * 2, (kw // 2,) * 2) if op.padding is None else op.padding
    padded = np.pad(x, ((0, 0), *(pads if isinstance(pads, tuple) else ((pads, pads),) * 2), (0, 0)))
    height = (padded.shape[1] - dh * (kh - 1) - 1) // sh + 1
    width = (padded.shape[2] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((len(x), height, width, op.features))
    inputs, outputs = x.shape[3] // op.groups, op.features // op.groups
    for i in range(height):
        for j in range(width):
            seen = padded[:, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw]
            for g in range(op.groups):
                out = slice(g * outputs, (g + 1) * outputs)
                y[:, i, j, out] = np.tensordot(seen[..., g * inputs : (g + 1) * inputs], kernel[..., out], 3)
    return y


def average(op, x):
    (wh, ww), (sh, sw) = two(op.window), two(op.window if op.stride is None else op.stride)
    pads = op.padding if isinstance(op.padding, tuple) else ((op.padding, op.padding),) * 2
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    inside = np.pad(np.ones(x.shape[1:3]), pads)
    height, width = (padded.shape[1] - wh) // sh + 1, (padded.shape[2] - ww) // sw + 1
    y = np.zeros((len(x), height, width, x.shape[3]))
    for i in range(height):
        for j in range(width):
            here = slice(i * sh, i * sh + wh), slice(j * sw, j * sw + ww)
            count = wh * ww if op.count_padding else inside[here].sum()
            y[:, i, j] = padded[:, *here].sum((1, 2)) / count
    return y


def windows(op, sides):
    """Rows and columns of the input that each output of a max pool reads, as lists of lists of pairs."""
    (wh, ww), (sh, sw) = two(op.window), two(op.window if op.stride is None else op.stride)
    (top, bottom), (left, right) = op.padding if isinstance(op.padding, tuple) else ((op.padding, op.padding),) * 2
    rows = [range(i - top, i - top + wh) for i in range(0, sides[0] + top + bottom - wh + 1, sh)]
    columns = [range(j - left, j - left + ww) for j in range(0, sides[1] + left + right - ww + 1, sw)]
    return [
        [[(y, x) for y in high if 0 <= y < sides[0] for x in wide if 0 <= x < sides[1]] for wide in columns]
        for high in rows
    ]


def maximum(op, x):
    every = windows(op, x.shape[1:3])
    return np.stack([np.stack([np.max([x[:, y, z] for y, z in w], 0) for w in row], 1) for row in every], 1)


class Gates:
    """Spiking max pools of one edge: the input with most spikes leads and passes its own until it is overtaken."""

    def __init__(self, op, sides):
        self.every = windows(op, sides)
        self.counts, self.leaders = None, {}

    def passed(self, spikes):
        self.counts = spikes if self.counts is None else self.counts + spikes
        out = np.zeros((len(spikes), len(self.every), len(self.every[0]), spikes.shape[3]))
        for b, i, j, c in np.ndindex(out.shape):
            leader = self.leaders.get((b, i, j, c), self.every[i][j][0])
            for place in self.every[i][j]:
                if self.counts[b, *place, c] > self.counts[b, *leader, c]:
                    leader = place
            self.leaders[b, i, j, c] = leader
            out[b, i, j, c] = spikes[b, *leader, c]
        return out


def normalise(network, images):
    return (images / 255.0 - np.array(network.mean)) / np.array(network.std)


def simulate(snn, theta, images, timesteps, comparison=">", delay="layer", v0=None, leak=None, x=None):
    """Membranes V[t + 1] and spikes s[t] of each layer, (T, B, ...), and scores (T, B, classes), t = 0 .. T - 1.

    delay="layer": eq. 1-2, V[t+1] = V[t] + I[t] - theta s[t] with s[t] = (V[t] > theta) of the old membrane and
    I[t] from the spikes s[t] of the layer before. A layer does nothing before its first input step; an edge that
    skips layers is delayed until the longer path arrives. delay="none": the spike is read from the membrane that
    has just received its drive, and V is given after the reset.
    """
    network, params = snn.network, snn.params
    x = normalise(network, images) if x is None else x
    layers = len(network.spiking)
    v0 = np.zeros(layers) if v0 is None else v0
    leak = np.ones(layers) if leak is None else leak
    fires = np.greater if comparison == ">" else np.greater_equal
    depths = network.depths
    silent = [np.zeros((len(x), *shape)) for shape in _shapes(network, params, x)]
    membranes = [np.full(z.shape, v0[l] * theta[l]) for l, z in enumerate(silent[:-1])]
    scores = np.zeros((len(x), network.classes))
    history = [[] for _ in range(layers)]
    trace_v, trace_scores = [[] for _ in range(layers)], []
    gates = {
        (l, edge): Gates(edge.ops[0], silent[edge.source].shape[1:3])
        for l, layer in enumerate(network.layers)
        for edge in layer.edges
        if edge.ops and isinstance(edge.ops[0], MaxPool)
    }
    for t in range(timesteps):
        if delay == "layer":
            for l in range(layers):
                history[l].append(fires(membranes[l], theta[l]))
        for l, layer in enumerate(network.layers):
            if delay == "layer" and t < depths[l] - (l < layers):
                if l < layers:
                    trace_v[l].append(membranes[l].copy())
                continue
            drive = 0
            for edge in layer.edges:
                if edge.source == IMAGE:
                    drive = drive + apply_edge(edge.ops, params, x, bias=True)
                    continue
                wait = depths[l] - (l < layers) - depths[edge.source] if delay == "layer" else 0
                spikes, ops = history[edge.source][t - wait].astype(np.float64), edge.ops
                if (l, edge) in gates:
                    spikes, ops = gates[l, edge].passed(spikes), ops[1:]
                drive = drive + theta[edge.source] * apply_edge(ops, params, spikes, bias=False)
                drive = drive + apply_edge(ops, params, np.zeros_like(spikes[:1]), bias=True)
            if l == layers:
                scores = scores + drive
            elif delay == "layer":
                membranes[l] = leak[l] * (membranes[l] - theta[l] * history[l][t]) + drive
                trace_v[l].append(membranes[l].copy())
            else:
                membranes[l] = leak[l] * membranes[l] + drive
                history[l].append(fires(membranes[l], theta[l]))
                membranes[l] = membranes[l] - theta[l] * history[l][t]
                trace_v[l].append(membranes[l].copy())
        trace_scores.append(scores.copy())
    return [np.array(v) for v in trace_v], [np.array(s) for s in history], np.array(trace_scores)


def _shapes(network, params, x):
    outputs = []
    for layer in network.layers:
        edge = layer.edges[0]
        source = x if edge.source == IMAGE else outputs[edge.source]
        outputs.append(apply_edge(edge.ops, params, source, bias=False))
    return [z.shape[1:] for z in outputs]
