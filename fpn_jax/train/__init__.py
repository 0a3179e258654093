"""Training: knows a model as `apply` and a task as `loss` and `metrics`."""
