/* The first write in a channel.
 *
 * To a server that takes packets of exactly 10 bytes, libssh writes packets with
 * nothing in them, one after the other, until they fill 256 MiB: what it counts as a
 * header takes all of each. It tells nobody how large a packet may be, but tells its
 * log how much it has put into one. In between it is as whole as when it returns. */
#include "relay/ssh_carrier.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

static void on_log(int priority, const char *function, const char *text, void *context)
{
    jmp_buf *out = context;

    (void)priority;
    if (out && strcmp(function, "channel_write_common") == 0 &&
        strcmp(text, "channel_write_common: ssh_channel_write wrote 0 bytes") == 0)
        longjmp(*out, 1);
}

int ssh_first_write(ssh_channel channel, const void *bytes, size_t length)
{
    const int level = ssh_get_log_level();      /* this thread's, as all of it */
    volatile int written = -EMSGSIZE;
    jmp_buf out;

    ssh_set_log_callback(on_log);
    ssh_set_log_userdata(&out);
    ssh_set_log_level(SSH_LOG_PACKET);
    if (setjmp(out) == 0)
        written = ssh_channel_write(channel, bytes, (uint32_t)length);
    ssh_set_log_level(level);
    ssh_set_log_userdata(NULL);
    return written;
}
