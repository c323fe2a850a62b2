/* tristero-tunnel address: where the clients of a tunnel connect. */
#include "clients/command.h"

#include <stdlib.h>

int address_command(struct tristero_proxy *proxy, const struct arguments *arguments)
{
    struct tristero_error error;
    char *client_uri;
    int status;

    if (tristero_address(proxy, arguments->operand, &client_uri, &error)) {
        complain("%s", error.text);
        return STATUS_FAILED;
    }
    status = print_line("%s", client_uri);
    free(client_uri);
    return status;
}
