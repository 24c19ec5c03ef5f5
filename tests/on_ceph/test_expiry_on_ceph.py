"""See there."""

from tests.end_to_end.test_expiry import *  # noqa: F403
