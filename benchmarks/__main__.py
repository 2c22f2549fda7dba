"""List the benchmarks: python -m benchmarks"""

BENCHMARKS = {
    "throughput": "simulated images x timesteps x candidates a second, ours and other simulators in turns",
    "gpu": "the simulator on a GPU: our kernels, XLA's own code, other simulators",
    "ahead": "accelerators that are not here: programs compiled for them, traffic, types, rooflines, collectives",
    "device_check": "one script for a real device: equality, rates, profile, a search, training; resumable",
    "machine": "what this machine can do at best: dot products, and additions in cache",
    "training": "images a second of a training step, ours and PyTorch's",
    "optimizers": "optimisers at equal evaluations, and what a generation of each engine costs",
    "optimizers_suite": "SciPy's own tests of differential_evolution with evo's function in its place",
    "optimizers_fuzz": "random configurations of evo.differential_evolution against SciPy's, bit for bit",
    "optimizers_fronts": "several costs at once, by hypervolume: evo's GDE3, pymoo's NSGA-II and pymoode's GDE3",
    "imports": "twelve PyTorch networks as modules, .pt2 archives and ONNX files: logits, search, exports",
    "improvement": "how many timesteps the default search saves, over several seeds",
    "few_timesteps": "conversions for few timesteps side by side: published methods, and ours piece by piece",
    "early_exit": "when images stop: rules judged on training images, the one that is chosen on test images",
    "frontier": "one search of a frontier beside sweeps of single searches, at equal image evaluations",
    "rivals": "the systems of the paper's tables, and newer ones, on one network: accuracy, energy, preparation",
    "attacks": "Table III: one network and its spiking rivals under FGSM and PGD, clean and adversarially trained",
    "reproduce": "the paper's CIFAR-10 result with a network of one's own: Table II and Fig. 3(a)",
    "bptt": "the search against backpropagation through time: the paper's Fig. 4 and Fig. 5",
    "kills": "kill runs at random moments, resume them, and compare with an uninterrupted one",
    "scaling": "one search on one device, on several, and in several processes: same result, and how fast",
    "round_trips": "exported networks in PyTorch, in NumPy and in the readers of NIR, against the simulator",
    "cloud_cost": "what a search with the paper's settings costs on one device",
    "image_folder": "a large folder of photographs: seconds and memory of listing, search, evaluation, training",
    "fuzz": "a million damaged files for everything that reads a file",
    "fuzz_coverage": "the same with files that a coverage-guided fuzzer finds",
    "mutants": "small faults in the program, one at a time: which of them the tests notice",
    "make_embedded": "make the embedded dataset from the official CIFAR-10 files (for maintainers)",
}


def main() -> None:
    """Print each benchmark with what it measures."""
    print("usage: python -m benchmarks.NAME [OPTIONS]; --help after any of them lists its options\n")
    width = max(map(len, BENCHMARKS))
    for name, does in BENCHMARKS.items():
        print(f"  benchmarks.{name:<{width}}  {does}")


if __name__ == "__main__":
    main()
