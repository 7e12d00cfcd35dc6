# Reads a script's words by the table of options in its own help, and refuses what is not there, before anything is installed, built or begun.
# Sourced by the scripts here, whose help is the comment that they begin with.
#
# A line of the help that begins with two spaces and `--name` is an option; what stands behind one more space is its value: N is a whole
# number from 1 on, S one from 0 on, SIZE a size, PATTERN a regular expression, a|b one of these words, a,b any of them, and of another only
# that there is one is asked.

declare -A option=() # by name: the value, of a repeated one the last; `yes` of one that takes none
words=()             # what is no option; allowed where the script sets takes_words=yes

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]%/*}/$(basename "$0")"; }

# refuse MESSAGE [LINE]: ends the script as wrong usage.
refuse() {
  local script
  script=scripts/$(basename "$0")
  printf '%s: %s\n  try: %s --help\n' "$script" "$1" "$script" >&2
  [ -z "${2:-}" ] || printf '  %s\n' "$2" >&2
  exit 2
}

# check_value NAME KIND VALUE
check_value() {
  local part
  case $2 in
    N) [[ $3 =~ ^0*[1-9][0-9]{0,14}$ ]] || refuse "--$1 takes a whole number from 1 on, not '$3'" ;;
    S) [[ $3 =~ ^[0-9]{1,15}$ ]] || refuse "--$1 takes a whole number, not '$3'" ;;
    SIZE) [[ $3 =~ ^[0-9]{1,16}(\.[0-9]{1,3})?[KkMmGgTtPp]?([iI]?[bB])?$ ]] || refuse "--$1 $3 is not a size, such as 512M or 1G" ;;
    PATTERN) node -e 'new RegExp(process.argv[1])' -- "$3" 2> /dev/null || refuse "--$1 takes a regular expression, not '$3'" ;;
    *'|'*) [[ $3 != *'|'* && "|$2|" == *"|$3|"* ]] || refuse "--$1 takes ${2//|/, }, not '$3'" ;;
    *,*)
      while IFS= read -r part; do
        [[ -n $part && ",$2," == *",$part,"* ]] || refuse "--$1 takes any of ${2//,/, }, not '$part'"
      done <<< "${3//,/$'\n'}"
      ;;
  esac
}

# is_multiple SIZE BYTES: a size (as SIZE above) of whole units of so many bytes, above zero and below 8P.
is_multiple() {
  awk -v size="$1" -v unit="$2" 'BEGIN {
    number = size; sub(/[^0-9.].*/, "", number)
    bytes = number * 1024 ^ index("KMGTP", toupper(substr(size, length(number) + 1, 1)))
    if (length(number) == length(size)) bytes = number
    exit !(bytes > 0 && bytes < 2 ^ 53 && bytes % unit == 0) }' < /dev/null
}

# together A B...: refuses A beside any of B.
together() {
  local name first=$1
  [ -n "${option[$first]:-}" ] || return 0
  for name in "${@:2}"; do
    [ -z "${option[$name]:-}" ] || refuse "--$first and --$name do not go together"
  done
}

# read_options "$@": fills `option` and `words`. Ends the script with 0 for --help, with 2 for what is wrong.
read_options() {
  local -A kinds=()
  local line name value known=''
  while IFS= read -r line; do
    [[ $line =~ ^\ \ --([a-z][a-z-]*)(\ ([^ ]+))?(\ |$) ]] || continue
    kinds[${BASH_REMATCH[1]}]=${BASH_REMATCH[3]:-none}
    known+=${known:+, }--${BASH_REMATCH[1]}${BASH_REMATCH[2]}
  done <<< "$(usage)"
  known+=${known:+, }--help
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --?*)
        name=${1#--} name=${name%%=*}
        [ -n "${kinds[$name]:-}" ] || refuse "there is no option --$name" "known: $known"
        value=yes
        if [ "${kinds[$name]}" = none ]; then
          [[ $1 != *=* ]] || refuse "--$name takes no value"
        else
          case $1 in
            *=*) value=${1#*=} ;;
            *) value=${2:-} value=${value##-*}; [ $# -eq 1 ] || shift ;;
          esac
          [ -n "$value" ] || refuse "--$name needs a value"
          check_value "$name" "${kinds[$name]}" "$value"
        fi
        option[$name]=$value
        ;;
      -*) refuse "there is no option $1" "known: $known" ;;
      *)
        [ "${takes_words:-no}" = yes ] || refuse "'$1' is too much"
        words+=("$1")
        ;;
    esac
    shift
  done
}
