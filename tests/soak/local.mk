# make soak: random lives of tunnels for SOAK_MINUTES, of SOAK_SEED if it is given;
# see soak.py. make check plays them for some seconds.
TESTS += tests/soak/soak.py
EXTRA_DIST += tests/soak/soak.py tests/soak/exposed.py tests/soak/life.py tests/soak/lives_expose.py \
	tests/soak/lives_ssh.py tests/soak/lives_tcp.py tests/soak/lives_webmux.py tests/soak/talks.py \
	tests/soak/tunnels_of_many.py

SOAK_MINUTES = 10
.PHONY: soak
soak: $(sbin_PROGRAMS) $(bin_PROGRAMS)
	$(AM_TESTS_ENVIRONMENT) SOAK_MINUTES='$(SOAK_MINUTES)' SOAK_SEED='$(SOAK_SEED)' \
		$(PYTHON3) $(srcdir)/tests/soak/soak.py
