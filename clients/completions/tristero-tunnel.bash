# bash completion for tristero-tunnel. What there is, it asks the command's --help, so
# that it always knows what the installed one knows.

_tristero_tunnel()
{
    local word subcommand= argument=
    local help=$("$1" --help 2>/dev/null)
    local subcommands=$(sed -nE 's/^  ([a-z]+) .*/\1/p' <<<"$help")

    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ -n $word && " ${subcommands//$'\n'/ } " == *" $word "* ]] && subcommand=$word
    done
    # options that name no subcommand go with each
    local options=$(sed -nE -e "/\[$subcommand\]/b print" -e '/\[[a-z]+\]$/d' -e ':print' \
        -e 's/^  (--[a-z-]+) .*/\1/p' <<<"$help")

    COMPREPLY=()
    [[ $3 == --* ]] && argument=$(sed -nE "s/^  $3 ([A-Z]+) .*/\1/p" <<<"$help" 2>/dev/null)
    case $argument in
        NAME) COMPREPLY=($(compgen -W 'webmux ssh tcp' -- "$2")) ;;
        FILE) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
        PATH) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
        '')
            if [[ $2 == -* ]]; then
                COMPREPLY=($(compgen -W "$options" -- "$2"))
            elif [[ -z $subcommand ]]; then
                COMPREPLY=($(compgen -W "$subcommands" -- "$2"))
            fi ;;
    esac
} && complete -F _tristero_tunnel tristero-tunnel
