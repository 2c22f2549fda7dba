"""List the commands: python -m jaxsnn"""

COMMANDS = {
    "optimize": "find layerwise thresholds that reach the accuracy in the fewest timesteps",
    "evaluate": "test a run's thresholds, or any others, on the test images",
    "train": "train an ANN that can be converted",
    "finetune": "train the spiking network itself, by backpropagation through time",
    "explain": "say what the thresholds follow: principal components, noise sensitivity",
    "attack": "accuracy under FGSM or PGD, crafted on the ANN or on the spiking network",
    "runs": "list runs, their state and their best result",
    "import_weights": "read and check a PyTorch network's weights",
    "import_nir": "read a spiking network from a NIR file",
    "export": "write a run's spiking network as NIR, as a PyTorch module or as integers",
    "export_weights": "write the ANN's weights as a PyTorch state_dict",
}


def main() -> None:
    """Print each command with what it does."""
    print("usage: python -m jaxsnn.COMMAND [OPTIONS]; --help after any of them lists its options\n")
    width = max(map(len, COMMANDS))
    for name, does in COMMANDS.items():
        print(f"  jaxsnn.{name:<{width}}  {does}")


if __name__ == "__main__":
    main()
