# What the client library shares: relay/libends, names and connections, and
# relay/libmux, connections that carry many streams.
noinst_LTLIBRARIES += relay/libends.la relay/libmux.la relay/librelay.la

relay_libends_la_SOURCES = \
	relay/net_address.c relay/net_address.h \
	relay/number.c relay/number.h \
	relay/socket.c relay/socket.h \
	relay/uri.c relay/uri.h \
	relay/waker.c relay/waker.h

relay_libmux_la_SOURCES = \
	relay/buffer_pool.c relay/buffer_pool.h \
	relay/byte_queue.c relay/byte_queue.h \
	relay/mux.c relay/mux.h relay/mux_private.h \
	relay/mux_bytes.c \
	relay/mux_carrier.c \
	relay/mux_stream.c \
	relay/rate.c relay/rate.h \
	relay/webmux.c relay/webmux.h relay/webmux_private.h \
	relay/webmux_frame.c relay/webmux_frame.h \
	relay/webmux_receive.c
relay_libmux_la_LIBADD = relay/libends.la

relay_librelay_la_SOURCES = \
	relay/address_table.c relay/address_table.h \
	relay/backend.h relay/backend_tcp.c relay/backend_webmux.c \
	relay/carried.c relay/carried.h \
	relay/duplex.c relay/duplex.h \
	relay/flow.c relay/flow.h \
	relay/ini_file.c relay/ini_file.h \
	relay/log.c relay/log.h \
	relay/log_budget.c relay/log_budget.h \
	relay/pipe_pool.c relay/pipe_pool.h \
	relay/port_pool.c relay/port_pool.h \
	relay/refusals.c relay/refusals.h \
	relay/relay.c relay/relay.h relay/relay_private.h \
	relay/reservation.c \
	relay/ssh_service.h \
	relay/settings_file.c relay/settings_file.h \
	relay/tally.c relay/tally.h \
	relay/thread_stack.c relay/thread_stack.h \
	relay/tunnel.c relay/tunnel.h
relay_librelay_la_CFLAGS = $(AM_CFLAGS) $(INIH_CFLAGS) $(SODIUM_CFLAGS)
relay_librelay_la_LIBADD = relay/libmux.la $(INIH_LIBS) $(SODIUM_LIBS) $(PTHREAD_LIBS)

if WITH_SSH
relay_librelay_la_SOURCES += \
	relay/ssh_authorized.c relay/ssh_authorized.h \
	relay/ssh_bytes.c \
	relay/ssh_carrier.c relay/ssh_carrier.h \
	relay/ssh_console.c \
	relay/ssh_exchange.c \
	relay/ssh_first_write.c \
	relay/ssh_forward.c \
	relay/ssh_host_key.c relay/ssh_host_key.h \
	relay/ssh_keys.c relay/ssh_keys.h \
	relay/ssh_liveness.c \
	relay/ssh_login.c \
	relay/ssh_private.h \
	relay/ssh_service.c \
	relay/ssh_stream.c relay/ssh_stream.h \
	relay/ssh_tunnelless.c relay/ssh_tunnelless.h
relay_librelay_la_CFLAGS += $(SSH_CFLAGS)
relay_librelay_la_LIBADD += $(SSH_LIBS)
else
relay_librelay_la_SOURCES += relay/ssh_none.c
endif
