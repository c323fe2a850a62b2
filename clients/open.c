/* tristero-tunnel open: a tunnel, and where its two ends are. */
#include "clients/command.h"
#include "clients/json_line.h"

#include <stdlib.h>

static int print_json(const char *server_uri, const char *client_uri)
{
    return json_line_print(json_pack("{s:s,s:s}", "server", server_uri, "client", client_uri),
                           OUTLET_DEAR);
}

static int print_plain(const char *server_uri, const char *client_uri)
{
    return print_line("server %s\nclient %s", server_uri, client_uri);
}

int open_command(struct tristero_proxy *proxy, const struct arguments *arguments)
{
    struct tristero_error error;
    char *server_uri = NULL;
    char *client_uri = NULL;
    int status = STATUS_FAILED;

    if (tristero_open(proxy, arguments->backend, &server_uri, &error) ||
        tristero_address(proxy, server_uri, &client_uri, &error))
        complain("%s", error.text);
    else
        status = (arguments->json ? print_json : print_plain)(server_uri, client_uri);
    free(server_uri);
    free(client_uri);
    return status;
}
