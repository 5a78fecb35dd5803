"""The process of ``ours.py``: loads and begins as the product's entry point does."""

from proxy.heap import keep_freed_memory, loading

if __name__ == "__main__":
    keep_freed_memory()
    with loading():
        from tests.bench.repository import ours
    ours.main()
