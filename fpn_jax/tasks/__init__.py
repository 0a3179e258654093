"""What is learned: loss and metrics of predictions against a batch."""
