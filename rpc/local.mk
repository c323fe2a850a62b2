# rpc/libguard is what the client library shares.
noinst_LTLIBRARIES += rpc/libguard.la rpc/librpc.la

rpc_libguard_la_SOURCES = rpc/xml_guard.c rpc/xml_guard.h

rpc_librpc_la_SOURCES = \
	rpc/connection.c rpc/connection.h \
	rpc/faults.c rpc/faults.h \
	rpc/gate.c rpc/gate.h \
	rpc/http_guard.c rpc/http_guard.h \
	rpc/listener.c rpc/listener.h rpc/listener_private.h \
	rpc/listener_accept.c \
	rpc/methods.c rpc/methods.h \
	rpc/rpc_server.c rpc/rpc_server.h \
	rpc/system_methods.c \
	rpc/tunnel_methods.c \
	rpc/users.c rpc/users.h \
	rpc/verified.c rpc/verified.h
rpc_librpc_la_CPPFLAGS = $(AM_CPPFLAGS) $(XMLRPC_SERVER_CFLAGS)
rpc_librpc_la_CFLAGS = $(AM_CFLAGS) $(SODIUM_CFLAGS)
rpc_librpc_la_LIBADD = rpc/libguard.la relay/librelay.la $(XMLRPC_SERVER_LIBS) $(CRYPT_LIBS)
