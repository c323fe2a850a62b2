/* index_page: a folder's contents as a page of HTML, and names as they stand in links. */
#ifndef CLIENTS_INDEX_PAGE_H
#define CLIENTS_INDEX_PAGE_H

#include <stddef.h>
#include <stdio.h>

/* The page for the folder at path (see folder.h; "" or ending in "/") inside of folder:
 * folders first, each by name, none that begins with a dot. *page is the caller's to
 * free. 0 or a negative errno. Any thread. */
int index_page_make(int folder, const char *path, char **page, size_t *length);

/* Writes path percent-encoded, but for letters, digits, "-", ".", "_", "~" and "/". */
void path_write_encoded(FILE *stream, const char *path);

#endif
