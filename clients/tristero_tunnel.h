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
 * The first tristero_proxy_new sets up libcurl. A program that sets it up by
 * itself does so before, or after, but not meanwhile. */
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
    int os_error;               /* why a connection failed, as errno has it; 0: for another reason */
    char text[512];             /* one line for people, in printable ASCII */
};

/* All zero means the defaults. */
struct tristero_options {
    int call_timeout_ms;        /* for a whole call; 30000 by default */
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

/* Breaks off what waits for the proxy by this handle, for good: what is under way, and what
 * comes, fails within a second or so as TRISTERO_UNREACHABLE, but for the lookup of a name.
 * A server that has been made does not attach again. By any thread, or a signal's handler. */
void tristero_proxy_cancel(struct tristero_proxy *proxy);

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
 * keepalive, so that reading fails when the proxy is gone. Of an ssh tunnel, *connection
 * leads to the proxy's ssh server, for an ssh client that takes a connection as it is. */
enum tristero_status tristero_attach(struct tristero_proxy *proxy, const char *server_uri,
                                     int *connection, struct tristero_error *error);

/* --- Serving: any number of clients over one tunnel, at one address
 *
 *     static int connect_service(void *context)
 *     {
 *         int mine, theirs = tristero_stream_pair(&mine);
 *
 *         if (theirs >= 0)
 *             start_thread_that_speaks_with_a_client(context, mine);
 *         return theirs;
 *     }
 *
 *     struct tristero_service service = { .connect = connect_service };
 *
 *     if (!tristero_server_new(proxy, &service, &server, &error)) {
 *         puts(tristero_server_address(server));
 *         tristero_server_run(server);
 *     }
 *
 * The bytes of all clients come over one connection to the proxy, by the webmux
 * backend, or over a few of them. When one is lost, its clients are cut off, and the
 * library attaches again; the address stays the same for as long as the proxy keeps
 * it, and is asked for anew after that. */

struct tristero_server;

enum { TRISTERO_CONNECTIONS_MAX = 16 }; /* of a server to the proxy, each for 127 clients at once */

enum tristero_event_kind {
    TRISTERO_ATTACHED,          /* again: there is no such event for the first time */
    TRISTERO_MOVED,             /* the same, but at a new address, since the old one is gone */
    TRISTERO_LOST,              /* a connection to the proxy, why in text; attached again after wait_ms */
    TRISTERO_RETRYING,          /* attaching failed, why in text; tried again after wait_ms */

    /* Of each client that number, either REFUSED alone; or CAME, and later LEFT, which
     * tristero_server_run tells at its end of those who are there still. */
    TRISTERO_CLIENT_CAME,       /* and is connected to the service */
    TRISTERO_CLIENT_REFUSED,    /* was not, why in text: the service could not be reached, or the
                                 * client, its connection or the server went before it was */
    TRISTERO_CLIENT_LEFT        /* why in text, and how many bytes it had */
};

struct tristero_event {
    enum tristero_event_kind kind;
    const char *address;        /* where clients connect; never NULL */
    const char *text;           /* one line for people, in printable ASCII; never NULL */
    int wait_ms;
    unsigned long client;       /* of those events: a number, from 1 on */
    unsigned long long bytes_from_client, bytes_to_client;
};

struct tristero_service {
    /* Both are called by the thread that runs the server, event also by the one that frees
     * it. Neither may wait, since all clients would wait with them, nor run or free the
     * server; but stop it, and look at it. */

    /* A client has come. Returns a stream socket, connected or about to be, that is
     * the library's from then on, and that the client is to be relayed with; or a
     * negative errno. -EAGAIN: the service is too busy, and this is called again in a moment,
     * for as long as the client waits. */
    int (*connect)(void *context);

    /* NULL: nobody is told. What event points to is there until it returns. */
    void (*event)(void *context, const struct tristero_event *event);
    void *context;
    int connections;            /* to the proxy, at most TRISTERO_CONNECTIONS_MAX; 0: one */
};

/* Opens a tunnel and attaches to it, which may take the time that the proxy's options
 * say. service is copied. *server is the caller's, until tristero_server_free; the
 * proxy must last as long. */
enum tristero_status tristero_server_new(struct tristero_proxy *proxy,
                                         const struct tristero_service *service,
                                         struct tristero_server **server,
                                         struct tristero_error *error);

/* Where clients connect, such as tcp://proxy.example.org:8011: as it was with
 * tristero_server_new; events tell when it changes. The server's. */
const char *tristero_server_address(const struct tristero_server *server);

/* Serves clients on the calling thread, until tristero_server_stop. Then it resets whoever is
 * connected, and the statistics are the last. */
void tristero_server_run(struct tristero_server *server);

/* Makes tristero_server_run return soon, also if it is called later. By any thread,
 * or a signal's handler. */
void tristero_server_stop(struct tristero_server *server);

/* Breaks off an attempt to attach that is under way, within a second or so, but for the
 * lookup of a name. Not while tristero_server_run runs. NULL is
 * ignored. */
void tristero_server_free(struct tristero_server *server);

struct tristero_statistics {
    unsigned clients;           /* that came and have not left */
    unsigned connections;       /* to the proxy, now */
    unsigned long long clients_in_all, refused;     /* that came, and that were refused */
    unsigned long long bytes_from_clients, bytes_to_clients;
    unsigned long long times_lost;      /* connections to the proxy */
    unsigned rtt_us;            /* round trip to the proxy, as the kernel sees it; 0: unknown */
};

/* By any thread. */
void tristero_server_look(const struct tristero_server *server,
                          struct tristero_statistics *statistics);

/* For tristero_service.connect: a pair of sockets. Returns one for the library; *mine
 * gets the other, in blocking mode, closed on exec. Or a negative errno. A client that
 * is reset shows there as an end: a pair can't tell the two apart. */
int tristero_stream_pair(int *mine);

#ifdef __cplusplus
}
#endif

#endif
