/* config_file: reads a file of "key = value" lines into a config. */
#ifndef SERVER_CONFIG_FILE_H
#define SERVER_CONFIG_FILE_H

#include "server/config.h"

/* 0; or a negative errno, and then error names the file, the line if one was
 * to blame, and what was expected. config may be half changed then. */
int config_file_read(const char *path, struct config *config, char error[CONFIG_ERROR_BYTES]);

#endif
