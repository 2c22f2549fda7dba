"""Results that the paper reports, to stand beside ours."""

HEADINGS = ("dataset", "reference", "attack", "method", "architecture", "ANN %", "SNN %", "timesteps")


PAPER = (
    ("CIFAR-10", "Sharmin et al., 2020", "FGSM", "backpropagation", "ResNet20", 1.8, 3.8, 200),
    ("CIFAR-10", "Sharmin et al., 2020", "FGSM", "backpropagation", "VGG5", 10.4, 15.0, 100),
    ("CIFAR-10", "Sharmin et al., 2019", "FGSM", "backpropagation", "VGG9", 61.7, 51.6, 70),
    ("CIFAR-10", "Lu and Sengupta, 2020", "FGSM", "99.7 percentile", "VGG15", 67.42, 67.40, 74),
    ("CIFAR-10", "the paper", "FGSM", "optimised", "VGG15", 67.42, 68.9, 42),
    ("CIFAR-100", "Sharmin et al., 2020", "FGSM", "backpropagation", "VGG11", 17.1, 15.5, 200),
    ("CIFAR-100", "Lu and Sengupta, 2020", "FGSM", "99.7 percentile", "VGG15", 30.54, 31.11, 61),
    ("CIFAR-100", "the paper", "FGSM", "optimised", "VGG15", 30.54, 33.1, 44),
)
"""Table III, epsilon 8/255."""
