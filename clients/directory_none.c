/* In the place of directory.c in a build without libmicrohttpd. */
#include "clients/directory.h"

#include <errno.h>
#include <stdio.h>

int directory_open(const char *path, struct directory **directory,
                   char error[DIRECTORY_ERROR_BYTES])
{
    (void)directory;
    snprintf(error, DIRECTORY_ERROR_BYTES, "can't serve the folder %.300s: this build is without "
             "libmicrohttpd", path);
    return -ENOSYS;
}

int directory_take(struct directory *directory, int connection)
{
    (void)directory, (void)connection;
    return -ENOSYS;
}

void directory_close(struct directory *directory)
{
    (void)directory;
}
