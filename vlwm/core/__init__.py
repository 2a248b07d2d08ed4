"""The library under the commands; imports go one way, tests/test_architecture.py holds them."""
