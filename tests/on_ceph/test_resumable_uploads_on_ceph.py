"""See there."""

from tests.end_to_end.test_resumable_uploads import *  # noqa: F403
