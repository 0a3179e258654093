"""Fast forms for a CPU, and the window mechanism of the pooling operations."""
