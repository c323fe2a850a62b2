# Everything but main, so that the unit tests can link it.
noinst_LTLIBRARIES += server/libserver.la
sbin_PROGRAMS += tristero-tunneld

server_libserver_la_SOURCES = \
	server/config.c server/config.h \
	server/config_file.c server/config_file.h \
	server/confine.c server/confine.h \
	server/limits.c server/limits.h \
	server/settings.c server/settings.h

tristero_tunneld_SOURCES = server/main.c
tristero_tunneld_CFLAGS = $(AM_CFLAGS) $(SYSTEMD_CFLAGS)
tristero_tunneld_LDADD = server/libserver.la rpc/librpc.la relay/librelay.la \
	$(XMLRPC_SERVER_LIBS) $(SYSTEMD_LIBS) $(PTHREAD_LIBS)

# The unit names the daemon where it will be, which make knows and configure
# does not yet.
systemdsystemunit_DATA = server/tristero-tunneld.service
server/tristero-tunneld.service: $(srcdir)/server/tristero-tunneld.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) server && \
	sed 's|@sbindir[@]|$(sbindir)|' $(srcdir)/server/tristero-tunneld.service.in >$@
CLEANFILES += server/tristero-tunneld.service
EXTRA_DIST += server/tristero-tunneld.service.in
