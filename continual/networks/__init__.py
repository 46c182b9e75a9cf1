"""Networks: nn.Modules whose forward returns (logits, features)."""
