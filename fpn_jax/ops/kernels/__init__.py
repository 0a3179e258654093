"""Fast CPU implementations, padding, and the windows of the pooling operations."""
