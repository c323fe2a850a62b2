# Fuzzers: each target is a file fuzz_TARGET.c, seeds in corpus/TARGET words that
# libFuzzer tries in *.dict. make check gives them the seeds, in any build.
# Fuzzing itself takes clang and a folder of its own:
#     ../configure --enable-fuzzing CC=clang && make fuzz FUZZ_SECONDS=3600
# "make fuzz-uri" runs one of them, and "make -j2 fuzz" two at a time.
fuzz_targets = call config http http_guard uri users webmux
fuzz_programs = \
	tests/fuzz/fuzz_call \
	tests/fuzz/fuzz_config \
	tests/fuzz/fuzz_http \
	tests/fuzz/fuzz_http_guard \
	tests/fuzz/fuzz_uri \
	tests/fuzz/fuzz_users \
	tests/fuzz/fuzz_webmux
if WITH_SSH
fuzz_targets += authorized_keys
fuzz_programs += tests/fuzz/fuzz_authorized_keys
endif
fuzz_words = \
	tests/fuzz/authorized_keys.dict \
	tests/fuzz/config.dict \
	tests/fuzz/http.dict \
	tests/fuzz/uri.dict \
	tests/fuzz/users.dict \
	tests/fuzz/webmux.dict \
	tests/fuzz/xml.dict
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/run $(fuzz_words)

# XMLRPC_AHPSIZE of xmlrpc-c measures a struct at address 0, which clang takes for
# a use of NULL; a real one still ends the program, and AddressSanitizer shows it.
fuzz_cflags = -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize=null,object-size -fno-sanitize-recover=all
fuzz_common = tests/fuzz/fuzz.c tests/fuzz/fuzz.h
if FUZZING
EXTRA_PROGRAMS += $(fuzz_programs)
fuzz_ldflags = -fsanitize=fuzzer
else
check_PROGRAMS += $(fuzz_programs)
TESTS += $(fuzz_programs)
fuzz_common += tests/fuzz/replay.c
endif

fuzz_answer = tests/fuzz/answer.c tests/fuzz/answer.h $(sockets)
tests_fuzz_fuzz_authorized_keys_SOURCES = tests/fuzz/fuzz_authorized_keys.c $(fuzz_common)
tests_fuzz_fuzz_authorized_keys_CFLAGS = $(AM_CFLAGS) $(SSH_CFLAGS)
tests_fuzz_fuzz_authorized_keys_LDADD = relay/librelay.la $(SSH_LIBS)
tests_fuzz_fuzz_authorized_keys_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_call_SOURCES = tests/fuzz/fuzz_call.c $(fuzz_answer) $(fuzz_common)
tests_fuzz_fuzz_call_CFLAGS = $(AM_CFLAGS) $(XMLRPC_SERVER_CFLAGS)
tests_fuzz_fuzz_call_LDADD = rpc/librpc.la $(XMLRPC_SERVER_LIBS) $(PTHREAD_LIBS)
tests_fuzz_fuzz_call_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz_config.c $(fuzz_common)
tests_fuzz_fuzz_config_LDADD = server/libserver.la relay/librelay.la
tests_fuzz_fuzz_config_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_http_SOURCES = tests/fuzz/fuzz_http.c $(fuzz_answer) $(fuzz_common)
tests_fuzz_fuzz_http_CFLAGS = $(AM_CFLAGS) $(XMLRPC_SERVER_CFLAGS)
tests_fuzz_fuzz_http_LDADD = rpc/librpc.la $(XMLRPC_SERVER_LIBS) $(PTHREAD_LIBS)
tests_fuzz_fuzz_http_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_http_guard_SOURCES = tests/fuzz/fuzz_http_guard.c $(fuzz_common)
tests_fuzz_fuzz_http_guard_LDADD = rpc/librpc.la
tests_fuzz_fuzz_http_guard_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_uri_SOURCES = tests/fuzz/fuzz_uri.c $(fuzz_common)
tests_fuzz_fuzz_uri_LDADD = relay/librelay.la
tests_fuzz_fuzz_uri_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_users_SOURCES = tests/fuzz/fuzz_users.c $(fuzz_common)
tests_fuzz_fuzz_users_LDADD = rpc/librpc.la $(CRYPT_LIBS)
tests_fuzz_fuzz_users_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_webmux_SOURCES = tests/fuzz/fuzz_webmux.c $(fuzz_common)
tests_fuzz_fuzz_webmux_LDADD = relay/librelay.la
tests_fuzz_fuzz_webmux_LDFLAGS = $(fuzz_ldflags)

FUZZ_SECONDS = 60
fuzz_runs = $(fuzz_targets:%=fuzz-%)
.PHONY: fuzz $(fuzz_runs)
fuzz: $(fuzz_runs)
$(fuzz_runs): fuzz-%: tests/fuzz/fuzz_%
if FUZZING
	@$(srcdir)/tests/fuzz/run $* $(FUZZ_SECONDS)
else
	@echo 'make fuzz is for a folder configured with --enable-fuzzing CC=clang' >&2; false
endif
