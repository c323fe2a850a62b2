# fish completion for tristero-tunnel. What there is, it asks the command's --help, so
# that it always knows what the installed one knows.

complete -c tristero-tunnel -f
tristero-tunnel --help 2>/dev/null | while read -l line
    set line (string trim -- $line)
    if set -l found (string match -r '^--([a-z-]+) ([A-Z]*) *(.*)$' -- $line)
        set -l of (string match -ra '\[([a-z]+)\]' -- $found[4] | string match -rv '\[')
        set -l meaning (string replace -ra ' \[[a-z]+\]' '' -- $found[4])
        set -l flags -l $found[2] -d $meaning
        # options that name no subcommand go with each
        test -n "$of"; and set -a flags -n "__fish_seen_subcommand_from $of"
        switch "$found[3]"
            case ''
            case NAME
                set -a flags -x -a 'webmux ssh tcp'
            case FILE
                set -a flags -r -F
            case PATH
                set -a flags -x -a '(__fish_complete_directories)'
            case '*'
                set -a flags -x
        end
        complete -c tristero-tunnel $flags
    else if set -l found (string match -r '^([a-z]+) .*  +([^ ].*)$' -- $line)
        complete -c tristero-tunnel -n __fish_use_subcommand -a $found[2] -d $found[3]
    end
end
