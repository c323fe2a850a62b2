# relay/uri is shared with the client library, so it is a piece of its own.
noinst_LTLIBRARIES += relay/liburi.la relay/librelay.la

relay_liburi_la_SOURCES = relay/uri.c relay/uri.h

relay_librelay_la_SOURCES = \
	relay/backend_tcp.c relay/backend.h \
	relay/buffer_pool.c relay/buffer_pool.h \
	relay/duplex.c relay/duplex.h \
	relay/log.c relay/log.h \
	relay/net_address.c relay/net_address.h \
	relay/port_pool.c relay/port_pool.h \
	relay/relay.c relay/relay.h \
	relay/socket.c relay/socket.h \
	relay/tunnel.c relay/tunnel.h \
	relay/waker.c relay/waker.h
relay_librelay_la_LIBADD = relay/liburi.la $(PTHREAD_LIBS)
