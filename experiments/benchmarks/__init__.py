"""What is measured: reading training data, training steps, separation; ours and others."""
