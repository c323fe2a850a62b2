/* What stands in for libFuzzer where there is none: gives the inputs of one
 * corpus, ./check's seeds and what was found with them, to the fuzzer once. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_BYTES_MAX = 256 * 1024 };

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static void replay(const char *path)
{
    uint8_t *bytes = malloc(INPUT_BYTES_MAX);
    FILE *file = fopen(path, "re");
    uint8_t *input;
    size_t length;

    assert(bytes && file);
    length = fread(bytes, 1, INPUT_BYTES_MAX, file);
    assert(!ferror(file) && feof(file));
    fclose(file);
    input = realloc(bytes, length ? length : 1);        /* for AddressSanitizer to see its end */
    assert(input);
    LLVMFuzzerTestOneInput(input, length);
    free(input);
}

/* "tests/fuzz/fuzz_uri" has its corpus in "tests/fuzz/corpus/uri". */
static void corpus_of(const char *program, char *path, size_t room)
{
    const char *name = strrchr(program, '/');
    const char *sources = getenv("SRCDIR");

    name = name ? name + 1 : program;
    assert(sources && strncmp(name, "fuzz_", 5) == 0);
    assert(snprintf(path, room, "%s/tests/fuzz/corpus/%s", sources, name + 5) < (int)room);
}

int main(int argc, char **argv)
{
    char folder_path[4000], path[4300];
    const struct dirent *entry;
    unsigned count = 0;
    DIR *folder;

    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    corpus_of(argv[0], folder_path, sizeof folder_path);
    folder = opendir(folder_path);
    assert(folder);
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder_path, entry->d_name);
        printf("%s\n", path);
        fflush(stdout);                 /* the last one shown is the one that crashes */
        replay(path);
        count++;
    }
    closedir(folder);
    assert(count > 0);
    return EXIT_SUCCESS;
}
