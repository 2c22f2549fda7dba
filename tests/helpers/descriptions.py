"""A network description in JSON, and the file of weights that it describes."""

from helpers.networks import PLAIN

SHAPE = (8, 8, 2)


DESCRIPTION = {
    "name": "mine",
    "input_shape": SHAPE,
    "classes": 3,
    "mean": PLAIN["mean"],
    "std": PLAIN["std"],
    "layers": [
        {
            "name": "a",
            "edges": [
                {
                    "source": -1,
                    "ops": [
                        {"op": "Conv", "name": "a", "features": 4, "bias": True},
                        {"op": "BatchNorm", "name": "a_norm", "epsilon": 1e-3},
                    ],
                }
            ],
        },
        {
            "name": "b",
            "edges": [
                {
                    "source": 0,
                    "ops": [
                        {"op": "AvgPool"},
                        {"op": "Conv", "name": "b", "features": 6, "bias": True},
                        {"op": "AvgPool", "window": 2},
                        {"op": "BatchNorm", "name": "b_norm"},
                    ],
                }
            ],
        },
        {
            "name": "c",
            "edges": [
                {
                    "source": 1,
                    "ops": [
                        {"op": "Dense", "name": "c", "features": 5},
                        {"op": "BatchNorm", "name": "c_norm", "epsilon": 0.1},
                    ],
                }
            ],
        },
        {
            "name": "d",
            "edges": [{"source": 2, "ops": [{"op": "Dense", "name": "d", "features": 3, "bias": True}]}],
        },
    ],
}
