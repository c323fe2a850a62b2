dist_man_MANS += doc/tristero-tunneld.8
EXTRA_DIST += doc/tristero-tunneld.conf.example
