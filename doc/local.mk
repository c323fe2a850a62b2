dist_man_MANS += doc/libtristero-tunnel.3 doc/tristero-tunnel.1 doc/tristero-tunneld.8
EXTRA_DIST += doc/architecture.md doc/performance.md doc/performance.svg doc/protocol.md doc/security.md doc/tristero-tunneld.conf.example
