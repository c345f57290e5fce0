"""What can be scored beside the trained model: oracles, folders of estimates, PyTorch systems."""
