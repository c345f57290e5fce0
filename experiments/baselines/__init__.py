"""Systems to compare with the trained model: oracles, folders of estimates, PyTorch systems."""
