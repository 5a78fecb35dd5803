"""Memory that bulk loops free is kept for their next round."""

import gc
import platform
import subprocess
import sys

import pytest

from proxy.heap import keep_freed_memory, loading

# What a worker does for each chunk: three buffers of a few hundred KiB, taken and freed together, in a thread.
ROUNDS = 300
LOOP = f"""
import resource, threading
def work():
    for _ in range({ROUNDS}):
        buffers = [bytearray(300_000) for _ in range(4)]
        del buffers
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
SETTING
before = faults()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults() - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")


def page_faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", LOOP.replace("SETTING", setting)], check=True, capture_output=True)
    return int(done.stdout)


@pytest.mark.slow
@glibc
def test_buffers_that_are_freed_and_taken_again_cost_no_page_faults() -> None:
    kept = page_faults("from proxy.heap import keep_freed_memory; assert keep_freed_memory()")
    assert kept < 10 * ROUNDS
    assert page_faults("") > 5 * kept, "without it, there is nothing to win here"


@glibc
def test_setting_it_twice_is_setting_it_once() -> None:
    assert keep_freed_memory()
    assert keep_freed_memory()


def test_what_was_imported_is_not_looked_at_for_garbage_and_what_is_made_later_is() -> None:
    try:
        with loading():
            assert not gc.isenabled()
            before = [platform]
        assert gc.isenabled()
        after = [platform]
        looked_at = {id(each) for each in gc.get_objects()}
        assert id(before) not in looked_at
        assert id(after) in looked_at
    finally:
        gc.unfreeze()


def test_garbage_is_collected_again_after_an_import_that_failed() -> None:
    try:
        with pytest.raises(ImportError), loading():
            raise ImportError("not there")
        assert gc.isenabled()
    finally:
        gc.unfreeze()
