# End to end: the real programs and real clients. A file a subject, each also
# run by hand: TRISTERO_TUNNELD=build/tristero-tunneld tests/e2e/test_trip.py
# In each list those that take a minute come first, or they would end last, and alone.
# Those that take minutes, and mostly wait; ./check leaves them out under sanitizers.
patient_tests =
long_tests = \
	tests/e2e/test_limits.py \
	tests/e2e/test_frozen.py \
	tests/e2e/test_vanished.py \
	tests/e2e/test_webmux_life.py \
	tests/e2e/test_life.py \
	tests/e2e/test_service.py \
	tests/e2e/test_serving_again.py
e2e_tests = \
	tests/e2e/test_users.py \
	tests/e2e/test_bad_input.py \
	tests/e2e/test_command.py \
	tests/e2e/test_completions.py \
	tests/e2e/test_confinement.py \
	tests/e2e/test_daemon.py \
	tests/e2e/test_exhaustion.py \
	tests/e2e/test_hidden.py \
	tests/e2e/test_load.py \
	tests/e2e/test_relaying.py \
	tests/e2e/test_reload.py \
	tests/e2e/test_rpc.py \
	tests/e2e/test_serving.py \
	tests/e2e/test_serving_detour.py \
	tests/e2e/test_serving_python.py \
	tests/e2e/test_signals.py \
	tests/e2e/test_trip.py \
	tests/e2e/test_webmux.py \
	tests/e2e/test_webmux_flow.py \
	tests/e2e/test_webmux_hostile.py \
	tests/e2e/test_webmux_places.py \
	tests/e2e/test_webmux_rate.py
# With a shim under the daemon; ./check leaves them out under sanitizers, whose
# runtimes wrap the same functions, and memory above all, in ways of their own.
fault_tests = \
	tests/e2e/test_faults.py \
	tests/e2e/test_faults_start.py \
	tests/e2e/test_webmux_faults.py
# Of the ssh backend, and of expose, which may go by it. Each skips what it finds no
# ssh client for.
ssh_tests = \
	tests/e2e/test_expose_ssh_again.py \
	tests/e2e/test_ssh_hostile.py \
	tests/e2e/test_ssh_slow.py \
	tests/e2e/test_ssh_reserve.py \
	tests/e2e/test_ssh_life.py \
	tests/e2e/test_ssh_rate.py \
	tests/e2e/test_ssh_refused.py \
	tests/e2e/test_ssh.py \
	tests/e2e/test_ssh_configured.py \
	tests/e2e/test_ssh_gone.py \
	tests/e2e/test_ssh_shown.py \
	tests/e2e/test_ssh_streams.py \
	tests/e2e/test_expose.py \
	tests/e2e/test_expose_browser.py \
	tests/e2e/test_expose_clients.py \
	tests/e2e/test_expose_config.py \
	tests/e2e/test_expose_detour.py \
	tests/e2e/test_expose_dir.py \
	tests/e2e/test_expose_https.py \
	tests/e2e/test_expose_dir_versions.py \
	tests/e2e/test_expose_postgres.py \
	tests/e2e/test_expose_ssh.py \
	tests/e2e/test_expose_unread.py \
	tests/e2e/test_expose_view.py \
	tests/e2e/test_expose_webmux.py
ssh_fault_tests = \
	tests/e2e/test_ssh_exchange.py \
	tests/e2e/test_ssh_faults.py
if WITH_SSH
patient_tests += tests/e2e/test_patience.py
endif
if WITH_SSH
fault_tests += $(ssh_fault_tests)
endif
TESTS += $(patient_tests) $(fault_tests) $(long_tests)
if WITH_SSH
TESTS += $(ssh_tests)
endif
TESTS += $(e2e_tests)
EXTRA_DIST += tests/e2e/test_patience.py $(long_tests) $(e2e_tests) $(fault_tests) $(ssh_tests) $(ssh_fault_tests) tests/e2e/browser.py \
	tests/e2e/confined.py tests/e2e/detour.py tests/e2e/faults.py tests/e2e/expose_harness.py tests/e2e/harness.py tests/e2e/pattern.py \
	tests/e2e/peer.py tests/e2e/serving_harness.py tests/e2e/ssh_forger.py tests/e2e/ssh_harness.py tests/e2e/ssh_hostile.py \
	tests/e2e/ssh_peer.py tests/e2e/webmux_harness.py tools/packages

# Never installed; rpath makes libtool build a shared object all the same.
check_LTLIBRARIES += tests/faults/shim.la
tests_faults_shim_la_SOURCES = tests/faults/shim.c tests/faults/shim.h
tests_faults_shim_la_LDFLAGS = -module -avoid-version -shared -rpath /nowhere
if WITH_SSH
check_LTLIBRARIES += tests/faults/early_exchange.la
tests_faults_early_exchange_la_SOURCES = tests/faults/early_exchange.c
tests_faults_early_exchange_la_CFLAGS = $(AM_CFLAGS) $(SSH_CFLAGS)
tests_faults_early_exchange_la_LDFLAGS = -module -avoid-version -shared -rpath /nowhere
endif

# What test_serving runs: a server by the library.
check_PROGRAMS += tests/e2e/serve
tests_e2e_serve_LDADD = clients/libtristero-tunnel.la $(PTHREAD_LIBS)
