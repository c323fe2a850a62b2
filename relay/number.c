#include "relay/number.h"

#include <errno.h>

int number_parse(const char *text, size_t length, int64_t lowest, int64_t highest, int64_t *number)
{
    int64_t sum = 0;

    for (size_t i = 0; i < length; i++) {
        int digit = text[i] - '0';

        if (digit < 0 || digit > 9 || sum > (highest - digit) / 10)
            return -EINVAL;
        sum = sum * 10 + digit;
    }
    if (!length || sum < lowest || sum > highest)
        return -EINVAL;
    *number = sum;
    return 0;
}
