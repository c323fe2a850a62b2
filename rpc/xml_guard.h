/* xml_guard: looks at XML before xmlrpc-c 1.33.14 parses it, for what the parser
 * does badly and nobody here needs:
 *
 * - a document type declaration, the only place where entities are declared:
 *   they are expanded without a limit, 700 bytes to 134 MB in 15 s;
 * - the type i8, whose error path crashes: <i8>x</i8> is enough.
 *
 * The client library looks at a proxy's answers alike. Pure; any thread. */
#ifndef RPC_XML_GUARD_H
#define RPC_XML_GUARD_H

#include <stddef.h>

/* NULL when the document may be parsed, else what was expected. */
const char *xml_guard_look(const char *xml, size_t length);

#endif
