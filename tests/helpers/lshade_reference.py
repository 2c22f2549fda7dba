"""L-SHADE as its paper tells it, one member and one coordinate at a time.

Independent of `evo.engines.lshade` but for the random numbers: it draws the same blocks in the same order from the
same generator, so that both can be compared exactly. Works in the unit cube; a closed memory cell is None.
"""

import numpy as np


def lehmer(gains, values):
    total = sum(gains)
    top = sum(g / total * v * v for g, v in zip(gains, values, strict=True))
    bottom = sum(g / total * v for g, v in zip(gains, values, strict=True))
    return top / bottom


class Reference:
    def __init__(self, members, objective, evaluations, memory=6, archive_rate=2.6, p=0.11):
        self.members = [list(row) for row in members]
        self.costs = [objective(np.array(row)) for row in self.members]
        self.objective, self.evaluations = objective, evaluations
        self.initial, self.used = len(members), len(members)
        self.m_f, self.m_cr, self.k = [0.5] * memory, [0.5] * memory, 0
        self.archive, self.archive_rate, self.p = [], archive_rate, p

    def parameters(self, rng):
        count = len(self.members)
        cells = rng.integers(len(self.m_f), size=count)
        normals = rng.normal([self.m_cr[c] or 0.0 for c in cells], 0.1)
        rates = [
            0.0 if self.m_cr[c] is None else min(1.0, max(0.0, value))
            for c, value in zip(cells, normals, strict=True)
        ]
        weights = [0.0] * count
        while any(w <= 0 for w in weights):
            missing = [i for i in range(count) if weights[i] <= 0]
            for i, value in zip(missing, rng.standard_cauchy(len(missing)), strict=True):
                weights[i] = self.m_f[cells[i]] + 0.1 * value
        return [min(1.0, w) for w in weights], rates

    def trials(self, rng, weights, rates):
        count, dimension = len(self.members), len(self.members[0])
        order = sorted(range(count), key=lambda i: self.costs[i])
        elite = order[: max(2, round(self.p * count))]
        chosen = [elite[i] for i in rng.integers(len(elite), size=count)]
        pool = self.members + self.archive
        left = [[j for j in range(count) if j != i] for i in range(count)]
        first = [left[i][j] for i, j in enumerate(rng.integers(count - 1, size=count))]
        left = [[j for j in range(len(pool)) if j not in (i, first[i])] for i in range(count)]
        second = [left[i][j] for i, j in enumerate(rng.integers(len(pool) - 2, size=count))]
        always = rng.integers(dimension, size=count)
        chance = rng.uniform(size=(count, dimension))
        trials = []
        for i, x in enumerate(self.members):
            trial = list(x)
            for j in range(dimension):
                if chance[i, j] < rates[i] or j == always[i]:
                    pull = weights[i] * (self.members[chosen[i]][j] - x[j])
                    v = x[j] + pull + weights[i] * (self.members[first[i]][j] - pool[second[i]][j])
                    if v < 0:
                        v = (0 + x[j]) / 2
                    if v > 1:
                        v = (1 + x[j]) / 2
                    trial[j] = v
            trials.append(trial)
        return trials

    def generation(self, ask_rng, tell_rng):
        weights, rates = self.parameters(ask_rng)
        trials = self.trials(ask_rng, weights, rates)
        s_f, s_cr, gains = [], [], []
        for i, trial in enumerate(trials):
            cost = self.objective(np.array(trial))
            self.used += 1
            if cost < self.costs[i]:
                self.archive.append(self.members[i])
                s_f.append(weights[i])
                s_cr.append(rates[i])
                gains.append(self.costs[i] - cost)
            if cost <= self.costs[i]:
                self.members[i], self.costs[i] = trial, cost
        if gains:
            closed = self.m_cr[self.k] is None or max(s_cr) == 0
            self.m_cr[self.k] = None if closed else lehmer(gains, s_cr)
            self.m_f[self.k] = lehmer(gains, s_f)
            self.k = (self.k + 1) % len(self.m_f)
        target = round((4 - self.initial) / self.evaluations * self.used + self.initial)
        while len(self.members) > max(4, target):
            worst = max(range(len(self.members)), key=lambda i: (self.costs[i], i))
            del self.members[worst], self.costs[worst]
        room = round(self.archive_rate * len(self.members))
        if len(self.archive) > room:
            kept = sorted(tell_rng.permutation(len(self.archive))[:room])
            self.archive = [self.archive[i] for i in kept]
