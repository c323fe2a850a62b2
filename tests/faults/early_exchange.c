/* early_exchange: preloaded into the daemon, has libssh ask for new keys after 1 MiB of
 * a connection, and not after gigabytes. */
#include <dlfcn.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <stdint.h>

int ssh_bind_accept_fd(ssh_bind bind, ssh_session session, socket_t fd)
{
    int (*real)(ssh_bind, ssh_session, socket_t) =
        (int (*)(ssh_bind, ssh_session, socket_t))dlsym(RTLD_NEXT, "ssh_bind_accept_fd");
    uint64_t bytes = 1 << 20;
    int done = real(bind, session, fd);

    if (done == SSH_OK)
        ssh_options_set(session, SSH_OPTIONS_REKEY_DATA, &bytes);
    return done;
}
