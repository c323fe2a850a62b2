/* libtristero-tunnel: asks a Tristero proxy for tunnels, and attaches to them.
 *
 *     struct tristero_error error;
 *     struct tristero_proxy *proxy;
 *     char *server_uri, *client_uri;
 *     int connection;
 *
 *     if (tristero_proxy_new("http://proxy:8000/RPC2", NULL, &proxy, &error) ||
 *         tristero_open(proxy, NULL, &server_uri, &error) ||
 *         tristero_address(proxy, server_uri, &client_uri, &error) ||
 *         tristero_attach(proxy, server_uri, &connection, &error))
 *         fprintf(stderr, "%s\n", error.text);
 *
 * Functions return TRISTERO_OK or what went wrong, with the details in *error,
 * which may be NULL. What they return by pointer is set only with TRISTERO_OK.
 * A proxy handle may be used by several threads at once; only
 * tristero_proxy_free must come after all the others. Calls block, for as long
 * as the options say. Nothing is printed, and no signal is raised.
 *
 * The first tristero_proxy_new sets up libcurl and xmlrpc-c. A program that
 * sets these up by itself does so before, or after, but not meanwhile. */
#ifndef TRISTERO_TUNNEL_H
#define TRISTERO_TUNNEL_H

#ifdef __cplusplus
extern "C" {
#endif

enum tristero_status {
    TRISTERO_OK,
    TRISTERO_INVALID,           /* an argument is wrong: a URL, a URI, a backend's name */
    TRISTERO_UNREACHABLE,       /* no connection, or no XML-RPC at the other end of it */
    TRISTERO_TIMEOUT,           /* no answer in time */
    TRISTERO_FAULT,             /* the proxy answered with a fault: see fault_code */
    TRISTERO_BAD_ANSWER,        /* the answer is not what the interface says */
    TRISTERO_NO_RESOURCES       /* no memory or descriptors here */
};

struct tristero_error {
    enum tristero_status status;
    int fault_code;             /* of TRISTERO_FAULT, as in doc/protocol.md; else 0 */
    char text[512];             /* one line for people, in printable ASCII */
};

/* All zero means the defaults. */
struct tristero_options {
    int call_timeout_ms;        /* for a whole call, in whole seconds, rounded up; 30000 by default */
    int attach_timeout_ms;      /* to connect, besides looking the name up; 30000 by default */
};

struct tristero_proxy;

/* For the proxy whose XML-RPC is at url, http or https, such as
 * http://proxy.example.org:8000/RPC2; a user and password in it are for HTTP
 * basic authentication, and are never told in an error. Connects to nothing yet.
 * options may be NULL. *proxy is the caller's, until tristero_proxy_free. */
enum tristero_status tristero_proxy_new(const char *url, const struct tristero_options *options,
                                        struct tristero_proxy **proxy,
                                        struct tristero_error *error);

/* NULL is ignored. */
void tristero_proxy_free(struct tristero_proxy *proxy);

/* Opens a tunnel: *server_uri gets the URI to attach to. backend is the way to
 * attach; NULL is the proxy's usual one, tcp. The caller frees *server_uri. */
enum tristero_status tristero_open(struct tristero_proxy *proxy, const char *backend,
                                   char **server_uri, struct tristero_error *error);

/* Asks where clients connect: *client_uri gets the URI to advertise. The caller
 * frees it. */
enum tristero_status tristero_address(struct tristero_proxy *proxy, const char *server_uri,
                                      char **client_uri, struct tristero_error *error);

/* Asks for the key by which ssh knows the proxy: *line gets a line of OpenSSH's
 * known_hosts, without its end. The caller frees it. It is to be trusted as far as
 * the way to the proxy is: by http, as far as the network. */
enum tristero_status tristero_host_key(struct tristero_proxy *proxy, char **line,
                                       struct tristero_error *error);

/* Attaches to a tcp tunnel: *connection gets a connected socket in blocking
 * mode, closed on exec, the caller's to close. The bytes of the tunnel's client
 * come over it, once there is one, which may take any time: the socket has TCP
 * keepalive, so that reading fails when the proxy is gone. */
enum tristero_status tristero_attach(struct tristero_proxy *proxy, const char *server_uri,
                                     int *connection, struct tristero_error *error);

#ifdef __cplusplus
}
#endif

#endif
