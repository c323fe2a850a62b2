#include "server/config.h"

#include "server/config_file.h"
#include "server/settings.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

/* Beyond the bytes that getopt gives back for short options, of which there are none. */
enum { OPTION_CONFIG = 256, OPTION_HELP, OPTION_VERSION, OPTION_FIRST_SETTING };

enum { WORD_SHOWN_BYTES = 100 };        /* of a wrong word, in its error */

struct command_line {
    enum config_wish wish;
    const char *file;                   /* --config; NULL: none */
    const char *values[SETTINGS_COUNT]; /* in the order of settings; NULL: not given */
};

static void fill_options(struct option options[SETTINGS_COUNT + 4])
{
    size_t count = 0;

    for (; count < SETTINGS_COUNT; count++)
        options[count] = (struct option){
            settings[count].name, settings[count].implied ? optional_argument : required_argument,
            NULL, OPTION_FIRST_SETTING + (int)count };
    options[count++] = (struct option){ "config", required_argument, NULL, OPTION_CONFIG };
    options[count++] = (struct option){ "help", no_argument, NULL, OPTION_HELP };
    options[count++] = (struct option){ "version", no_argument, NULL, OPTION_VERSION };
    options[count] = (struct option){ 0 };
}

static int explain_word(const char *word, const char *what, char error[CONFIG_ERROR_BYTES])
{
    char shown[WORD_SHOWN_BYTES];

    text_printable(word, strlen(word), shown, sizeof shown);
    snprintf(error, CONFIG_ERROR_BYTES, "%s: %s; see --help", shown, what);
    return -EINVAL;
}

/* What getopt did not take: choice is its answer, word the word it stopped at. */
static int explain_option(int choice, const char *word, char error[CONFIG_ERROR_BYTES])
{
    char letter[] = { '-', (char)optopt, '\0' };

    /* Of "-ab", getopt stops at a letter, and may still be before the word. */
    if (optopt > 0 && optopt < OPTION_CONFIG)
        word = letter;
    if (choice == ':')
        return explain_word(word, "expected a value after it", error);
    if (optopt >= OPTION_CONFIG)
        return explain_word(word, "expected no value", error);
    return explain_word(word, "there is no such option", error);
}

static int command_line_read(int argc, char **argv, struct command_line *line,
                             char error[CONFIG_ERROR_BYTES])
{
    struct option options[SETTINGS_COUNT + 4];
    int choice;

    fill_options(options);
    optind = 0;                         /* glibc: from the start, also a second time */
    opterr = 0;
    while ((choice = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (choice) {
        case ':':
        case '?':
            return explain_option(choice, argv[optind - 1], error);
        case OPTION_HELP:
            line->wish = CONFIG_SHOW_HELP;
            return 0;
        case OPTION_VERSION:
            line->wish = CONFIG_SHOW_VERSION;
            return 0;
        case OPTION_CONFIG:
            line->file = optarg;
            break;
        default:
            choice -= OPTION_FIRST_SETTING;
            line->values[choice] = optarg ? optarg : settings[choice].implied;
        }
    }
    if (optind < argc)
        return explain_word(argv[optind], "expected only options", error);
    return 0;
}

static int command_line_apply(const struct command_line *line, struct config *config,
                              char error[CONFIG_ERROR_BYTES])
{
    char where[32];

    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        if (!line->values[i] || !settings_apply(&settings[i], line->values[i], config))
            continue;
        snprintf(where, sizeof where, "--%s", settings[i].name);
        settings_explain(&settings[i], where, line->values[i], error);
        return -EINVAL;
    }
    return 0;
}

static void config_set_defaults(struct config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        if (settings[i].initial)
            settings_apply(&settings[i], settings[i].initial, config);
    config->max_tunnels_given = false;
    config->relay.tunnels_per_address = config->rpc.opens_per_minute = SIZE_MAX;
}

/* Whether callers may come from elsewhere. */
static bool callers_are_others(const struct config *config)
{
    return !net_address_is_loopback(&config->listen) || config->rpc.listener.has_trusted_proxy;
}

static bool ssh_servers_are_others(const struct config *config)
{
    return config->ssh_listen_given && !net_address_is_loopback(&config->ssh_listen);
}

/* Programs of this machine are not each other's enemies: what is limited by
 * address is so by itself only where callers may come from elsewhere. */
static void fill_in_limits_by_address(struct config *config)
{
    bool faces_others = callers_are_others(config) || ssh_servers_are_others(config);

    if (config->relay.tunnels_per_address == SIZE_MAX)
        config->relay.tunnels_per_address = faces_others ? DEFAULT_TUNNELS_PER_ADDRESS : 0;
    if (config->rpc.opens_per_minute == SIZE_MAX)
        config->rpc.opens_per_minute = faces_others ? DEFAULT_OPENS_PER_MINUTE : 0;
}

/* Whom others reach serves users or, in so many words, everybody. */
static int check_openness(const struct config *config, char error[CONFIG_ERROR_BYTES])
{
    char address[NET_ADDRESS_TEXT_BYTES];

    if (config->users[0] && config->open_to_all) {
        snprintf(error, CONFIG_ERROR_BYTES,
                 "expected either users, or open-to-all, which asks nobody who they are; got both");
        return -EINVAL;
    }
    if (config->users[0] || config->open_to_all)
        return 0;
    if (ssh_servers_are_others(config) && !config->authorized_keys[0]) {
        net_address_format(&config->ssh_listen, address);
        snprintf(error, CONFIG_ERROR_BYTES,
                 "ssh-listen: others than this machine reach %s, and could open tunnels: name "
                 "those who may with --ssh-authorized-keys FILE or --users FILE, or give "
                 "--open-to-all if everybody may", address);
        return -EINVAL;
    }
    if (!callers_are_others(config))
        return 0;
    if (net_address_is_loopback(&config->listen))
        strcpy(address, "the trusted proxy");
    else
        net_address_format(&config->listen, address);
    snprintf(error, CONFIG_ERROR_BYTES,
             "listen: others than this machine reach %s, and could open tunnels: name those who "
             "may with --users FILE, or give --open-to-all if everybody may", address);
    return -EINVAL;
}

const char *config_fixed_difference(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        if (settings[i].is_same && !settings[i].is_same(a, b))
            return settings[i].name;
    return NULL;
}

int config_read(int argc, char **argv, struct config *config, enum config_wish *wish,
                char error[CONFIG_ERROR_BYTES])
{
    struct command_line line = { .wish = CONFIG_SERVE };
    int err = command_line_read(argc, argv, &line, error);

    *wish = line.wish;
    if (err || line.wish != CONFIG_SERVE)
        return err;
    config_set_defaults(config);
    if (line.file)
        err = config_file_read(line.file, config, error);
    if (!err)
        err = command_line_apply(&line, config, error);
    if (!err && !config->relay_listen_given) {
        config->relay.listen = config->listen;
        net_address_set_port(&config->relay.listen, 0);
    }
    fill_in_limits_by_address(config);
    config->ssh.opens_per_minute = config->rpc.opens_per_minute;
    /* By ssh, too, everybody may open tunnels where everybody may call, unless keys
     * tell otherwise. */
    config->ssh.open_to_all = config->open_to_all ||
                              (!config->users[0] && !config->authorized_keys[0]);
    return err ? err : check_openness(config, error);
}

size_t config_port_pairs(const struct config *config)
{
    return ((size_t)config->relay.port_high - config->relay.port_low + 1) / 2;
}

size_t config_tunnels_at_once(const struct config *config)
{
    size_t pairs = config_port_pairs(config);

    return config->relay.max_tunnels < pairs ? config->relay.max_tunnels : pairs;
}

static void write_help_line(FILE *out, const char *name, const char *argument,
                            bool is_optional, const char *meaning)
{
    char option[40];

    snprintf(option, sizeof option, is_optional ? "--%s[=%s]" : "--%s %s", name, argument);
    fprintf(out, "  %-28s %s\n", option, meaning);
}

void config_write_help(FILE *out)
{
    fputs("Usage: tristero-tunneld [OPTION]...\n"
          "Serves tunnels, through which servers behind a NAT or firewall are reached.\n"
          "\n", out);
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        const struct setting *setting = &settings[i];

        write_help_line(out, setting->name, setting->argument, setting->implied != NULL,
                        setting->meaning);
        fprintf(out, "  %-28s (default: %s)\n", "",
                setting->initial ? setting->initial : setting->otherwise);
    }
    write_help_line(out, "config", "FILE", false, "a file of lines \"key = value\", the keys being the");
    fprintf(out, "  %-28s options above; the command line wins over it\n", "");
    write_help_line(out, "help", "", false, "show this, and exit");
    write_help_line(out, "version", "", false, "show the version, and exit");
}
