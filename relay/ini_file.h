/* ini_file: reads lines of "key = value", and [sections], by inih, and knows of each its
 * number. */
#ifndef RELAY_INI_FILE_H
#define RELAY_INI_FILE_H

/* What is made of the lines, which count from 1. What returns an int ends the reading by
 * anything but 0, and has told why. */
struct ini_taker {
    /* text is the whole line, from its "[" on. NULL: sections are nothing to know of. */
    int (*take_section)(void *context, int line, const char *text);
    /* section: "" before the first. */
    int (*take_pair)(void *context, int line, const char *section, const char *key,
                     const char *value);
    /* Tells what is wrong with a line that is neither. */
    void (*complain)(void *context, int line, const char *what);
};

/* The file is one that settings_file_open takes. 0; 1 if a line was refused, which has been
 * told; or a negative errno for a file that can't be read, for settings_file_error. */
int ini_file_read(const char *path, const struct ini_taker *taker, void *context);

#endif
