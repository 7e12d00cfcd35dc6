#compdef lockstep
# Completion of lockstep for zsh. Made from the table of commands by scripts/completion: do not edit.
_lockstep_globals() {
  _arguments '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' '--json[prints one JSON document, failures included]' '--help[shows this help]' '-h[shows this help]'
}
# Takes the options before the next command word out of the words. False when the value of one is being typed: it is offered then.
_lockstep_skip_globals() {
  while (( CURRENT > 2 )) && [[ "$words[2]" == -* ]]; do
    local count=1
    [[ "$words[2]" == --dir ]] && count=2
    (( CURRENT > count + 1 )) || { _files -/; return 1; }
    words=("$words[1]" "${(@)words[2+count,-1]}"); (( CURRENT -= count ))
  done
  return 0
}
_lockstep_volume() {
  local -a subcommands=(
    'create:creates a volume of zeroes'
    'list:lists the volumes'
    'delete:deletes a volume and all its data'
    'rename:renames a volume, and with it its snapshots'
    'resize:makes a volume longer, or cuts it'
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
    create)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1:the new name: ' \
        '2:bytes, or with K, M, G, T\: 512, 64K, 10G (binary): ' ;;
    list)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' ;;
    delete)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:the volume: ' ;;
    rename)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1:the volume: ' \
        '2:the new name: ' ;;
    resize)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:the volume: ' \
        '2:the new size: ' ;;
  esac
}
_lockstep_snapshot() {
  local -a subcommands=(
    'create:keeps what one store or several hold now, all at one position'
    'list:lists the snapshots, of one volume or of all'
    'delete:deletes a snapshot; its volume stays as it is'
    'rename:gives a snapshot a new name after the @'
    'restore:makes the volume, or a range of it, what the snapshot is'
    'refresh:makes the snapshot what its volume is now'
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
    create)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--all[every volume of the group]' \
        '*:VOLUME@SNAPSHOT, one or several with one name; with --all the name alone: ' ;;
    list)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1::only of this volume: ' ;;
    delete)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:VOLUME@SNAPSHOT: ' ;;
    rename)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1:VOLUME@SNAPSHOT: ' \
        '2:the new name: ' ;;
    restore)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--range[only these bytes, such as 0\:64K]:offset\:length: ' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:VOLUME@SNAPSHOT: ' ;;
    refresh)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:VOLUME@SNAPSHOT: ' ;;
  esac
}
_lockstep_peer() {
  local -a subcommands=(
    'list:shows the other node, the link to it, and what it lacks'
    'connect:connects now, and says what the two nodes decided'
    'disconnect:ends the link until peer connect, or the next start of the daemon'
    'set:gives the peer another address, mode or resync rate, kept at further starts'
    'forget:lets go of a node that does not come back, and of what is known that it lacks'
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
    list)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' ;;
    connect)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--explain[only says what would be done\: rule, direction, operations and bytes]' ;;
    disconnect)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' ;;
    set)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--mode[sync, semi-sync or async\: from the next write on]:mode:(sync semi-sync async)' \
        '--max-rate[bytes a second that a resync may use, such as 50M; 0\: as many as there are]:rate: ' \
        '1::where the other node listens: ' ;;
    forget)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' ;;
  esac
}
_lockstep_job() {
  local -a subcommands=(
    'list:lists long work\: what is under way, and how the last of it ended'
    'wait:waits for the end of long work, and tells its result'
    'cancel:stops long work at its next step; what it has done so far stays done'
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
    list)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' ;;
    wait)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--timeout[seconds; else as long as it takes]:s: ' \
        '1:its number, from job list: ' ;;
    cancel)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1:its number, from job list: ' ;;
  esac
}
_lockstep() {
  local -a subcommands=(
    'volume:creates, lists, deletes, renames and resizes volumes'
    'snapshot:creates, lists, deletes, renames, restores and refreshes snapshots'
    'peer:shows, connects, disconnects, sets and forgets the other node'
    'job:lists long work that goes on by itself, waits for it and stops it'
    'sync:makes a store, or a range of it, what another one is'
    'batch:performs a set of operations at one position\: all or none'
    'mark:marks this position; the replica may keep snapshots there and run a hook'
    'status:shows the state of the node, its stores and its pool'
    'dirty:shows what the peer may lack, or what changed since a snapshot, and where'
    'events:shows what happened lately'
    'wait:waits until the node is in a state'
    'verify:compares stores with those of the peer, while writes go on'
    'init:makes a new, empty node in a directory'
    'serve:runs the daemon in the foreground'
    'config:shows the settings in force and where each is from'
    'doctor:looks for what is wrong, or slower than it could be'
    'completion:prints the completion file of a shell'
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
    volume) _lockstep_volume ;;
    snapshot) _lockstep_snapshot ;;
    peer) _lockstep_peer ;;
    job) _lockstep_job ;;
    sync)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--range[only these bytes, such as 0\:64K]:offset\:length: ' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:the store that is read: ' \
        '2:the store that is overwritten: ' ;;
    batch)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1:a JSON array of operations; - is stdin:_files' ;;
    mark)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--message[for people, and for the hook]:text: ' \
        '--snapshot[the replica keeps every volume as it is here, as VOLUME@local.SNAP]:snap: ' \
        '--hook[a program that the replica has in its list, run behind the snapshot]:hook: ' \
        '--wait[waits for what the replica did (exit code 3 when some of it was not done)]' \
        '--timeout[how long to wait, in seconds (120)]:s: ' \
        '1:what the mark is called: ' ;;
    status)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--unhealthy[only what is unhealthy (exit code 6)]' \
        '-x[only what is unhealthy (exit code 6)]' \
        '--watch[again every second, until Ctrl-C]' ;;
    dirty)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1::one store; else every volume: ' ;;
    events)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--follow[goes on until Ctrl-C]' \
        '-f[goes on until Ctrl-C]' ;;
    wait)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--for[ready, in-sync, promotable]:state:(ready in-sync promotable)' \
        '--timeout[seconds (60)]:s: ' ;;
    verify)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--repair[what differs is copied, to the peer unless --from says otherwise]' \
        '--from[whose bytes are right\: self (this node) or peer; only with --repair]:node:(self peer)' \
        '--no-wait[returns at once; lockstep job wait tells the result]' \
        '--yes[does not ask; what is lost is lost]' \
        '-y[does not ask; what is lost is lost]' \
        '1::one store; else all: ' ;;
    init)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--secondary[a replica\: blank until a primary connects, whose group it then follows]' \
        '--node[the node'\''s name (this machine'\''s name)]:name: ' \
        '--chunk-size[unit of space and of sharing, 4K to 1M (64K)]:size: ' \
        '--data[where the data goes (DIR/data)]:file-or-device:_files' \
        '--journal-size[of each of the two journal files (64M)]:size: ' \
        '--yes[overwrites a data file that is not empty]' \
        '-y[overwrites a data file that is not empty]' \
        '1::where the node keeps its data:_files -/' ;;
    serve)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--config[instead of DIR/lockstep.toml]:file:_files' \
        '*--listen[where clients connect\: nbd\://HOST\:PORT or nbd+unix\:///?socket=PATH; repeatable (nbd\://127.0.0.1\:10809)]:uri: ' \
        '--log-level[the least important messages to be logged (info)]:word:(fatal error warn info debug trace silent)' \
        '--insecure[allows a listener that other machines reach without TLS]' \
        '--threads[threads for disk reads and writes that have to wait for the disk (32)]:n: ' \
        '--poll-us[microseconds that the server stays awake for the next request where that pays off; 0\: never (100)]:n: ' \
        '--peer[where the other node listens; the primary connects to it]:uri: ' \
        '--mode[a write is answered when the peer has applied it, has received it, or at once (sync)]:word:(sync semi-sync async)' \
        '--congestion[what a full outbox does\: fold, into a map of what the peer lacks; or stall, so that writers wait (fold)]:word:(fold stall)' \
        '--outbox-bytes[changes kept in memory for a peer that is slow, or away for a moment (268435456)]:size: ' \
        '--peer-deadline[seconds without a sign of life after which the peer is taken for gone (5)]:s: ' \
        '--max-rate[bytes a second that a resync may use; 0\: as many as there are (0)]:size: ' \
        '--before-resync[on a replica without room for what it had before a resync\: required, the resync stops; if-room, that is given up (required)]:word:(required if-room)' \
        '--hook-timeout[seconds after which the hook of a mark is ended (60)]:s: ' \
        '--peer-secret-file[a file with the secret that both nodes prove to know, for nodes on two machines]:file:_files' \
        '--connections[NBD connections in all (256)]:n: ' \
        '--connections-per-export[NBD connections to one store (64)]:n: ' \
        '--handshakes[connections that have not chosen a store yet (16)]:n: ' \
        '--handshake-timeout[seconds from the first byte to the choice of a store; one more for each that was listed (10)]:s: ' \
        '--options[options that one handshake may send, and four more for each store that it lists (32)]:n: ' \
        '--option-bytes[length of one option (65536)]:size: ' \
        '--payload-bytes[data of one request; clients are told (33554432)]:size: ' \
        '--requests-in-flight[requests of one connection under way at once (128)]:n: ' \
        '--bytes-in-flight[data of these requests (67108864)]:size: ' \
        '--unread-timeout[seconds after which a client that takes no reply is closed (60)]:s: ' \
        '--unread-bytes[replies that a client has not taken, above which it is closed (67108864)]:size: ' \
        '--memory-bytes[data of all connections under way; above, requests wait (167772160)]:size: ' \
        '--control-connections[connections to the control socket (16)]:n: ' \
        '--control-line-bytes[length of one line on the control socket (1048576)]:size: ' \
        '1::where the node keeps its data:_files -/' ;;
    config)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '--config[instead of DIR/lockstep.toml]:file:_files' ;;
    doctor)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' ;;
    completion)
      _arguments -s \
        '--dir[the daemon'\''s data directory (or LOCKSTEP_DIR)]:dir:_files -/' \
        '--json[prints one JSON document, failures included]' \
        '--help[shows this help]' \
        '-h[shows this help]' \
        '1:bash, zsh, fish:(bash zsh fish)' ;;
  esac
}
if [[ "$funcstack[1]" == _lockstep ]]; then _lockstep "$@"; else compdef _lockstep lockstep; fi
