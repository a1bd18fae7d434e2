"""What a trained model is good for: evaluation, prediction, report."""
