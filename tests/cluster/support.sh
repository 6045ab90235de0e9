# What the parts of the cluster test share. Sourced.
passed=0
scratch=$(mktemp -d)
home=$HOME
# Processes that a part started, by id.
started=()

# Ends what was started, takes the cluster down and says how it went; the state of things first if it went badly.
finish() {
    local code=$?
    trap - EXIT
    set +e
    if [ $code -ne 0 ]; then
        kubectl get pods -A -o wide
        kubectl get events -A --sort-by=.lastTimestamp 2>/dev/null | tail -20
        tail -n 5 /var/log/ferrite/*.log
    fi
    export HOME=$home
    [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null
    deploy/down.sh --purge || code=1
    rm -rf "$scratch"
    if [ $code -eq 0 ]; then echo "$passed passed, 0 failed"; else echo "$passed passed, 1 failed"; fi
    exit $code
}

# Says that a check held.
ok() {
    passed=$((passed + 1))
    echo "ok: $1 (${SECONDS}s)"
}

# Runs a command until it succeeds, for as many seconds.
within() {
    local limit=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        [ $SECONDS -lt $limit ] || { echo "FAILED: $*: $said" >&2; return 1; }
        sleep 0.2
    done
}

# Runs a command and wants a pattern in what it prints.
shows() {
    local pattern=$1 said
    shift
    said=$("$@" 2>&1) || { echo "FAILED: $*: $said" >&2; return 1; }
    grep -qE -- "$pattern" <<<"$said" || { echo "FAILED: $*: no $pattern in: $said" >&2; return 1; }
}

# The process id of a daemon.
daemon() { pgrep -P "$(cat /run/ferrite/supervisor.pid)" -x "${1:0:15}"; }

# A request to the application through the ingress.
web() { curl -sS --fail-with-body --max-time 10 -H 'Host: taskmaster.local' "http://$node$1" "${@:2}"; }
page() { shows '<h1>Taskmaster</h1>' web /; }
kept() { shows 'water the plants' web /api/tasks; }
in_backend() { kubectl -n taskmaster exec deploy/backend -- "$@"; }
