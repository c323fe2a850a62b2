/* SET: an option of libcurl. */
#ifndef CLIENTS_CURL_SET_H
#define CLIENTS_CURL_SET_H

#include <curl/curl.h>

/* In functions that have a CURLcode code, which keeps the first failure: without one of
 * its settings, a transfer might go another way, or as somebody else. */
#define SET(curl, option, value) (code = code ? code : curl_easy_setopt(curl, option, value))

#endif
