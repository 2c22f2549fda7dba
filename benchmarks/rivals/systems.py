"""All systems by name, with their sources and what was published of them."""

from benchmarks.few import ftbc, iteration, ltb, mmse, ours, percentile, snnc
from benchmarks.rivals import (
    adafire,
    binary,
    codes,
    da_qcfs,
    norms,
    qcfs,
    soft_lif,
    spike_norm,
    trained,
    ttfs,
    two_stage,
)
from benchmarks.rivals.system import Published, System

VGG15 = "VGG-15, CIFAR-10"
VGG16 = "VGG-16, CIFAR-10"
VGG16_100 = "VGG-16, CIFAR-100"
IMAGENET = "VGG-16, ImageNet"
POSTER = "read in FTBC's poster"
OTHERS = "read in QCFS's Table 1"

CONVERSIONS = (
    System(
        "max-norm",
        "max-norm",
        norms.max_norm,
        "Diehl et al., IJCNN 2015; Cao et al., IJCV 2015",
        "random input needs many steps, and is signed here",
        (Published("own network, CIFAR-10", None, 77.43, 400, "Cao et al."),),
        lucky=True,
    ),
    System(
        "robust",
        "99.9 of non-zero",
        norms.robust,
        "Rueckauer et al., Frontiers in Neuroscience 2017",
        "membranes begin empty",
        (Published("own network, CIFAR-10", None, 90.85, 400, "Rueckauer et al."),),
    ),
    System(
        "spike-norm",
        "spike-norm",
        spike_norm.normalised,
        "Sengupta et al., Frontiers in Neuroscience 2019",
        "random input needs many steps, and is signed here",
        (Published(VGG16, None, 91.55, 2500, "Sengupta et al."),),
        lucky=True,
    ),
    System(
        "rmp",
        "RMP",
        spike_norm.rmp,
        "Han et al., CVPR 2020",
        "their rule for alpha is not published",
        (Published(VGG16, 93.63, 60.30, 32, OTHERS), Published(VGG16, 93.63, 90.35, 64, OTHERS)),
        lucky=True,
    ),
    System(
        "percentile",
        "99.7 percentile",
        percentile.empty_start,
        "Lu and Sengupta, Frontiers in Neuroscience 2020",
        "",
        (Published(VGG15, None, 91.03, 91, "Lu and Sengupta 2020"),),
    ),
    System(
        "deng-gu",
        "Deng and Gu",
        norms.deng_gu,
        "Deng and Gu, ICLR 2021",
        "the common network was not trained with clipped ReLUs, so that its largest activation is far out",
        (Published(VGG16, 95.76, 64.52, 16, "SNNC's repository, without calibration"),),
    ),
    System(
        "half-full",
        "99.7, v0 = theta/2",
        percentile.half_full_start,
        "Bu et al., AAAI 2022",
        "whether their network was trained with clipped ReLUs is not known",
        (
            Published(VGG16, None, 93.38, 16, "another paper's table"),
            Published(IMAGENET, 74.85, 6.25, 8, POSTER),
            Published(IMAGENET, 74.85, 36.02, 16, POSTER),
        ),
    ),
    System(
        "snnc-light",
        "SNNC light",
        snnc.light,
        "Li et al., ICML 2021",
        "",
        (Published(VGG16, 95.76, 93.30, 16, "their repository"),),
        lucky=True,
    ),
    System(
        "snnc-advanced",
        "SNNC advanced",
        snnc.advanced,
        "Li et al., ICML 2021",
        "",
        (
            Published(VGG16, 95.76, 93.65, 16, "their repository"),
            Published(VGG16, 95.72, 93.71, 32, OTHERS),
        ),
        lucky=True,
    ),
    System(
        "iteration",
        "threshold iteration",
        iteration.per_channel,
        "Huang et al., ICML 2025",
        "their neurons have several thresholds of either sign; these are plain ones with their rule",
        (Published("ResNet-18, ImageNet", 71.49, 70.07, 4, "read in another paper's table"),),
    ),
    System("mmse-channel", "MMSE a channel", mmse.per_channel, "Li et al., ICML 2021"),
    System(
        "ltb",
        "LTB",
        ltb.balanced,
        "Bu et al., 2024",
        "thresholds that do not depend on T and tend to large values, and fewer batches",
        lucky=True,
    ),
    System(
        "ltb-delayed",
        "LTB, delayed",
        ltb.delayed,
        "Bu et al., 2024",
        "thresholds that do not depend on T and tend to large values, and fewer batches",
        (Published("ResNet-18, ImageNet", 69.76, 65.55, 32, "their Table 2"),),
        lucky=True,
    ),
    System(
        "da-qcfs",
        "DA-QCFS's folds",
        da_qcfs.folds,
        "Hao et al., ICML 2025",
        "their neurons see all inputs before they fire",
        lucky=True,
    ),
    System(
        "ftbc",
        "FTBC",
        ftbc.temporal,
        "Wu et al., ECCV 2024",
        "a smaller network on smaller images; theirs is the best of many rounds on test images",
        tuple(
            Published(IMAGENET, 75.36, snn, steps, "their poster")
            for steps, snn in ((4, 51.13), (8, 64.20), (16, 71.19))
        ),
        lucky=True,
    ),
)
"""No labels, no training."""

CODES = (
    System(
        "phase",
        "weighted phase",
        codes.phase,
        "Kim et al., Neurocomputing 2018",
        "eight steps are one period, which says each value once",
        (Published(VGG16, None, 91.2, 1500, "Park et al. 2019"),),
    ),
    System(
        "burst",
        "burst",
        codes.burst,
        "Park et al., DAC 2019",
        "constant input here, phases in theirs",
        (Published(VGG16, None, 91.4, 1125, "Park et al. 2019"),),
    ),
    System(
        "ttfs",
        "time to first spike",
        ttfs.first_spike,
        "Park et al., DAC 2020",
        "T is divided among the layers, one window after the other",
        (Published(VGG16, None, 91.40, 680, "Park et al. 2020"),),
    ),
    System("adafire", "AdaFire", adafire.searched, "Wang et al., AAAI 2025", lucky=True),
    System(
        "several",
        "five spikes a step",
        codes.several,
        "Li and Zeng, IJCAI 2022",
        "",
        (Published(IMAGENET, None, 71.41, 32, "another paper's table"),),
    ),
    System(
        "signed",
        "signed spikes",
        codes.signed,
        "Wang et al., IJCAI 2022",
        "",
        (Published(VGG16, 94.09, 93.43, 32, "their repository"),),
    ),
)
"""Converted, other neurons."""

FEW_EPOCHS = "a few epochs from the common network; hundreds in theirs"
TRAINED = (
    System(
        "hybrid",
        "hybrid",
        trained.hybrid,
        "Rathi et al., ICLR 2020",
        FEW_EPOCHS + ", at 32 steps of random input (theirs: 200)",
        (Published(VGG16, None, 92.02, 200, "Rathi et al."),),
        trained=True,
        lucky=True,
    ),
    System(
        "diet",
        "DIET-SNN",
        trained.diet,
        "Rathi and Roy, 2020",
        FEW_EPOCHS,
        (Published(IMAGENET, None, 69.0, 5, "their abstract"),),
        trained=True,
        lucky=True,
    ),
    System(
        "lee",
        "direct backpropagation",
        trained.lee,
        "Lee et al., Frontiers in Neuroscience 2020",
        FEW_EPOCHS + ", at 32 steps of random input (theirs: 100, from scratch)",
        (Published("own network, CIFAR-10", None, 90.45, 100, "Lee et al."),),
        trained=True,
        lucky=True,
    ),
    System(
        "plif",
        "PLIF",
        trained.plif,
        "Fang et al., ICCV 2021",
        FEW_EPOCHS + ", of a network of their own",
        (Published("own network, CIFAR-10", None, 92.58, 8, "their paper, chosen on validation images"),),
        trained=True,
        lucky=True,
    ),
    System(
        "soft-lif",
        "soft LIF",
        soft_lif.soft_lif,
        "Hunsberger and Eliasmith, 2016",
        FEW_EPOCHS,
        (Published("own network, CIFAR-10", None, 82.95, 6000, "Hunsberger and Eliasmith"),),
        trained=True,
        lucky=True,
    ),
    System("bptt", "BPTT, weights", trained.bptt, "Lu and Sengupta 2022, Fig. 4", trained=True, lucky=True),
    System(
        "binary", "binary weights", binary.binary, "Lu and Sengupta, 2020", FEW_EPOCHS, trained=True, lucky=True
    ),
    System(
        "qcfs",
        "QCFS",
        qcfs.qcfs,
        "Bu et al., ICLR 2022",
        FEW_EPOCHS,
        tuple(
            Published(VGG16, 95.52, snn, steps, "their Table 1")
            for steps, snn in ((4, 93.96), (8, 94.95), (16, 95.40), (32, 95.54))
        ),
        trained=True,
        lucky=True,
    ),
    System(
        "srp",
        "SRP",
        two_stage.srp,
        "Hao et al., AAAI 2023",
        FEW_EPOCHS,
        tuple(Published(VGG16_100, 76.28, snn, t, "their repository") for t, snn in ((4, 75.42), (8, 76.25))),
        trained=True,
        lucky=True,
    ),
    System(
        "cos",
        "COS",
        two_stage.cos,
        "Hao et al., ICLR 2023",
        FEW_EPOCHS,
        tuple(Published(VGG16_100, 76.28, snn, t, "their repository") for t, snn in ((4, 76.26), (8, 76.52))),
        trained=True,
        lucky=True,
    ),
)
"""Labels and gradient descent."""

OURS = (
    System("ours", "ours, calibrated", ours.calibrated, "this package, without labels", lucky=True),
    *(
        System(name, f"ours, {most} spikes a step", prepare, "this package, without labels", lucky=True)
        for most, (name, prepare) in zip(ours.SPIKES, ours.bursts().items())
    ),
    System(
        "ours-distilled",
        "ours, distilled",
        ours.distillations()["ours-distilled-weights"],
        "this package, without labels; --distillation steps",
        lucky=True,
    ),
)

SYSTEMS = {system.name: system for system in (*CONVERSIONS, *CODES, *TRAINED, *OURS)}
