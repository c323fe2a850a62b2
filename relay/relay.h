/* relay: the tunnels of one proxy. Opens them, finds them, ends them.
 *
 * It knows nothing of XML-RPC: settings in, URIs out. A tunnel belongs to a thread,
 * its own or that of the carrier that holds it (carried.h), which owns its sockets; the
 * relay holds the table of tunnels, the only thing that they share. All functions may
 * be called from any thread unless they say otherwise. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "relay/net_address.h"
#include "relay/uri.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct relay;

enum { RELAY_PUBLIC_KEY_BYTES = 128 };

struct relay_settings {
    struct net_address listen;          /* where port pairs listen; its port is not used */
    uint16_t port_low, port_high;       /* the range of port pairs, both ends in it */
    size_t max_tunnels;                 /* alive at once */
    size_t tunnels_per_address;         /* alive at once, of one opener; 0: no limit */
    size_t tunnels_per_user;            /* the same */
    int64_t attach_timeout_ms;
    int64_t linger_ms;
    int64_t idle_timeout_ms;            /* 0: none */
    int64_t lifetime_ms;                /* of a tunnel, from its opening; 0: no limit */
    int64_t bytes_per_s;                /* of a tunnel, both directions together; 0: no limit */
    int64_t reserve_ms;                 /* that a tunnel of many clients waits for a lost server */
    size_t streams_per_tunnel;          /* its clients at once; more wait in the backlog */
    size_t descriptors;                 /* of all such tunnels together, see backend.h */
    int64_t keepalive_ms;               /* as socket_prepare_to_relay takes it */
    bool attach_from_any;               /* or only from the address that opened the tunnel */
};

/* The ssh front that servers attach at, if there is one. */
struct relay_ssh {
    uint16_t port;                      /* 0: there is none */
    char public_key[RELAY_PUBLIC_KEY_BYTES];    /* of the proxy: "ssh-ed25519 AAAA..." */
};

/* Whoever opens a tunnel. */
struct tunnel_opener {
    struct net_address address;
    const char *user;                   /* "": nobody was asked */
};

struct relay_counts {
    size_t tunnels;                     /* alive now */
    size_t resting_pairs;               /* port pairs ready to be handed out */
};

/* Sets up a relay; waker_set_up_process comes before. 0 or a negative errno;
 * *relay is the caller's until relay_free. */
int relay_new(const struct relay_settings *settings, struct relay **relay);

/* Only when no tunnel is left (relay_counts). */
void relay_free(struct relay *relay);

/* Opens a tunnel for opener. host goes into its URIs and must be valid as
 * uri_host_parse says. Fills *server_uri, where the server attaches. 0, or
 *   -EPROTONOSUPPORT  there is no such backend (see relay_backend_names)
 *   -EDQUOT           max_tunnels are alive
 *   -EUSERS           the user has tunnels_per_user
 *   -ETOOMANYREFS     the address has tunnels_per_address
 *   -EADDRNOTAVAIL    no port pair is free
 *   -ESHUTDOWN        relay_refuse_new was called
 *   another errno     the machine has no more threads, descriptors or memory */
int relay_open_tunnel(struct relay *relay, const char *backend, const char *host,
                      const struct tunnel_opener *opener, struct tunnel_uri *server_uri);

/* Finds the tunnel that server_uri was given out for, and fills *client_uri
 * with the address to advertise. 0, or -ENOENT. */
int relay_tunnel_address(struct relay *relay, const struct tunnel_uri *server_uri,
                         struct tunnel_uri *client_uri);

/* Writes the names that relay_open_tunnel takes, as "tcp" or "tcp, ssh". */
void relay_backend_names(struct relay *relay, char *text, size_t room);

/* The ssh backend is there from now on; port 0: it is there no more. */
void relay_set_ssh(struct relay *relay, const struct relay_ssh *ssh);
struct relay_ssh relay_ssh(struct relay *relay);

struct relay_counts relay_counts(struct relay *relay);
struct relay_settings relay_settings(struct relay *relay);

/* Sets what holds for tunnels that are opened from now on; those alive keep what
 * they were opened with. listen and the ports stay as they are. 0 or -ENOMEM. */
int relay_change_settings(struct relay *relay, const struct relay_settings *settings);

/* No new tunnels from now on; those alive go on. */
void relay_refuse_new(struct relay *relay);

/* Waits until no tunnel is alive: 0, or -ETIMEDOUT after timeout_ms. */
int relay_wait_until_empty(struct relay *relay, int64_t timeout_ms);

/* Ends every tunnel now, with a reset to whoever is connected, and waits for
 * their threads. Implies relay_refuse_new. */
void relay_end_all(struct relay *relay);

#endif
