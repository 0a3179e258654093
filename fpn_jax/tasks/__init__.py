"""Tasks: each defines losses, metrics, and how to decode predictions."""

from fpn_jax.registry import Registry
from fpn_jax.tasks.base import Task
from fpn_jax.tasks.classification import Classification

TASKS = {"classification": Classification}
"""Name → constructor."""

REGISTRY = Registry("task", TASKS, base=Task)
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
