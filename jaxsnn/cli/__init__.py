"""What the commands share: the main function, signals, progress, options, checks, and their inputs."""
