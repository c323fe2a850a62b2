# Unit tests: one CUnit program a subject. End-to-end tests: tests/e2e.
AM_TESTS_ENVIRONMENT = \
	export TRISTERO_TUNNELD='$(abs_top_builddir)/tristero-tunneld' \
	TRISTERO_TUNNEL='$(abs_top_builddir)/tristero-tunnel' \
	TRISTERO_UNIT='$(abs_top_builddir)/server/tristero-tunneld.service' \
	FAULT_SHIM='$(abs_top_builddir)/tests/faults/.libs/shim.so' \
	SRCDIR='$(abs_top_srcdir)' PERL='$(PERL)' PYTHONDONTWRITEBYTECODE=1;
TEST_EXTENSIONS = .py
PY_LOG_COMPILER = $(PYTHON3)
unit_tests = \
	tests/unit/test_address_table \
	tests/unit/test_attach \
	tests/unit/test_backoff \
	tests/unit/test_byte_queue \
	tests/unit/test_client \
	tests/unit/test_config \
	tests/unit/test_config_file \
	tests/unit/test_duplex \
	tests/unit/test_duplex_limits \
	tests/unit/test_flow \
	tests/unit/test_http_fields \
	tests/unit/test_http_guard \
	tests/unit/test_limits \
	tests/unit/test_methods \
	tests/unit/test_net_address \
	tests/unit/test_number \
	tests/unit/test_port_pool \
	tests/unit/test_refusals \
	tests/unit/test_relay \
	tests/unit/test_relay_tcp \
	tests/unit/test_tally \
	tests/unit/test_uri \
	tests/unit/test_users \
	tests/unit/test_webmux \
	tests/unit/test_webmux_credit \
	tests/unit/test_webmux_frame \
	tests/unit/test_webmux_random
if WITH_SSH
unit_tests += tests/unit/test_ssh_authorized tests/unit/test_ssh_host_key
endif
check_PROGRAMS += $(unit_tests)
TESTS += $(unit_tests)
noinst_HEADERS = tests/unit/fake_proxy.h tests/unit/files.h tests/unit/one_relay.h tests/unit/reading.h tests/unit/relaying.h tests/unit/sockets.h \
	tests/unit/ssh_test_keys.h tests/unit/unit.h tests/unit/webmux_ends.h
fake_proxy = tests/unit/fake_proxy.c $(sockets)
files = tests/unit/files.c
reading = tests/unit/reading.c $(files)
one_relay = tests/unit/one_relay.c $(sockets)
relaying = tests/unit/relaying.c $(sockets)
sockets = tests/unit/sockets.c
webmux_ends = tests/unit/webmux_ends.c

unit_cflags = $(AM_CFLAGS) $(CUNIT_CFLAGS)
unit_libs = relay/librelay.la $(CUNIT_LIBS) $(PTHREAD_LIBS)

tests_unit_test_address_table_CFLAGS = $(unit_cflags)
tests_unit_test_address_table_LDADD = $(unit_libs)
tests_unit_test_attach_SOURCES = tests/unit/test_attach.c $(fake_proxy)
tests_unit_test_attach_CFLAGS = $(unit_cflags)
tests_unit_test_attach_LDADD = clients/libtristero-tunnel.la $(unit_libs)
tests_unit_test_backoff_SOURCES = tests/unit/test_backoff.c clients/backoff.c
tests_unit_test_backoff_CFLAGS = $(unit_cflags)
tests_unit_test_backoff_LDADD = $(unit_libs)
tests_unit_test_byte_queue_CFLAGS = $(unit_cflags)
tests_unit_test_byte_queue_LDADD = $(unit_libs)
tests_unit_test_client_SOURCES = tests/unit/test_client.c $(fake_proxy)
tests_unit_test_client_CFLAGS = $(unit_cflags)
tests_unit_test_client_LDADD = clients/libtristero-tunnel.la $(unit_libs)
tests_unit_test_config_SOURCES = tests/unit/test_config.c $(reading)
tests_unit_test_config_CFLAGS = $(unit_cflags)
tests_unit_test_config_LDADD = server/libserver.la $(unit_libs)
tests_unit_test_config_file_SOURCES = tests/unit/test_config_file.c $(reading)
tests_unit_test_config_file_CFLAGS = $(unit_cflags)
tests_unit_test_config_file_LDADD = server/libserver.la $(unit_libs)
tests_unit_test_duplex_SOURCES = tests/unit/test_duplex.c $(relaying)
tests_unit_test_duplex_CFLAGS = $(unit_cflags)
tests_unit_test_duplex_LDADD = $(unit_libs)
tests_unit_test_duplex_limits_SOURCES = tests/unit/test_duplex_limits.c $(relaying)
tests_unit_test_duplex_limits_CFLAGS = $(unit_cflags)
tests_unit_test_duplex_limits_LDADD = $(unit_libs)
tests_unit_test_flow_SOURCES = tests/unit/test_flow.c $(sockets)
tests_unit_test_flow_CFLAGS = $(unit_cflags)
tests_unit_test_flow_LDADD = $(unit_libs)
tests_unit_test_http_fields_SOURCES = tests/unit/test_http_fields.c clients/http_condition.c \
	clients/http_date.c clients/http_etag.c clients/http_range.c
tests_unit_test_http_fields_CFLAGS = $(unit_cflags) $(SODIUM_CFLAGS)
tests_unit_test_http_fields_LDADD = $(SODIUM_LIBS) $(unit_libs)
tests_unit_test_http_guard_CFLAGS = $(unit_cflags)
tests_unit_test_http_guard_LDADD = rpc/librpc.la $(unit_libs)
tests_unit_test_limits_CFLAGS = $(unit_cflags)
tests_unit_test_limits_LDADD = server/libserver.la $(unit_libs)
tests_unit_test_methods_SOURCES = tests/unit/test_methods.c $(sockets)
tests_unit_test_methods_CFLAGS = $(unit_cflags) $(XMLRPC_SERVER_CFLAGS)
tests_unit_test_methods_LDADD = rpc/librpc.la $(XMLRPC_SERVER_LIBS) $(unit_libs)
tests_unit_test_net_address_CFLAGS = $(unit_cflags)
tests_unit_test_net_address_LDADD = $(unit_libs)
tests_unit_test_number_CFLAGS = $(unit_cflags)
tests_unit_test_number_LDADD = $(unit_libs)
tests_unit_test_port_pool_SOURCES = tests/unit/test_port_pool.c $(sockets)
tests_unit_test_port_pool_CFLAGS = $(unit_cflags)
tests_unit_test_port_pool_LDADD = $(unit_libs)
tests_unit_test_refusals_CFLAGS = $(unit_cflags)
tests_unit_test_refusals_LDADD = $(unit_libs)
tests_unit_test_relay_SOURCES = tests/unit/test_relay.c $(one_relay)
tests_unit_test_relay_CFLAGS = $(unit_cflags)
tests_unit_test_relay_LDADD = $(unit_libs)
tests_unit_test_relay_tcp_SOURCES = tests/unit/test_relay_tcp.c $(one_relay)
tests_unit_test_relay_tcp_CFLAGS = $(unit_cflags)
tests_unit_test_relay_tcp_LDADD = $(unit_libs)
tests_unit_test_ssh_authorized_SOURCES = tests/unit/test_ssh_authorized.c $(files)
tests_unit_test_ssh_authorized_CFLAGS = $(unit_cflags) $(SSH_CFLAGS)
tests_unit_test_ssh_authorized_LDADD = $(unit_libs) $(SSH_LIBS)
tests_unit_test_ssh_host_key_SOURCES = tests/unit/test_ssh_host_key.c $(files)
tests_unit_test_ssh_host_key_CFLAGS = $(unit_cflags) $(SSH_CFLAGS)
tests_unit_test_ssh_host_key_LDADD = $(unit_libs) $(SSH_LIBS)
tests_unit_test_tally_CFLAGS = $(unit_cflags)
tests_unit_test_tally_LDADD = $(unit_libs)
tests_unit_test_uri_CFLAGS = $(unit_cflags)
tests_unit_test_uri_LDADD = $(unit_libs)
tests_unit_test_users_SOURCES = tests/unit/test_users.c $(files)
tests_unit_test_users_CFLAGS = $(unit_cflags)
tests_unit_test_users_LDADD = rpc/librpc.la $(CRYPT_LIBS) $(unit_libs)
tests_unit_test_webmux_SOURCES = tests/unit/test_webmux.c $(webmux_ends)
tests_unit_test_webmux_CFLAGS = $(unit_cflags)
tests_unit_test_webmux_LDADD = $(unit_libs)
tests_unit_test_webmux_credit_SOURCES = tests/unit/test_webmux_credit.c $(webmux_ends)
tests_unit_test_webmux_credit_CFLAGS = $(unit_cflags)
tests_unit_test_webmux_credit_LDADD = $(unit_libs)
tests_unit_test_webmux_frame_CFLAGS = $(unit_cflags)
tests_unit_test_webmux_frame_LDADD = $(unit_libs)
tests_unit_test_webmux_random_SOURCES = tests/unit/test_webmux_random.c $(webmux_ends)
tests_unit_test_webmux_random_CFLAGS = $(unit_cflags)
tests_unit_test_webmux_random_LDADD = $(unit_libs)

# The Python package by itself; it needs no program of ours.
python_tests = \
	clients/python/tests/test_detour.py \
	clients/python/tests/test_expose.py \
	clients/python/tests/test_sessions.py \
	clients/python/tests/test_tunnel.py \
	clients/python/tests/test_waiting.py \
	clients/python/tests/test_webmux.py
TESTS += $(python_tests)
EXTRA_DIST += $(python_tests) clients/python/tests/common.py clients/python/tests/fake_proxy.py

include tests/e2e/local.mk
include tests/soak/local.mk
include tests/bench/local.mk
include tests/model/local.mk
include tests/fuzz/local.mk
