# Fuzzers: each target is a file fuzz_TARGET.c, seeds in corpus/TARGET and words
# in TARGET.dict. make check gives them the seeds, in any build. Fuzzing itself
# takes clang and a folder of its own:
#     ../configure --enable-fuzzing CC=clang && make fuzz FUZZ_SECONDS=3600
# "make fuzz-uri" runs one of them, and "make -j2 fuzz" two at a time.
fuzz_targets = call config http_guard uri users
fuzz_programs = \
	tests/fuzz/fuzz_call \
	tests/fuzz/fuzz_config \
	tests/fuzz/fuzz_http_guard \
	tests/fuzz/fuzz_uri \
	tests/fuzz/fuzz_users
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/run $(fuzz_targets:%=tests/fuzz/%.dict)

fuzz_cflags = -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all
fuzz_common = tests/fuzz/fuzz.c tests/fuzz/fuzz.h
if FUZZING
EXTRA_PROGRAMS += $(fuzz_programs)
fuzz_ldflags = -fsanitize=fuzzer
else
check_PROGRAMS += $(fuzz_programs)
TESTS += $(fuzz_programs)
fuzz_common += tests/fuzz/replay.c
endif

tests_fuzz_fuzz_call_SOURCES = tests/fuzz/fuzz_call.c $(sockets) $(fuzz_common)
tests_fuzz_fuzz_call_CFLAGS = $(AM_CFLAGS) $(XMLRPC_SERVER_CFLAGS)
tests_fuzz_fuzz_call_LDADD = rpc/librpc.la $(XMLRPC_SERVER_LIBS) $(PTHREAD_LIBS)
tests_fuzz_fuzz_call_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz_config.c $(fuzz_common)
tests_fuzz_fuzz_config_LDADD = server/libserver.la relay/librelay.la $(INIH_LIBS)
tests_fuzz_fuzz_config_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_http_guard_SOURCES = tests/fuzz/fuzz_http_guard.c $(fuzz_common)
tests_fuzz_fuzz_http_guard_LDADD = rpc/librpc.la
tests_fuzz_fuzz_http_guard_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_uri_SOURCES = tests/fuzz/fuzz_uri.c $(fuzz_common)
tests_fuzz_fuzz_uri_LDADD = relay/librelay.la
tests_fuzz_fuzz_uri_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_users_SOURCES = tests/fuzz/fuzz_users.c $(fuzz_common)
tests_fuzz_fuzz_users_LDADD = rpc/librpc.la $(CRYPT_LIBS)
tests_fuzz_fuzz_users_LDFLAGS = $(fuzz_ldflags)

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
