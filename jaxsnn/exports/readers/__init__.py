"""Programs that run an exported network.nir in other simulators; each is copied beside the file it is for."""
