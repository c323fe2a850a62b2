"""common: finds the package and the harness of the end-to-end tests."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE_FOLDER = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tests", "e2e"))
sys.path.insert(0, PACKAGE_FOLDER)
