# make bench: the daemon against other relays; see bench.py. Not built by make,
# nor run by make check.
bench_programs = \
	tests/bench/bulk \
	tests/bench/crowd \
	tests/bench/cycles \
	tests/bench/delay \
	tests/bench/endpoints \
	tests/bench/pingpong \
	tests/bench/plain_relay \
	tests/bench/streams
bench_scripts = \
	tests/bench/bench.py \
	tests/bench/carrying.py \
	tests/bench/peers.py \
	tests/bench/plot.py \
	tests/bench/processes.py \
	tests/bench/report.py \
	tests/bench/ssh.py \
	tests/bench/webmux.py
EXTRA_PROGRAMS = $(bench_programs)
EXTRA_DIST += $(bench_scripts)
CLEANFILES += $(bench_programs) bench.txt bench.json bench.svg

bench_wire = tests/bench/wire.c tests/bench/wire.h
bench_open_tunnel = tests/bench/open_tunnel.c tests/bench/open_tunnel.h

tests_bench_bulk_SOURCES = tests/bench/bulk.c $(bench_wire)
tests_bench_crowd_SOURCES = tests/bench/crowd.c tests/bench/talk.c tests/bench/talk.h \
	$(bench_open_tunnel) $(bench_wire)
tests_bench_cycles_SOURCES = tests/bench/cycles.c $(bench_open_tunnel) $(bench_wire)
tests_bench_cycles_LDADD = $(PTHREAD_LIBS)
tests_bench_delay_SOURCES = tests/bench/delay.c $(bench_wire)
tests_bench_endpoints_SOURCES = tests/bench/endpoints.c $(bench_wire)
tests_bench_pingpong_SOURCES = tests/bench/pingpong.c $(bench_wire)
tests_bench_plain_relay_SOURCES = tests/bench/plain_relay.c $(bench_wire)
tests_bench_plain_relay_LDADD = $(PTHREAD_LIBS)
tests_bench_streams_SOURCES = tests/bench/streams.c $(bench_wire)

# BENCH_ARGS="--quick" for a try-out; --help tells what else there is.
.PHONY: bench
bench: $(bench_programs) $(sbin_PROGRAMS) $(bin_PROGRAMS)
	TRISTERO_TUNNELD='$(abs_top_builddir)/tristero-tunneld' \
	TRISTERO_TUNNEL='$(abs_top_builddir)/tristero-tunnel' \
	BENCH_PROGRAMS='$(abs_top_builddir)/tests/bench' \
		$(PYTHON3) -B $(srcdir)/tests/bench/bench.py $(BENCH_ARGS)
