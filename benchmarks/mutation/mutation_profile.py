"""A pytest plugin for mutation runs: a hypothesis profile with fewer examples, so that a survivor costs seconds."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutation",
    derandomize=True,
    database=None,
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
