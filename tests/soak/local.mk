# make soak: random lives of tunnels for SOAK_MINUTES, of SOAK_SEED if it is given;
# see soak.py. make check plays them for 20 seconds.
TESTS += tests/soak/soak.py
EXTRA_DIST += tests/soak/soak.py

SOAK_MINUTES = 10
.PHONY: soak
soak: $(sbin_PROGRAMS)
	$(AM_TESTS_ENVIRONMENT) SOAK_MINUTES='$(SOAK_MINUTES)' SOAK_SEED='$(SOAK_SEED)' \
		$(PYTHON3) $(srcdir)/tests/soak/soak.py
