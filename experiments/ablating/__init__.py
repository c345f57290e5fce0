"""What an ablation needs besides training and scoring."""
