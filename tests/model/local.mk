# The models of a tunnel's life. make check holds them to the code; verify, which
# needs spin, is run by ./check.
TESTS += tests/model/test_map.py
EXTRA_DIST += tests/model/test_map.py tests/model/tunnel.pml tests/model/carried.pml \
	tests/model/verify
