# The library shows tristero_* and nothing else of what is linked into it.
lib_LTLIBRARIES += clients/libtristero-tunnel.la
include_HEADERS += clients/tristero_tunnel.h
pkgconfig_DATA += clients/tristero-tunnel.pc
bin_PROGRAMS += tristero-tunnel

clients_libtristero_tunnel_la_SOURCES = \
	clients/attach.c \
	clients/attacher.c clients/attacher.h \
	clients/backoff.c clients/backoff.h \
	clients/library.h \
	clients/proxy.c \
	clients/server.c \
	clients/transport.c clients/transport.h
clients_libtristero_tunnel_la_CPPFLAGS = $(AM_CPPFLAGS) $(XMLRPC_CLIENT_CFLAGS) $(CURL_CFLAGS)
clients_libtristero_tunnel_la_LDFLAGS = -version-info 0:0:0 -no-undefined \
	-export-symbols-regex '^tristero_'
clients_libtristero_tunnel_la_LIBADD = relay/libmux.la rpc/libguard.la $(XMLRPC_CLIENT_LIBS) $(CURL_LIBS) \
	$(PTHREAD_LIBS)

tristero_tunnel_SOURCES = \
	clients/address.c \
	clients/backoff.c clients/backoff.h \
	clients/command.h \
	clients/curl_set.h \
	clients/directory.h \
	clients/expose.c \
	clients/expose_config.c \
	clients/expose_ssh.c \
	clients/expose_tcp.c \
	clients/expose_webmux.c \
	clients/exposure.h \
	clients/hostkey.c \
	clients/json_line.c clients/json_line.h \
	clients/live_view.c clients/live_view.h \
	clients/main.c \
	clients/open.c \
	clients/outlet.c clients/outlet.h \
	clients/probe.c \
	clients/qr.h \
	clients/report.c clients/report.h \
	clients/screen.c clients/screen.h \
	clients/ssh_child.c clients/ssh_child.h \
	clients/ssh_folder.c clients/ssh_folder.h \
	clients/target.c clients/target.h \
	clients/watch.c clients/watch.h
directory_sources = \
	clients/directory.c \
	clients/file_answer.c clients/file_answer.h \
	clients/folder.c clients/folder.h \
	clients/http_answer.c clients/http_answer.h \
	clients/http_condition.c clients/http_condition.h \
	clients/http_date.c clients/http_date.h \
	clients/http_etag.c clients/http_etag.h \
	clients/http_range.c clients/http_range.h \
	clients/index_page.c clients/index_page.h
if WITH_MICROHTTPD
tristero_tunnel_SOURCES += $(directory_sources)
else
tristero_tunnel_SOURCES += clients/directory_none.c
endif
if WITH_QRENCODE
tristero_tunnel_SOURCES += clients/qr.c
else
tristero_tunnel_SOURCES += clients/qr_none.c
endif
EXTRA_DIST += $(directory_sources) clients/directory_none.c clients/qr.c clients/qr_none.c
tristero_tunnel_CFLAGS = $(AM_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS) $(CURSES_CFLAGS) \
	$(MICROHTTPD_CFLAGS) $(QRENCODE_CFLAGS) $(CURL_CFLAGS)
tristero_tunnel_LDADD = clients/libtristero-tunnel.la relay/librelay.la $(SODIUM_LIBS) \
	$(JANSSON_LIBS) $(CURSES_LIBS) $(MICROHTTPD_LIBS) $(QRENCODE_LIBS) $(CURL_LIBS) $(PTHREAD_LIBS)

EXTRA_DIST += clients/python/serve_file.py clients/perl/serve-file

EXTRA_DIST += \
	clients/python/pyproject.toml \
	clients/python/tristero_tunnel/__init__.py \
	clients/python/tristero_tunnel/__main__.py \
	clients/python/tristero_tunnel/carrier.py \
	clients/python/tristero_tunnel/detour.py \
	clients/python/tristero_tunnel/errors.py \
	clients/python/tristero_tunnel/expose.py \
	clients/python/tristero_tunnel/outlet.py \
	clients/python/tristero_tunnel/proxy.py \
	clients/python/tristero_tunnel/py.typed \
	clients/python/tristero_tunnel/service.py \
	clients/python/tristero_tunnel/sessions.py \
	clients/python/tristero_tunnel/tunnel.py \
	clients/python/tristero_tunnel/waiting.py \
	clients/python/tristero_tunnel/webmux.py

# Where each shell looks by itself.
bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
fishcompletiondir = $(datadir)/fish/vendor_completions.d
dist_zshcompletion_DATA = clients/completions/_tristero-tunnel
dist_fishcompletion_DATA = clients/completions/tristero-tunnel.fish
# bash looks for a file of the command's name.
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(bashcompletiondir)'
	$(INSTALL_DATA) '$(srcdir)/clients/completions/tristero-tunnel.bash' \
		'$(DESTDIR)$(bashcompletiondir)/tristero-tunnel'
uninstall-local:
	rm -f '$(DESTDIR)$(bashcompletiondir)/tristero-tunnel'
EXTRA_DIST += clients/completions/tristero-tunnel.bash
