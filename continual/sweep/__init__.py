"""From Hydra jobs to populations, on this machine or on SLURM."""
