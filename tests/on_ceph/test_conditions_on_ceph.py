"""See there."""

from tests.end_to_end.test_conditions import *  # noqa: F403
