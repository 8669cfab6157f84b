#!/bin/sh
# sidehook: asks the sidecar, over the directory that this script lies in, to run backup and restore hooks.
# It needs a POSIX shell, mv, cat, rm, sleep and, to cost nothing while it waits, mkfifo. `sidehook --help` says more.
#
# Everything is one function, so that the shell has read it all before it begins. Its variables begin with sk_: a plain
# name could be one that the command's environment has. Descriptors: 4 the command's standard input, 5 and 9 what the
# hooks print, 6 and 7 the bell, 8 the lease, which the command inherits: it is the proof that someone still lives.
# shellcheck disable=SC2030,SC2031,SC2034,SC2317,SC3040
[ -z "${ZSH_VERSION-}" ] || emulate sh
[ -z "${BASH_VERSION-}" ] || set +o posix

sidehook_client() {
  sk_self=$1
  shift
  sk_nl='
'
  sk_fifo='' sk_life='' sk_bell='' sk_cmd='' sk_ending='' sk_signal='' sk_number=0 sk_signals=0 sk_phase=''
  sk_sleeper='' sk_reader='' sk_alarm='' sk_watch='' sk_counter='' sk_slow=${YASH_VERSION-} sk_n=0 sk_run='' sk_req=''

  sk_say() { printf 'sidehook: %s\n' "$1" >&2; }

  # sk_wrong MESSAGE: wrong usage
  sk_wrong() {
    sk_say "$1; see sidehook --help"
    exit 64
  }

  sk_help() {
    printf '%s\n' \
      'usage: sidehook run OPERATION [OPTION]... -- COMMAND [ARG]...' \
      '       sidehook signal OPERATION pre|inspect|captured|post [OPTION]...' \
      '' \
      'run asks the sidecar for the pre hooks, runs COMMAND if they succeeded, and always asks for the post hooks.' \
      'signal asks for one of them. OPERATION is backup, restore, or another that the sidecar allows.' \
      '' \
      '  --job NAME              which backup this is, when several share a sidecar (default)' \
      '  --param NAME=VALUE      for the hooks, as SIDEHOOK_PARAM_NAME; may be given again' \
      '  --wait TIME             how long pre waits for its turn (run 1h, signal 0s)' \
      '  --connect-timeout TIME  how long to wait for a sidecar (60s)' \
      'run:' \
      '  --timeout TIME          how long COMMAND may take' \
      'signal:' \
      '  --run ID                which run, if not that of SIDEHOOK_RUN_ID' \
      '  --run-file FILE         pre writes the run there, the others read it there' \
      '  --lease TIME            pre: how long the run stays open without a signal' \
      '  --outcome success|failure, --status N   post: how the work ended' \
      '  --inspect DIR           inspect: where hooks put what they have to show' \
      '' \
      'TIME is 30s, 10m, 1h30m. Exit codes: that of the first hook, or of COMMAND, that failed; 64 wrong usage; 65 do' \
      'not trust this backup; 69 no sidecar; 70 it failed inside; 74 a workload could not be held or released; 75 not' \
      'now; 77 refused; 78 configuration; 124 out of time; 126, 127 cannot be executed, not found; 128+N signal N.'
  }

  # sk_seconds TIME: sk_secs, rounded up; fails if it is no time
  sk_seconds() {
    sk_rest=$1 sk_secs=0 sk_ms=0
    [ -n "$sk_rest" ] || return 1
    while [ -n "$sk_rest" ]; do
      sk_digits=${sk_rest%%[!0-9]*}
      sk_rest=${sk_rest#"$sk_digits"}
      while [ "${sk_digits#0?}" != "$sk_digits" ]; do sk_digits=${sk_digits#0}; done # 010 is not 8
      case $sk_digits in '' | ?????????*) return 1 ;; esac
      case $sk_rest in
        ms*) sk_ms=$((sk_ms + sk_digits)) sk_rest=${sk_rest#ms} ;;
        s*) sk_secs=$((sk_secs + sk_digits)) sk_rest=${sk_rest#s} ;;
        m*) sk_secs=$((sk_secs + 60 * sk_digits)) sk_rest=${sk_rest#m} ;;
        h*) sk_secs=$((sk_secs + 3600 * sk_digits)) sk_rest=${sk_rest#h} ;;
        d*) sk_secs=$((sk_secs + 86400 * sk_digits)) sk_rest=${sk_rest#d} ;;
        *) return 1 ;;
      esac
    done
    sk_secs=$((sk_secs + (sk_ms + 999) / 1000))
  }

  # sk_is_child PID: whether it is still that process, and not another one with its number
  sk_is_child() {
    [ -n "$1" ] || return 1
    [ -r "/proc/$$/stat" ] || return 0
    { read -r sk_stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    sk_stat=${sk_stat##*')' ?}
    sk_stat=${sk_stat# }
    [ "${sk_stat%% *}" = "$$" ]
  }

  # sk_end_child PID: ends a helper of ours, and has it forgotten without a word. By force: a shell that was just forked
  # may still catch, and lose, what we trap ourselves. A sleep of its own ends within seconds, and holds nothing.
  sk_end_child() {
    sk_is_child "$1" || return 0
    { kill -s KILL "$1" && wait "$1"; } 2>/dev/null
    return 0
  }

  # sk_leave CODE: takes everything along that is ours, and goes
  sk_leave() {
    trap '' ALRM
    sk_end_child "$sk_sleeper"
    sk_end_child "$sk_reader"
    sk_end_child "$sk_alarm"
    sk_end_child "$sk_watch"
    sk_end_child "$sk_counter"
    rm -f "$sk_life" "$sk_bell" "$sk_in/$sk_req.tmp" 2>/dev/null
    exit "$1"
  }

  sk_fail() {
    sk_say "$2"
    sk_leave "$1"
  }

  # The request is taken back by the same rename by which the sidecar takes it: one of us wins.
  sk_withdraw() {
    mv -f "$sk_in/$sk_req.req" "$sk_in/$sk_req.withdrawn" 2>/dev/null || return 1
    rm -f "$sk_in/$sk_req.withdrawn" 2>/dev/null
    return 0
  }

  # A post that is not taken stays, so that the next sidecar learns how the run ended.
  sk_stays() { [ "$sk_state" = post ] && [ -n "$sk_run" ]; }

  # sk_on_signal NAME NUMBER
  sk_on_signal() {
    sk_signal=$1 sk_number=$2 sk_signals=$((sk_signals + 1))
    sk_slow=1 # busybox 1.38: its read spins once a signal was caught
    case $sk_phase in
      command) [ -z "$sk_cmd" ] || sk_pass "$1" ;;
      patient) sk_phase=waiting ;; # pre was done, so post must be; only a second signal ends that
      waiting)
        sk_stays || sk_withdraw || :
        sk_fail $((128 + sk_number)) "$sk_operation $sk_state: interrupted by $sk_signal"
        ;;
    esac
  }

  # sk_pass NAME: hands a signal to the command
  sk_pass() {
    if [ "$1" = INT ]; then
      sk_ignored=''
      {
        while read -r sk_key sk_word; do
          [ "$sk_key" != SigIgn: ] || sk_ignored=$sk_word
        done <"/proc/$sk_cmd/status"
      } 2>/dev/null
      case $sk_ignored in
        *[2367abefABEF])
          # most shells start what runs in the background with INT ignored, for good
          kill -s TERM "$sk_cmd" 2>/dev/null
          return 0
          ;;
      esac
      # A terminal sends INT to the whole foreground group: the command has it already.
      sk_stat=''
      { read -r sk_stat <"/proc/$$/stat"; } 2>/dev/null
      # shellcheck disable=SC2086 # state, parent, group, session, terminal, its foreground group
      set -- "$1" ${sk_stat##*')' }
      [ "${6-0}" = 0 ] || [ "$4" != "$7" ] || return 0
    fi
    kill -s "$1" "$sk_cmd" 2>/dev/null
    return 0
  }

  # ALRM comes from our own helpers: the command's time is up, or its run was given up, or 10 s later it still lives.
  # Acted on at once: it may come just before we wait. Nothing is waited for in here: a wait in a wait confuses shells.
  sk_on_alarm() {
    sk_signals=$((sk_signals + 1))
    [ -n "$sk_cmd" ] || return 0
    if [ -n "$sk_ending" ]; then
      kill -s KILL "$sk_cmd" 2>/dev/null
      return 0
    fi
    sk_ending=late
    [ ! -e "$sk_gone" ] || sk_ending=gone
    kill -s TERM "$sk_cmd" 2>/dev/null
    [ -z "$sk_alarm" ] || kill -s KILL "$sk_alarm" 2>/dev/null
    sk_set_alarm 10
  }

  # What runs beside us keeps nothing of ours: said inside, since mksh keeps a copy of what is closed from outside.
  sk_detach() { exec </dev/null >/dev/null 2>&1 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; }

  # sk_is_alive PID: of a child of ours
  sk_is_alive() { [ -d "/proc/$1" ] || kill -0 "$1" 2>/dev/null; }

  # sk_set_alarm SECONDS: ALRM for us; in slices, so that nothing sleeps on for long when one of us is killed.
  sk_set_alarm() {
    (
      sk_detach
      trap '' HUP INT TERM
      sk_left=$1
      while [ "$sk_left" -gt 0 ]; do
        sk_slice=2
        [ "$sk_left" -ge 2 ] || sk_slice=1
        sleep "$sk_slice"
        sk_left=$((sk_left - sk_slice))
        read -r sk_stat </proc/self/stat || sk_stat=") ? $$"
        sk_stat=${sk_stat##*')' ?}
        sk_stat=${sk_stat# }
        [ "${sk_stat%% *}" = "$$" ] || exit 0
      done
      kill -s ALRM "$$"
    ) &
    sk_alarm=$!
  }

  # sk_count PID: where there are no FIFOs, life is a number that grows, for as long as we or the command live.
  sk_count() {
    (
      sk_detach
      trap '' HUP INT TERM
      sk_c=0 sk_own=$1
      sk_born() {
        [ -n "$1" ] || return 1 # /proc//stat is there, and is nobody's
        { read -r sk_stat <"/proc/$1/stat"; } 2>/dev/null || return 1
        # shellcheck disable=SC2086
        set -- ${sk_stat##*')' }
        sk_born_at=${20}
      }
      sk_born "$$"
      sk_client_born=$sk_born_at sk_command_born=''
      [ -z "$sk_own" ] || { sk_born "$sk_own" && sk_command_born=$sk_born_at; }
      while :; do
        sk_c=$((sk_c + 1))
        printf '%s\n' "$sk_c" >"$sk_life"
        if sk_born "$$" && [ "$sk_born_at" = "$sk_client_born" ]; then
          [ ! -e "$sk_gone" ] || [ "$sk_operation" != restore ] || [ -z "$sk_own" ] || { kill -s ALRM "$$"; sk_own=''; }
        else
          sk_born "$1" && [ "$sk_born_at" = "$sk_command_born" ] || exit 0
        fi
        sleep 3
      done
    ) &
    sk_counter=$!
  }

  # The bell has no other writer than the sidecar, which holds it open while it works for us, and a sleep that ends when
  # our patience does: the end of file says that neither is left.
  sk_listen() {
    if [ ! -p "$sk_bell" ]; then
      sk_fifo=''
      return 0
    fi
    exec 7<>"$sk_bell"
    exec 6<"$sk_bell"
    (
      trap '' INT HUP TERM
      exec </dev/null >&7 2>/dev/null 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
      exec sleep "$sk_patience"
    ) &
    sk_sleeper=$!
    exec 7<&-
  }

  sk_unlisten() {
    [ -n "$sk_sleeper" ] || return 0
    [ ! -p "$sk_bell" ] || exec 7<>"$sk_bell"
    exec 6<&-
    sk_end_child "$sk_sleeper"
    sk_sleeper=''
  }

  # Waits for the next word on the bell; fails at the end of file.
  sk_block() {
    sk_before=$sk_signals
    if [ -z "$sk_slow" ]; then
      if read -r sk_word <&6; then
        sk_silent=''
        return 0
      fi
      [ "$sk_before" != "$sk_signals" ]
      return
    fi
    (
      exec <&6
      exec >/dev/null 2>&1 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
      read -r sk_word
    ) &
    sk_reader=$!
    wait "$sk_reader"
    sk_r=$?
    if sk_is_alive "$sk_reader"; then sk_r=0; fi # yash: interrupted by a signal of before
    sk_end_child "$sk_reader"
    sk_reader=''
    if [ "$sk_r" = 0 ]; then sk_silent=''; fi
    [ "$sk_r" = 0 ] || [ "$sk_before" != "$sk_signals" ]
  }

  # The same without a bell: looks now and then; fails when nothing moved for too long.
  sk_poll() {
    if ! sleep "$sk_nap" 2>/dev/null; then
      sk_nap=1 sk_nap_ms=1000 # fractions are not for every sleep
      sleep 1
    fi
    sk_naps=$((sk_naps + 1)) sk_quiet=$((sk_quiet + sk_nap_ms))
    [ "$sk_naps" != 100 ] || [ "$sk_nap" = 1 ] || { sk_nap=0.5 sk_nap_ms=500; }
    sk_word=''
    { read -r sk_word <"$sk_out/$sk_req.beat"; } 2>/dev/null
    if [ "$sk_word" != "$sk_beat" ]; then
      sk_beat=$sk_word sk_quiet=0 sk_silent=''
    fi
    [ "$sk_quiet" -lt $((sk_patience * 1000)) ] || { [ -n "$sk_beat" ] && [ "$sk_quiet" -lt 15000 ]; }
  }

  # Nobody was heard of for as long as we are willing to wait.
  sk_on_silence() {
    if [ -e "$sk_in/$sk_req.req" ]; then
      if sk_stays; then
        sk_fail 69 "$sk_operation post: no sidecar picked it up within $sk_connect; the next one will"
      elif sk_withdraw; then
        sk_fail 69 "$sk_operation $sk_state: no sidecar picked it up within $sk_connect"
      fi
    elif [ -n "$sk_silent" ]; then
      sk_fail 69 "$sk_operation $sk_state: the sidecar went away, and did not come back within $sk_connect"
    else
      sk_silent=1 # it was taken: whoever took it may be about to come back
    fi
    sk_quiet=0
    [ -z "$sk_fifo" ] || sk_listen
  }

  # Prints what the hooks have printed since. Each file is opened once: its offset knows what was seen.
  sk_drain() {
    if [ -z "$sk_has_out" ] && [ -e "$sk_out/$sk_req.out" ]; then
      exec 5<"$sk_out/$sk_req.out"
      sk_has_out=1
    fi
    if [ -z "$sk_has_err" ] && [ -e "$sk_out/$sk_req.err" ]; then
      exec 9<"$sk_out/$sk_req.err"
      sk_has_err=1
    fi
    if [ -n "$sk_has_out" ]; then
      if [ "$sk_verb" = run ]; then cat <&5 >&2; else cat <&5; fi
    fi
    [ -z "$sk_has_err" ] || cat <&9 >&2
  }

  # sk_send STATE LINES: sends a request, waits for its answer, and prints what comes: sk_exit.
  sk_send() {
    sk_state=$1
    sk_n=$((sk_n + 1))
    sk_req=$sk_id.$sk_n
    sk_text="version=1${sk_nl}operation=$sk_operation${sk_nl}state=$1$2"
    [ -z "$sk_run" ] || sk_text="$sk_text${sk_nl}run=$sk_run"
    sk_tries=0 sk_has_out='' sk_has_err='' sk_silent='' sk_beat='' sk_quiet=0 sk_naps=0 sk_nap=0.05 sk_nap_ms=50
    sk_phase=waiting
    [ "$sk_n" = 1 ] || sk_phase=patient
    [ "$sk_n" != 1 ] || [ "$sk_number" = 0 ] || sk_fail $((128 + sk_number)) "$sk_operation $1: interrupted by $sk_signal"
    [ -z "$sk_fifo" ] || sk_listen
    while ! {
      printf '%s\n' "$sk_text" end=1 >"$sk_in/$sk_req.tmp" && mv -f "$sk_in/$sk_req.tmp" "$sk_in/$sk_req.req"
    } 2>/dev/null; do
      # a full disk: the end of a run is worth some patience
      if [ "$1" != post ] || [ "$sk_tries" -ge "$sk_patience" ]; then
        sk_fail 69 "$sk_operation $1: cannot write to $sk_in"
      fi
      sk_tries=$((sk_tries + 1))
      sleep 1
    done
    until [ -e "$sk_out/$sk_req.ans" ]; do
      sk_drain
      if [ -n "$sk_fifo" ]; then sk_block; else sk_poll; fi || [ -e "$sk_out/$sk_req.ans" ] || sk_on_silence
    done
    sk_drain
    sk_phase=''
    [ -z "$sk_has_out" ] || exec 5<&-
    [ -z "$sk_has_err" ] || exec 9<&-
    sk_unlisten
    sk_read_answer
  }

  sk_take_line() {
    case $1 in
      exit=*) sk_exit=${1#*=} ;;
      run=*) sk_run=${1#*=} ;;
      message=*) sk_message=${1#*=} ;;
      note.*=*) sk_say "${1#*=}" ;;
      end=1) sk_end=1 ;;
    esac
  }

  sk_read_answer() {
    sk_exit='' sk_message='' sk_end=''
    if [ -z "${YASH_VERSION-}" ]; then
      while IFS= read -r sk_line; do sk_take_line "$sk_line"; done <"$sk_out/$sk_req.ans"
    else
      # it takes in no letter that its locale does not have
      sk_text=$(LC_ALL=C tr '\200-\377' '[?*]' <"$sk_out/$sk_req.ans")$sk_nl
      while [ -n "$sk_text" ]; do
        sk_take_line "${sk_text%%"$sk_nl"*}"
        sk_text=${sk_text#*"$sk_nl"}
      done
    fi
    case $sk_exit in '' | *[!0-9]* | ????*) sk_end='' ;; esac
    [ -n "$sk_end" ] || sk_fail 70 "$sk_operation $sk_state: the sidecar's answer cannot be read"
    if [ "$sk_exit" != 0 ] && [ -z "$sk_message" ]; then sk_message="$sk_operation $sk_state: exited $sk_exit"; fi
    [ -z "$sk_message" ] || sk_say "$sk_message"
  }

  # sk_command COMMAND ARG...: runs it, and hands signals on: sk_rc.
  sk_command() {
    sk_phase=command sk_before=$sk_signals
    sk_end_child "$sk_counter"
    exec 4<&0
    (
      trap - HUP INT TERM ALRM
      umask "$sk_umask"
      export SIDEHOOK_RUN_ID="$sk_run" SIDEHOOK_JOB="$sk_job" SIDEHOOK_OPERATION="$sk_operation"
      if [ -n "$sk_lease_fd" ]; then
        exec "$@" <&4 4<&- 7<&- 8<&8 # said once more for the Korn shells, which keep their descriptors to themselves
      else
        exec "$@" <&4 4<&-
      fi
    ) & # with no redirection out here, for which yash would have one process more
    sk_cmd=$!
    exec 4<&-
    if [ "$sk_before" != "$sk_signals" ]; then
      sk_pass "$sk_signal"
      sleep 1 # it may have come before there was a command to hear it
      [ ! -d "/proc/$sk_cmd" ] || sk_pass "$sk_signal"
    fi
    [ -z "$sk_timeout" ] || sk_set_alarm "$sk_timeout_secs"
    if [ -z "$sk_fifo" ]; then
      sk_count "$sk_cmd"
    elif [ "$sk_operation" = restore ]; then
      # Ends with us: then the bell has no writer any more.
      exec 6<"$sk_bell"
      (
        exec <&6
        exec >/dev/null 2>&1 6<&- 7<&- 8<&-
        while [ ! -e "$sk_gone" ]; do read -r sk_word || exit 0; done
        kill -s ALRM "$$"
      ) &
      sk_watch=$!
      exec 6<&-
    fi
    # A wait that was interrupted says 128+N, or 1, like a command that ended so: the next wait tells, and 127 then means
    # that it was told before.
    sk_rc='' sk_last=''
    while :; do
      sk_before=$sk_signals
      { wait "$sk_cmd"; } 2>/dev/null
      sk_r=$?
      case $sk_r in
        -*) sk_rc=$((128 + sk_number)) ;; # bash 5.2 forgets how a child ended if a signal came just then
        127) sk_rc=${sk_rc:-127} ;;
        *) sk_rc=$sk_r ;;
      esac
      if sk_is_alive "$sk_cmd"; then
        # yash says so once more of a signal of before; nobody should spin on it
        [ "$sk_before" != "$sk_signals" ] || [ -z "${YASH_VERSION-}" ] || sleep 1
        continue
      fi
      case $sk_r in -* | 127 | "$sk_last") break ;; esac
      [ "$sk_before" != "$sk_signals" ] || [ "$sk_r" -gt 128 ] || break
      sk_last=$sk_r
    done
    sk_cmd='' sk_phase=''
    sk_end_child "$sk_alarm"
    sk_end_child "$sk_watch"
    sk_alarm='' sk_watch=''
    if [ "$sk_rc" -gt 384 ]; then # yash
      sk_rc=$((sk_rc - 256))
    elif [ "$sk_rc" -gt 256 ]; then # ksh93
      sk_rc=$((sk_rc - 128))
    fi
    sk_how="exited $sk_rc"
    [ "$sk_rc" -le 128 ] || sk_how="was ended by signal $((sk_rc - 128))"
    case $sk_ending in
      late) sk_rc=124 sk_how="ran out of time ($sk_timeout)" ;;
      gone) sk_how="$sk_how, because its run was given up" ;;
    esac
  }

  # --- what was asked for

  sk_verb=${1-}
  case $sk_verb in
    --help | -h | help)
      sk_help
      exit 0
      ;;
    --version)
      printf '%s\n' 'sidehook client, protocol 1'
      exit 0
      ;;
    run | signal) shift ;;
    '') sk_wrong 'expected run or signal, got nothing' ;;
    *) sk_wrong "expected run or signal, got $1" ;;
  esac
  sk_operation=${1-}
  case $sk_operation in
    '' | -* | *[!A-Za-z0-9_.-]*) sk_wrong "$sk_verb: expected an operation such as backup, got ${1:-nothing}" ;;
  esac
  shift
  if [ "$sk_verb" = signal ]; then
    case ${1-} in
      pre | inspect | captured | post) sk_asked=$1 ;;
      *) sk_wrong "signal: expected pre, inspect, captured or post, got ${1:-nothing}" ;;
    esac
    shift
  fi

  sk_job='' sk_lines='' sk_wait='' sk_timeout='' sk_timeout_secs='' sk_connect=60s sk_run_file='' sk_has_command=''
  while [ $# -gt 0 ]; do
    case $1 in
      --)
        sk_has_command=1
        shift
        break
        ;;
      --*=*) sk_option=${1%%=*} sk_value=${1#*=} ;;
      --*)
        [ $# -ge 2 ] || sk_wrong "$1: expected a value"
        sk_option=$1 sk_value=$2
        shift
        ;;
      -*) sk_wrong "$1: no such option" ;;
      *) sk_wrong "$1: expected an option, or -- before the command" ;;
    esac
    shift
    case $sk_value in *"$sk_nl"*) sk_wrong "$sk_option: expected one line, got several" ;; esac
    case $sk_verb$sk_option in
      *--job) sk_job=$sk_value ;;
      *--param)
        case $sk_value in
          =* | [!A-Za-z]* | "${sk_value%%=*}") sk_wrong "--param: expected NAME=VALUE, got $sk_value" ;;
        esac
        sk_lines="$sk_lines${sk_nl}param.$sk_value"
        ;;
      *--wait) sk_wait=$sk_value ;;
      *--connect-timeout) sk_connect=$sk_value ;;
      run--timeout) sk_timeout=$sk_value ;;
      signal--run) sk_run=$sk_value ;;
      signal--run-file) sk_run_file=$sk_value ;;
      signal--lease | signal--outcome | signal--status | signal--inspect)
        sk_lines="$sk_lines${sk_nl}${sk_option#--}=$sk_value"
        ;;
      *) sk_wrong "$sk_option: no such option of $sk_verb" ;;
    esac
    case $sk_option in
      --wait | --connect-timeout | --timeout | --lease)
        sk_seconds "$sk_value" || sk_wrong "$sk_option: expected a time such as 30s, 10m or 2h, got $sk_value"
        [ "$sk_option" != --timeout ] || sk_timeout_secs=$sk_secs
        ;;
    esac
  done
  if [ "$sk_verb" = run ]; then
    [ $# -gt 0 ] || sk_wrong 'run: expected -- and a command'
    case $1 in -*) sk_wrong "run: expected a command, got $1" ;; esac
    sk_job=${sk_job:-default} sk_wait=${sk_wait:-1h}
  else
    [ -z "$sk_has_command" ] || sk_wrong 'signal: expected no command; run is the verb for that'
    sk_job=${sk_job:-${SIDEHOOK_JOB:-default}} sk_wait=${sk_wait:-0s}
    if [ -n "$sk_run_file" ] && [ "$sk_asked" = pre ]; then
      { printf '' >"$sk_run_file"; } 2>/dev/null || sk_wrong "--run-file: cannot write to $sk_run_file"
    elif [ -n "$sk_run_file" ]; then
      { read -r sk_run <"$sk_run_file"; } 2>/dev/null || sk_wrong "--run-file: expected a run in $sk_run_file, got nothing"
    elif [ "$sk_asked" != pre ] && [ "${SIDEHOOK_OPERATION-$sk_operation}" = "$sk_operation" ]; then
      sk_run=${sk_run:-${SIDEHOOK_RUN_ID-}}
    fi
  fi
  case $sk_job$sk_run in *"$sk_nl"*) sk_wrong 'job and run: expected one line, got several' ;; esac
  sk_lines="${sk_nl}job=$sk_job$sk_lines"
  sk_seconds "$sk_connect"
  sk_patience=$sk_secs
  [ "$sk_patience" -gt 0 ] || sk_patience=1

  # --- where, and who we are

  { true 4<&0; } 2>/dev/null || exec </dev/null # closed: a number that the next file would get

  sk_dir=${SIDEHOOK_DIR-}
  if [ -z "$sk_dir" ]; then
    case $sk_self in */*) sk_dir=${sk_self%/*} ;; *) sk_dir=. ;; esac
    [ -d "$sk_dir/spool/in" ] || sk_dir=/run/sidehook # we were reached by a symbolic link, or copied
  fi
  sk_in=$sk_dir/spool/in sk_out=$sk_dir/spool/out
  if [ ! -w "$sk_in" ] || [ ! -x "$sk_in" ]; then
    sk_say "$sk_operation: no sidecar in $sk_dir that we may write to"
    exit 69
  fi
  sk_id=''
  { read -r sk_id </proc/sys/kernel/random/uuid; } 2>/dev/null ||
    sk_id=$(od -An -N16 -tx1 /dev/urandom 2>/dev/null | tr -d ' \n')
  if [ ${#sk_id} -lt 32 ]; then
    sk_say "$sk_operation: found no random numbers to be known by"
    exit 70
  fi
  sk_life=$sk_in/$sk_id.life sk_bell=$sk_in/$sk_id.bell sk_gone=$sk_out/$sk_id.gone
  sk_umask=''
  [ "$sk_verb" = signal ] || sk_umask=$(umask)
  umask 007 # the sidecar may be another user of our group

  trap 'sk_on_signal HUP 1' HUP
  trap 'sk_on_signal INT 2' INT
  trap 'sk_on_signal TERM 15' TERM
  trap sk_on_alarm ALRM
  sk_lease_fd=''
  if [ ! -e "$sk_out/no-fifo" ] && mkfifo "$sk_life" "$sk_bell" 2>/dev/null; then
    exec 8<>"$sk_life"
    sk_fifo=1 sk_lease_fd=1
  else
    rm -f "$sk_life" "$sk_bell" 2>/dev/null
    { printf '0\n' >"$sk_life"; } 2>/dev/null || sk_fail 69 "$sk_operation: cannot write to $sk_in"
    sk_count ''
  fi

  # --- signal

  if [ "$sk_verb" = signal ]; then
    [ "$sk_asked" != pre ] || sk_lines="$sk_lines${sk_nl}wait=$sk_wait"
    sk_send "$sk_asked" "$sk_lines"
    if [ "$sk_asked" = pre ] && [ -n "$sk_run_file" ] && [ "$sk_exit" = 0 ]; then
      { printf '%s\n' "$sk_run" >"$sk_run_file"; } 2>/dev/null || {
        # nobody could close it: what it holds would stay so for hours
        sk_send post "$sk_lines${sk_nl}outcome=failure"
        sk_fail 70 "$sk_operation pre: cannot write the run $sk_run to $sk_run_file, so it was ended again"
      }
    fi
    sk_leave "$sk_exit"
  fi

  # --- run

  sk_lines="$sk_lines${sk_nl}lease=held"
  sk_send pre "$sk_lines${sk_nl}wait=$sk_wait"
  [ "$sk_exit" = 0 ] || sk_leave "$sk_exit"
  sk_first=0 sk_rc=0 sk_how=''
  if [ "$sk_operation" = restore ] && [ "$sk_number" = 0 ]; then
    sk_send started "$sk_lines"
    sk_first=$sk_exit
  fi
  if [ "$sk_number" != 0 ]; then
    sk_rc=$((128 + sk_number)) sk_how="was not started: interrupted by $sk_signal"
  elif [ "$sk_first" = 0 ]; then
    sk_command "$@"
  fi
  if [ "$sk_first" != 0 ]; then
    sk_ended="${sk_nl}outcome=failure"
  elif [ "$sk_rc" != 0 ]; then
    sk_ended="${sk_nl}outcome=failure${sk_nl}status=$sk_rc"
  else
    sk_ended="${sk_nl}outcome=success${sk_nl}status=0"
  fi
  sk_send post "$sk_lines$sk_ended"
  [ "$sk_ending" != gone ] || sk_rc=65 # a code that we brought about is not the command's own
  if [ "$sk_rc" != 0 ]; then
    sk_fail "$sk_rc" "$sk_operation: the command $sk_how"
  elif [ "$sk_first" != 0 ]; then
    sk_fail "$sk_first" "$sk_operation started: exited $sk_first"
  fi
  sk_leave "$sk_exit"
}

sidehook_client "$0" "$@"
exit
