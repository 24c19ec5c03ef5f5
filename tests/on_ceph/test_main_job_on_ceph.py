"""The main job, with files of half a GiB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB, roger  # noqa: F401
from tests.end_to_end.test_main_job import (  # noqa: F401
    test_4_gib_go_in_and_out_identical_in_one_thread_and_flat_memory,
    test_a_chunked_upload_without_a_length_is_stored_whole,
    test_a_right_digest_is_accepted_and_reported,
    test_a_wrong_digest_is_400_and_the_old_file_stays,
    test_both_generations_of_raw_urls_mean_the_same_file,
    test_davix_puts_and_gets_with_the_proxy,
    test_head_tells_the_true_length_of_an_image,
    test_no_client_fault_above_left_a_traceback_in_the_log,
    test_other_digests_follow_the_upload_by_themselves,
    test_qemu_reads_a_public_image_through_its_curl_driver,
    test_ranges_and_conditions,
    test_sigterm_lets_running_transfers_end,
)


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What no compression and no hole makes smaller."""
    path = tmp_path_factory.mktemp("big") / "image.raw"
    with path.open("wb") as file:
        for _ in range(8):
            file.write(os.urandom(64 * MIB))
    yield path
    path.unlink()
