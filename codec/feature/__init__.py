"""The feature codec: sensitivity-shaped transform coding with closed-loop prediction."""
