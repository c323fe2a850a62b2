/* file_answer: a file, a part of it, or that the client has it. On the thread that
 * libmicrohttpd calls back on. */
#ifndef CLIENTS_FILE_ANSWER_H
#define CLIENTS_FILE_ANSWER_H

#include <microhttpd.h>
#include <stdbool.h>
#include <sys/stat.h>

/* Answers a GET or HEAD with the file, which about tells of, and takes it over. Its path
 * is for its type alone. */
enum MHD_Result file_answer_give(struct MHD_Connection *connection, bool is_head,
                                 const char *path, int file, const struct stat *about);

#endif
