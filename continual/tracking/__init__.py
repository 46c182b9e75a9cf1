"""What a run writes: its files, its Weights & Biases run and the progress on the terminal."""
