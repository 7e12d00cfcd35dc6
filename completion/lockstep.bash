# Completion of lockstep for bash. Made from the table of commands by scripts/completion: do not edit.
_lockstep() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
  local command="" count=0 options="" word index
  COMPREPLY=()
  # Bash takes --dir=DIR for three words.
  if [[ "$cur" == "=" ]]; then cur=""; elif [[ "$prev" == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
  case "$prev" in
    --dir) compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")); return ;;
    --range|--message|--snapshot|--hook|--timeout|--max-rate|--node|--chunk-size|--journal-size|--listen|--threads|--poll-us|--peer|--outbox-bytes|--peer-deadline|--hook-timeout|--connections|--connections-per-export|--handshakes|--handshake-timeout|--options|--option-bytes|--payload-bytes|--requests-in-flight|--bytes-in-flight|--unread-timeout|--unread-bytes|--memory-bytes|--control-connections|--control-line-bytes) return ;;
    --for) COMPREPLY=($(compgen -W "ready in-sync promotable" -- "$cur")); return ;;
    --mode) COMPREPLY=($(compgen -W "sync semi-sync async" -- "$cur")); return ;;
    --from) COMPREPLY=($(compgen -W "self peer" -- "$cur")); return ;;
    --data|--config|--peer-secret-file) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --log-level) COMPREPLY=($(compgen -W "fatal error warn info debug trace silent" -- "$cur")); return ;;
    --congestion) COMPREPLY=($(compgen -W "fold stall" -- "$cur")); return ;;
    --before-resync) COMPREPLY=($(compgen -W "required if-room" -- "$cur")); return ;;
  esac
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${COMP_WORDS[index]}"
    case "$word" in
      --dir|--range|--message|--snapshot|--hook|--timeout|--for|--mode|--max-rate|--from|--node|--chunk-size|--data|--journal-size|--config|--listen|--log-level|--threads|--poll-us|--peer|--congestion|--outbox-bytes|--peer-deadline|--before-resync|--hook-timeout|--peer-secret-file|--connections|--connections-per-export|--handshakes|--handshake-timeout|--options|--option-bytes|--payload-bytes|--requests-in-flight|--bytes-in-flight|--unread-timeout|--unread-bytes|--memory-bytes|--control-connections|--control-line-bytes) [[ "${COMP_WORDS[index+1]}" == "=" ]] || index=$((index + 1)); continue ;;
      "=") index=$((index + 1)); continue ;;
      -*) continue ;;
    esac
    case "$command" in
      "") command="$word" ;;
      volume|snapshot|peer|job) command="$command $word" ;;
      *) count=$((count + 1)) ;;
    esac
  done
  case "$command" in
    "") COMPREPLY=($(compgen -W "volume snapshot peer job sync batch mark status dirty events wait verify init serve config doctor completion --dir --json --help -h --version" -- "$cur")); return ;;
    volume) COMPREPLY=($(compgen -W "create list delete rename resize --dir --json --help -h" -- "$cur")); return ;;
    snapshot) COMPREPLY=($(compgen -W "create list delete rename restore refresh --dir --json --help -h" -- "$cur")); return ;;
    peer) COMPREPLY=($(compgen -W "list connect disconnect set forget --dir --json --help -h" -- "$cur")); return ;;
    job) COMPREPLY=($(compgen -W "list wait cancel --dir --json --help -h" -- "$cur")); return ;;
    "volume create") options="--dir --json --help -h" ;;
    "volume list") options="--dir --json --help -h" ;;
    "volume delete") options="--dir --json --help -h --yes -y" ;;
    "volume rename") options="--dir --json --help -h" ;;
    "volume resize") options="--dir --json --help -h --yes -y" ;;
    "snapshot create") options="--dir --json --help -h --all" ;;
    "snapshot list") options="--dir --json --help -h" ;;
    "snapshot delete") options="--dir --json --help -h --yes -y" ;;
    "snapshot rename") options="--dir --json --help -h" ;;
    "snapshot restore") options="--dir --json --help -h --range --yes -y" ;;
    "snapshot refresh") options="--dir --json --help -h --yes -y" ;;
    "sync") options="--dir --json --help -h --range --yes -y" ;;
    "batch") options="--dir --json --help -h --yes -y" ;;
    "mark") options="--dir --json --help -h --message --snapshot --hook --wait --timeout" ;;
    "status") options="--dir --json --help -h --unhealthy -x --watch" ;;
    "dirty") options="--dir --json --help -h" ;;
    "events") options="--dir --json --help -h --follow -f" ;;
    "wait") options="--dir --json --help -h --for --timeout" ;;
    "peer list") options="--dir --json --help -h" ;;
    "peer connect") options="--dir --json --help -h --explain" ;;
    "peer disconnect") options="--dir --json --help -h" ;;
    "peer set") options="--dir --json --help -h --mode --max-rate" ;;
    "peer forget") options="--dir --json --help -h --yes -y" ;;
    "verify") options="--dir --json --help -h --repair --from --no-wait --yes -y" ;;
    "job list") options="--dir --json --help -h" ;;
    "job wait") options="--dir --json --help -h --timeout" ;;
    "job cancel") options="--dir --json --help -h" ;;
    "init") options="--dir --json --help -h --secondary --node --chunk-size --data --journal-size --yes -y" ;;
    "serve") options="--dir --json --help -h --config --listen --log-level --insecure --threads --poll-us --peer --mode --congestion --outbox-bytes --peer-deadline --max-rate --before-resync --hook-timeout --peer-secret-file --connections --connections-per-export --handshakes --handshake-timeout --options --option-bytes --payload-bytes --requests-in-flight --bytes-in-flight --unread-timeout --unread-bytes --memory-bytes --control-connections --control-line-bytes" ;;
    "config") options="--dir --json --help -h --config" ;;
    "doctor") options="--dir --json --help -h" ;;
    "completion") options="--dir --json --help -h" ;;
  esac
  if [[ "$cur" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    return
  fi
  case "$command:$count" in
    "batch:0") compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
    "init:0") compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")) ;;
    "serve:0") compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")) ;;
    "completion:0") COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")) ;;
  esac
}
complete -F _lockstep lockstep
