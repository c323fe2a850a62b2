#include "rpc/http_guard.h"

#include "relay/log.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A piece of the header; not terminated. */
struct piece {
    const char *text;
    size_t length;
};

/* What the fields said. */
struct fields {
    bool has_length, has_host, has_type, has_authorization;
    size_t body_bytes, body_max;
};

static bool refuse(struct http_request *request, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(struct http_request *request, int status, const char *format, ...)
{
    va_list arguments;

    request->status = status;
    va_start(arguments, format);
    vsnprintf(request->reason, sizeof request->reason, format, arguments);
    va_end(arguments);
    return false;
}

void http_request_refuse(struct http_request *request, int status, const char *reason)
{
    refuse(request, status, "%s", reason);
}

static bool piece_is(struct piece piece, const char *text)
{
    return piece.length == strlen(text) && memcmp(piece.text, text, piece.length) == 0;
}

static bool piece_is_nocase(struct piece piece, const char *text)
{
    return piece.length == strlen(text) && strncasecmp(piece.text, text, piece.length) == 0;
}

/* For a reason, which is logged: the piece, printable and short. What stands before an
 * "@" may be a name and password. */
struct shown { char text[44]; };

static struct shown show(struct piece piece)
{
    const char *at = memrchr(piece.text, '@', piece.length);
    struct shown shown;

    if (at)
        piece = (struct piece){ at, piece.length - (size_t)(at - piece.text) };
    text_printable(piece.text, piece.length, shown.text, sizeof shown.text);
    /* It does not see an array being filled that is in a struct. */
    /* cppcheck-suppress uninitvar */
    return shown;
}

/* Cuts off what stands before the first separator, and the separator. */
static struct piece cut(struct piece *rest, char separator)
{
    const char *end = memchr(rest->text, separator, rest->length);
    struct piece head = { rest->text, end ? (size_t)(end - rest->text) : rest->length };
    size_t taken = head.length + (end != NULL);

    rest->text += taken;
    rest->length -= taken;
    return head;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct piece trim(struct piece piece)
{
    while (piece.length && is_blank(piece.text[0]))
        piece.text++, piece.length--;
    while (piece.length && is_blank(piece.text[piece.length - 1]))
        piece.length--;
    return piece;
}

/* A header line without its CR LF, or LF alone. */
static struct piece cut_line(struct piece *rest)
{
    struct piece line = cut(rest, '\n');

    if (line.length && line.text[line.length - 1] == '\r')
        line.length--;
    return line;
}

static bool is_port(struct piece text)
{
    unsigned long port = 0;

    if (text.length == 0 || text.length > 5)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        if (text.text[i] < '0' || text.text[i] > '9')
            return false;
        port = port * 10 + (unsigned long)(text.text[i] - '0');
    }
    return port >= 1 && port <= UINT16_MAX;
}

/* The host, in lower case, of HOST or HOST:PORT. */
static bool host_parse(struct piece authority, char host[URI_HOST_BYTES])
{
    int taken = uri_host_parse(authority.text, authority.length, host);
    struct piece rest;

    if (taken < 0)
        return false;
    rest = (struct piece){ authority.text + taken, authority.length - (size_t)taken };
    if (rest.length == 0)
        return true;
    return rest.text[0] == ':' && is_port((struct piece){ rest.text + 1, rest.length - 1 });
}

/* "http://host:port/RPC2", as a proxy would be asked, means "/RPC2" here. */
static struct piece path_of(struct piece target)
{
    static const char scheme[] = "http://";
    size_t length = sizeof scheme - 1;
    struct piece rest = { target.text + length, target.length - length };
    char host[URI_HOST_BYTES];

    if (target.length <= length || memcmp(target.text, scheme, length) != 0 ||
        !memchr(rest.text, '/', rest.length) || !host_parse(cut(&rest, '/'), host))
        return target;
    return (struct piece){ rest.text - 1, rest.length + 1 };
}

static bool check_request_line(struct piece line, struct http_request *request)
{
    struct piece method = cut(&line, ' ');
    struct piece target = cut(&line, ' ');
    struct piece path = path_of(target);

    if (!piece_is(line, "HTTP/1.1") && !piece_is(line, "HTTP/1.0")) {
        if (line.length > 5 && memcmp(line.text, "HTTP/", 5) == 0)
            return refuse(request, 505, "expected HTTP/1.1 or HTTP/1.0, got \"%s\"",
                          show(line).text);
        return refuse(request, 400, "expected a request line such as \"POST /RPC2 HTTP/1.1\"");
    }
    if (!piece_is(path, "/RPC2") && !piece_is(path, "/"))
        return refuse(request, 404, "nothing is here at \"%s\"; XML-RPC is served at /RPC2",
                      show(target).text);
    if (!piece_is(method, "POST"))
        return refuse(request, 405, "this is an XML-RPC service: POST a call to /RPC2, got \"%s\"",
                      show(method).text);
    return true;
}

static bool check_length(struct piece value, struct fields *fields, struct http_request *request)
{
    size_t bytes = 0;

    if (fields->has_length)
        return refuse(request, 400, "expected one Content-Length, got two");
    fields->has_length = true;
    for (size_t i = 0; i < value.length; i++) {
        if (value.text[i] < '0' || value.text[i] > '9')
            return refuse(request, 400, "expected a number in Content-Length, got \"%s\"",
                          show(value).text);
        if (bytes <= fields->body_max)
            bytes = bytes * 10 + (size_t)(value.text[i] - '0');
    }
    if (bytes > fields->body_max)
        return refuse(request, 413, "request-size: a call may have %zu bytes, Content-Length is %s",
                      fields->body_max, show(value).text);
    if (bytes == 0)
        return refuse(request, 400, "expected a call, got an empty body");
    fields->body_bytes = bytes;
    return true;
}

static bool check_host(struct piece value, struct fields *fields, struct http_request *request)
{
    if (fields->has_host)
        return refuse(request, 400, "expected one Host, got two");
    fields->has_host = true;
    if (host_parse(value, request->host))
        return true;
    return refuse(request, 400, "expected HOST, HOST:PORT or [IPv6]:PORT in Host, got \"%s\"",
                  show(value).text);
}

static bool check_type(struct piece value, struct fields *fields, struct http_request *request)
{
    struct piece rest = value;
    struct piece type = trim(cut(&rest, ';'));

    fields->has_type = true;
    if (piece_is_nocase(type, "text/xml") || piece_is_nocase(type, "application/xml"))
        return true;
    return refuse(request, 415, "expected Content-Type text/xml, got \"%s\"", show(value).text);
}

/* "name:password", of which only the password may have a colon. */
static bool credentials_split(struct piece text, struct credentials *credentials)
{
    struct piece password = text;
    struct piece name = cut(&password, ':');

    if (name.length == text.length || name.length >= sizeof credentials->name ||
        password.length >= sizeof credentials->password || memchr(text.text, '\0', text.length))
        return false;
    memcpy(credentials->name, name.text, name.length);
    memcpy(credentials->password, password.text, password.length);
    return true;
}

/* What is not understood, or is longer than any that can be right, counts as
 * none: who asks for credentials then asks for these. */
static bool check_authorization(struct piece value, struct fields *fields,
                                struct http_request *request)
{
    struct piece encoded = value;
    struct piece scheme = cut(&encoded, ' ');
    char text[sizeof request->credentials];
    size_t length;

    if (fields->has_authorization)
        return refuse(request, 400, "expected one Authorization, got two");
    fields->has_authorization = true;
    encoded = trim(encoded);
    if (!piece_is_nocase(scheme, "basic") ||
        sodium_base642bin((unsigned char *)text, sizeof text, encoded.text, encoded.length, NULL,
                          &length, NULL, sodium_base64_VARIANT_ORIGINAL) < 0)
        return true;
    request->has_credentials = credentials_split((struct piece){ text, length },
                                                 &request->credentials);
    sodium_memzero(text, sizeof text);
    return true;
}

/* A proxy adds whom it heard at the end; what stands before may be invented. */
static void read_forwarded(struct piece value, struct http_request *request)
{
    struct piece last = value;

    while (memchr(last.text, ',', last.length))
        cut(&last, ',');
    last = trim(last);
    if (last.length == 0 || last.length >= sizeof request->forwarded_for)
        last = (struct piece){ "?", 1 };       /* no address, in any case */
    memcpy(request->forwarded_for, last.text, last.length);
    request->forwarded_for[last.length] = '\0';
}

static bool check_field(struct piece name, struct piece value, struct fields *fields,
                        struct http_request *request)
{
    if (piece_is_nocase(name, "content-length"))
        return check_length(value, fields, request);
    if (piece_is_nocase(name, "host"))
        return check_host(value, fields, request);
    if (piece_is_nocase(name, "content-type"))
        return check_type(value, fields, request);
    if (piece_is_nocase(name, "authorization"))
        return check_authorization(value, fields, request);
    /* Programs that call send none, and pages always do: also one whose name was made
     * to mean this machine, which the browser then takes for the page's own. */
    if (piece_is_nocase(name, "origin"))
        return refuse(request, 403, "this service is not for web pages");
    if (piece_is_nocase(name, "transfer-encoding"))
        return refuse(request, 411, "expected a body with Content-Length, got Transfer-Encoding");
    if (piece_is_nocase(name, "x-forwarded-for"))
        read_forwarded(value, request);
    if (piece_is_nocase(name, "expect"))
        request->expects_continue = piece_is_nocase(value, "100-continue");
    return true;
}

static bool is_name_character(unsigned char c)
{
    return c > ' ' && c < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", c);
}

static bool is_name(struct piece piece)
{
    bool is_one = piece.length > 0;

    for (size_t i = 0; is_one && i < piece.length; i++)
        is_one = is_name_character((unsigned char)piece.text[i]);
    return is_one;
}

static bool has_control_character(struct piece piece)
{
    bool has_one = false;

    for (size_t i = 0; !has_one && i < piece.length; i++)
        has_one = (unsigned char)piece.text[i] < ' ' && piece.text[i] != '\t';
    return has_one;
}

/* Of what is no field nothing is shown: it may go on with one that is secret. */
static bool check_line(struct piece line, struct fields *fields, struct http_request *request)
{
    struct piece value = line;
    struct piece name = cut(&value, ':');

    if (name.length == line.length || !is_name(name))
        return refuse(request, 400, "expected a header field \"Name: value\", in one line and with "
                      "no blank before the colon");
    if (has_control_character(value))
        return refuse(request, 400, "expected no control characters in the field \"%s\"",
                      show(name).text);
    return check_field(name, trim(value), fields, request);
}

/* The end of the header: the first empty line after the request line. */
static size_t header_length(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != '\n')
            continue;
        if (i + 1 < length && bytes[i + 1] == '\n')
            return i + 2;
        if (i + 2 < length && bytes[i + 1] == '\r' && bytes[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

static bool check_header(struct piece header, struct fields *fields, struct http_request *request)
{
    struct piece request_line = cut_line(&header);
    bool is_new = request_line.length && request_line.text[request_line.length - 1] == '1';

    if (!check_request_line(request_line, request))
        return false;
    for (;;) {
        struct piece line = cut_line(&header);
        if (line.length == 0)
            break;
        if (!check_line(line, fields, request))
            return false;
    }
    if (is_new && !fields->has_host)
        return refuse(request, 400, "expected a Host field in an HTTP/1.1 request");
    if (!fields->has_length)
        return refuse(request, 411, "expected a Content-Length field");
    if (!fields->has_type)
        return refuse(request, 415, "expected Content-Type text/xml, got none");
    return true;
}

/* Robust servers pass over empty lines before a request. */
static size_t empty_lines(const char *bytes, size_t length)
{
    size_t skipped = 0;

    for (;;) {
        if (skipped < length && bytes[skipped] == '\n')
            skipped++;
        else if (skipped + 1 < length && bytes[skipped] == '\r' && bytes[skipped + 1] == '\n')
            skipped += 2;
        else
            return skipped;
    }
}

enum http_verdict http_guard_look(const char *bytes, size_t length, size_t body_max,
                                  struct http_request *request)
{
    size_t skipped = empty_lines(bytes, length);
    size_t header_bytes = header_length(bytes + skipped, length - skipped);
    struct fields fields = { .body_max = body_max };

    memset(request, 0, sizeof *request);
    if ((header_bytes ? skipped + header_bytes : length) > HTTP_HEADER_BYTES) {
        refuse(request, 431, "a request's header may have %d bytes", HTTP_HEADER_BYTES);
        return HTTP_REFUSED;
    }
    if (!header_bytes)
        return HTTP_INCOMPLETE;
    if (!check_header((struct piece){ bytes + skipped, header_bytes }, &fields, request))
        return HTTP_REFUSED;
    request->header_bytes = skipped + header_bytes;
    request->bytes = request->header_bytes + fields.body_bytes;
    return length >= request->bytes ? HTTP_COMPLETE : HTTP_INCOMPLETE;
}

static const char *status_text(int status)
{
    static const struct { int status; const char *text; } texts[] = {
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 411, "Length Required" },
        { 413, "Content Too Large" },
        { 415, "Unsupported Media Type" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Error";
}

size_t http_answer_header_write(size_t xml_bytes, char text[HTTP_ANSWER_HEADER_BYTES])
{
    return (size_t)snprintf(text, HTTP_ANSWER_HEADER_BYTES,
                            "HTTP/1.1 200 OK\r\n"
                            "Content-Type: text/xml; charset=utf-8\r\n"
                            "Content-Length: %zu\r\n"
                            "Connection: close\r\n\r\n",
                            xml_bytes);
}

size_t http_refusal_write(const struct http_refusal *refusal, char text[HTTP_REFUSAL_BYTES])
{
    char retry[40] = "";
    const char *more = retry;

    if (refusal->retry_after_s)
        snprintf(retry, sizeof retry, "Retry-After: %d\r\n", refusal->retry_after_s);
    if (refusal->status == 401)
        more = "WWW-Authenticate: Basic realm=\"tristero-tunnel\", charset=\"UTF-8\"\r\n";
    if (refusal->status == 405)
        more = "Allow: POST\r\n";
    return (size_t)snprintf(text, HTTP_REFUSAL_BYTES,
                            "HTTP/1.1 %d %s\r\n"
                            "Content-Type: text/plain; charset=utf-8\r\n"
                            "Content-Length: %zu\r\n"
                            "%s"
                            "Connection: close\r\n\r\n"
                            "%s\n",
                            refusal->status, status_text(refusal->status),
                            strlen(refusal->reason) + 1, more, refusal->reason);
}
