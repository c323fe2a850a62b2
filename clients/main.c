/* tristero-tunnel: reads the command line and runs the subcommand. */
#include <config.h>

#include "clients/command.h"
#include "clients/outlet.h"
#include "relay/number.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN = 1, ADDRESS = 2, EXPOSE = 4, HOSTKEY = 8, ANY = OPEN | ADDRESS | EXPOSE | HOSTKEY };
enum { TIMEOUT_MAX_S = 3600 };

static const struct subcommand {
    const char *name;
    int mask;
    const char *operand;                /* what it takes, in brackets if it may be left out; or NULL */
    int (*run)(struct tristero_proxy *proxy, const struct arguments *arguments);
} subcommands[] = {
    { "open", OPEN, NULL, open_command },
    { "address", ADDRESS, "URI", address_command },
    { "expose", EXPOSE, "[[HOST:]PORT]", expose_command },
    { "hostkey", HOSTKEY, NULL, hostkey_command },
};

enum { SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

/* Every option, and the subcommands that it goes with. */
static const struct option_help {
    const char *name;
    const char *argument;               /* or NULL */
    int goes_with;
    const char *meaning;
} options[] = {
    { "proxy", "URL", ANY, "the proxy's XML-RPC; else the environment's TRISTERO_PROXY" },
    { "timeout", "S", ANY, "seconds to wait for the proxy's answers and connections (30)" },
    { "backend", "NAME", OPEN | EXPOSE, "the way to attach: webmux, ssh or tcp; see the manual" },
    { "json", NULL, OPEN | EXPOSE, "prints JSON, an object a line" },
    { "dir", "PATH", EXPOSE, "exposes the files of a folder" },
    { "config", "FILE", EXPOSE, "exposes what a file says, a section for each service" },
    { "qr", NULL, EXPOSE, "shows a QR code of the address" },
    { "quiet", NULL, EXPOSE, "prints addresses alone" },
    { "connections", "N", EXPOSE, "webmux: N to the proxy, each for 127 clients at once (1)" },
    { "once", NULL, EXPOSE, "tcp: stops when the first tunnel has ended" },
    { "tunnels", "N", EXPOSE, "tcp: keeps N tunnels open, each with an address of its own (1)" },
    { "server-first", NULL, EXPOSE, "tcp: connects at once, for services that speak first" },
    { "help", NULL, ANY, "prints this" },
    { "version", NULL, ANY, "prints the version" },
};

enum { OPTIONS = sizeof options / sizeof options[0] };

static int say(enum outlet outlet, const char *before, const char *format, va_list arguments)
{
    char *text;
    int err;

    if (vasprintf(&text, format, arguments) < 0)
        return -ENOMEM;
    err = outlet_print(outlet, OUTLET_DEAR, "%s%s\n", before, text);
    free(text);
    return err;
}

void complain(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(OUTLET_ERRORS, "tristero-tunnel: ", format, arguments);
    va_end(arguments);
}

int print_line(const char *format, ...)
{
    va_list arguments;
    int err;

    va_start(arguments, format);
    err = say(OUTLET_OUTPUT, "", format, arguments);
    va_end(arguments);
    if (!err)
        return STATUS_OK;
    complain("can't write to standard output: %s", strerrordesc_np(-err));
    return STATUS_FAILED;
}

static int print_option(const struct option_help *option)
{
    char left[32], where[64] = "";
    size_t used = 0;

    snprintf(left, sizeof left, "--%s%s%s", option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    for (size_t i = 0; option->goes_with != ANY && i < SUBCOMMANDS; i++) {
        if (option->goes_with & subcommands[i].mask)
            used += (size_t)snprintf(where + used, sizeof where - used, " [%s]", subcommands[i].name);
    }
    return print_line("  %-20s %s%s", left, option->meaning, where);
}

static int print_help(void)
{
    int status = print_line(
        "Usage: tristero-tunnel SUBCOMMAND [OPTION]...\n"
        "Asks a Tristero proxy for tunnels.\n"
        "\n"
        "  open                 opens a tunnel, prints where its server and its clients connect\n"
        "  address URI          prints where the clients of the tunnel at URI connect\n"
        "  expose [HOST:]PORT   makes a service reachable: a port, unix:PATH, or --dir PATH\n"
        "  hostkey              prints the proxy's ssh key, for ~/.ssh/known_hosts\n");

    for (size_t i = 0; i < OPTIONS && !status; i++)
        status = print_option(&options[i]);
    return status ? status : print_line("\nExample: tristero-tunnel expose 8080 "
                                        "--proxy http://127.0.0.1:8000/RPC2");
}

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(OUTLET_ERRORS, "tristero-tunnel: ", format, arguments);
    va_end(arguments);
    fputs("Try \"tristero-tunnel --help\".\n", stderr);
    return STATUS_USAGE;
}

static int take_number(const char *option, const char *text, int64_t highest, int64_t *number)
{
    if (!number_parse(text, strlen(text), 1, highest, number))
        return STATUS_OK;
    return usage("--%s is \"%s\", expected a whole number from 1 to %" PRId64, option, text, highest);
}

/* One option. STATUS_OK, or the status to exit with. */
static int take_option(const char *name, const char *value, struct arguments *arguments)
{
    int64_t number = 0;
    int status = STATUS_OK;

    if (!strcmp(name, "proxy")) {
        arguments->proxy_url = value;
    } else if (!strcmp(name, "backend")) {
        arguments->backend = value;
    } else if (!strcmp(name, "json")) {
        arguments->json = true;
    } else if (!strcmp(name, "once")) {
        arguments->once = true;
    } else if (!strcmp(name, "qr")) {
        arguments->with_qr = true;
    } else if (!strcmp(name, "quiet")) {
        arguments->quiet = true;
    } else if (!strcmp(name, "dir")) {
        arguments->folder = value;
    } else if (!strcmp(name, "config")) {
        arguments->config = value;
    } else if (!strcmp(name, "server-first")) {
        arguments->server_first = true;
    } else if (!strcmp(name, "tunnels")) {
        status = take_number(name, value, TUNNELS_MAX, &number);
        arguments->tunnels = (unsigned)number;
    } else if (!strcmp(name, "connections")) {
        status = take_number(name, value, TRISTERO_CONNECTIONS_MAX, &number);
        arguments->connections = (unsigned)number;
    } else if (!strcmp(name, "timeout")) {
        status = take_number(name, value, TIMEOUT_MAX_S, &number);
        arguments->timeout_s = (int)number;
    }
    return status;
}

static const struct subcommand *find_subcommand(const char *name)
{
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (!strcmp(subcommands[i].name, name))
            return &subcommands[i];
    }
    return NULL;
}

int proxy_make(const struct arguments *arguments, const char *place, const char *url,
               struct tristero_proxy **proxy)
{
    struct tristero_options timeouts = {
        .call_timeout_ms = arguments->timeout_s * 1000,
        .attach_timeout_ms = arguments->timeout_s * 1000,
    };
    struct tristero_error error;

    if (!url || !*url)
        return usage("%sno proxy is given: expected --proxy URL, or TRISTERO_PROXY in the "
                     "environment, such as http://127.0.0.1:8000/RPC2", place);
    if (tristero_proxy_new(url, &timeouts, proxy, &error)) {
        complain("%s%s", place, error.text);
        return error.status == TRISTERO_INVALID ? STATUS_USAGE : STATUS_FAILED;
    }
    return STATUS_OK;
}

static int run(const struct subcommand *subcommand, const struct arguments *arguments)
{
    struct tristero_proxy *proxy = NULL;
    int status = STATUS_OK;

    if (subcommand->mask != EXPOSE)
        status = proxy_make(arguments, "", arguments->proxy_url, &proxy);
    if (!status)
        status = subcommand->run(proxy, arguments);
    tristero_proxy_free(proxy);
    return status;
}

/* The words that are left once the options are taken out. */
static int take_words(char **words, unsigned given, struct arguments *arguments)
{
    const struct subcommand *subcommand;

    if (!words[0])
        return usage("expected a subcommand: open, address, expose or hostkey");
    subcommand = find_subcommand(words[0]);
    if (!subcommand)
        return usage("unknown subcommand \"%s\", expected open, address, expose or hostkey", words[0]);
    if (subcommand->operand && *subcommand->operand != '[' && !words[1])
        return usage("%s: expected %s after it", subcommand->name, subcommand->operand);
    if (words[1] && (!subcommand->operand || words[2]))
        return usage("%s: unexpected \"%s\"", subcommand->name,
                     subcommand->operand ? words[2] : words[1]);
    for (size_t i = 0; i < OPTIONS; i++) {
        if ((given & 1u << i) && !(options[i].goes_with & subcommand->mask))
            return usage("%s: --%s does not go with it", subcommand->name, options[i].name);
    }
    arguments->operand = words[1];
    return run(subcommand, arguments);
}

/* A standard stream that is closed must not become a socket's number, or what is
 * printed goes to the socket. It fails to be written to instead. */
static void keep_standard_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct option table[OPTIONS + 1] = { 0 };
    struct arguments arguments = {
        .proxy_url = getenv("TRISTERO_PROXY"),
        .timeout_s = 30,
    };
    unsigned given = 0;
    int index;
    int found;

    keep_standard_streams();
    signal(SIGPIPE, SIG_IGN);           /* a failed write says so itself */
    signal(SIGCHLD, SIG_DFL);           /* or ssh could not be waited for */
    for (size_t i = 0; i < OPTIONS; i++)
        table[i] = (struct option){ options[i].name, options[i].argument != NULL, NULL, 1 };
    while ((found = getopt_long(argc, argv, "", table, &index)) != -1) {
        int status;

        if (found == '?')               /* getopt_long has said what is wrong */
            return STATUS_USAGE;
        if (!strcmp(options[index].name, "help"))
            return print_help();
        if (!strcmp(options[index].name, "version"))
            return print_line("tristero-tunnel " PACKAGE_VERSION);
        given |= 1u << index;
        status = take_option(options[index].name, optarg, &arguments);
        if (status)
            return status;
    }
    return take_words(argv + optind, given, &arguments);
}
