# Completion for bash. Commands and options are those that the command itself tells.
_bitstack() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} commands
    COMPREPLY=()
    commands=$("$program" help 2>/dev/null | sed -n 's/^  \([a-z-]*\)  *[^ ].*/\1/p')
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands help" -- "$word")
    elif [ "$command" = help ]; then
        [ "$COMP_CWORD" -gt 2 ] || mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
    elif [ "${word:0:1}" = - ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" help "$command" 2>/dev/null | grep -o -E -e '(^|[][ (|,])--?[a-z][a-z-]*' | tr -d '[](|, ' | sort -u)" -- "$word")
    fi
}
complete -o default -F _bitstack bitstack
