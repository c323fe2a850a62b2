/* tristero-tunnel open: a tunnel, and where its two ends are. */
#include "clients/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <xmlrpc-c/base.h>
#include <xmlrpc-c/json.h>

static int print_json(const char *server_uri, const char *client_uri)
{
    int status = STATUS_FAILED;
    xmlrpc_mem_block *json;
    xmlrpc_value *object;
    xmlrpc_env env;

    xmlrpc_env_init(&env);
    object = xmlrpc_build_value(&env, "{s:s,s:s}", "server", server_uri, "client", client_uri);
    json = xmlrpc_mem_block_new(&env, 0);
    if (!env.fault_occurred)
        xmlrpc_serialize_json(&env, object, json);
    if (env.fault_occurred)
        complain("can't make the JSON: %s", env.fault_string);
    else
        status = print_line("%.*s", (int)xmlrpc_mem_block_size(json),
                            (const char *)xmlrpc_mem_block_contents(json));
    if (object)
        xmlrpc_DECREF(object);
    if (json)
        xmlrpc_mem_block_free(json);
    xmlrpc_env_clean(&env);
    return status;
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
