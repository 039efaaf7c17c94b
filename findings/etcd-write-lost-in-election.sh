#!/usr/bin/env bash
# etcd 3.4.23 (Debian etcd-server 3.4.23-4+b4, bookworm), three members, an election timeout of 200 ms
#
# Most would expect: a write that is asked of a healthy member while the cluster has lost its leader waits for the election, and gets
# its reply when there is a new leader: after half a second, with this timeout.
#
# Behaviour: the member has passed the write on to the leader that it knew, and never does so again. Its client gets no reply for over
# five seconds and then 503, while the same write, asked again of the same member a second after the first, gets its reply within
# milliseconds. So a client that waits for its first request makes each election as long as etcd's own timeout. It has to ask again
# early, with a request that may be carried out twice: whether the first one is carried out too, the 503 does not say.
#
# Seen (the times of the replies to two writes of one member, the second asked one second after the first):
#   first: 503 after 5.4 s; second: 200 after 0.007 s
#   first: 503 after 5.4 s; second: 200 after 0.003 s
#   first: 503 after 5.4 s; second: 200 after 0.002 s
set -euo pipefail
folder=$(mktemp -d)
pids=()
end() {
  kill -CONT "${pids[@]}" 2>/dev/null || true
  kill "${pids[@]}" 2>/dev/null || true
  rm -rf "$folder"
}
trap end EXIT
cd "$folder"

# Unpacks a Debian package of a suite; nothing on the system changes. The mirror is the machine's own.
fetch() {
  local suite=$1 mirror
  shift
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ { print $1; exit }')
  mkdir -p state/lists/partial cache/archives/partial
  : > status
  echo "deb $mirror $suite main" > sources.list
  cat > apt.conf <<CONF
Dir::State "$folder/state"; Dir::State::status "$folder/status"; Dir::Cache "$folder/cache";
Dir::Etc::SourceList "$folder/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User ""; Debug::NoLocking "true";
CONF
  APT_CONFIG=$folder/apt.conf apt-get -qq update
  APT_CONFIG=$folder/apt.conf apt-get -qq download "$@" || { echo "CHANGED: $mirror has no $* in $suite any more"; exit 1; }
  for package in *.deb; do dpkg -x "$package" root; done
}
fetch bookworm etcd-server=3.4.23-4+b4

# Ports that nothing is likely to use: one for the clients and one for the peers of each member.
first_port=$((20000 + RANDOM % 8000))
client() { echo "http://127.0.0.1:$((first_port + $1))"; }
peer() { echo "http://127.0.0.1:$((first_port + 10 + $1))"; }
for n in 1 2 3; do
  root/usr/bin/etcd --name "m$n" --data-dir "data-$n" --initial-cluster "m1=$(peer 1),m2=$(peer 2),m3=$(peer 3)" \
    --listen-client-urls "$(client $n)" --advertise-client-urls "$(client $n)" \
    --listen-peer-urls "$(peer $n)" --initial-advertise-peer-urls "$(peer $n)" \
    --heartbeat-interval 20 --election-timeout 200 --logger zap --log-level error > "log-$n" 2>&1 &
  pids[n]=$!
done

# Prints the status and the seconds of a write that is asked of a member.
write() {
  curl -s -m 20 -o /dev/null -w '%{http_code} %{time_total}\n' -X POST -d '{"key":"eA==","value":"eA=="}' "$(client "$1")/v3/kv/put" ||
    true
}
# Prints the number of the member that leads.
leader() {
  local n said
  for n in 1 2 3; do
    said=$(curl -s -m 2 -X POST -d '{}' "$(client $n)/v3/maintenance/status") || continue
    if grep -qP '"member_id":"(\d+)".*"leader":"\1"' <<< "$said"; then echo $n; fi
  done
}
# Runs a command again until it succeeds, for at most half a minute.
wait_for() {
  local end=$((SECONDS + 30))
  until "$@"; do
    [ $SECONDS -lt $end ] || { echo "CHANGED: $* did not succeed within 30 s"; cat log-*; exit 1; }
    sleep 0.2
  done
}
is_written() { [[ $(write 1) == 200* ]]; }
has_leader() { leading=$(leader) && [ -n "$leading" ]; }
wait_for is_written

lost=0
for round in 1 2 3; do
  wait_for has_leader
  follower=$((leading % 3 + 1))
  kill -STOP "${pids[leading]}"
  write $follower > first & asking=$!
  sleep 1
  read -r status seconds <<< "$(write $follower)"
  wait $asking
  read -r first_status first_seconds < first
  printf 'first: %s after %.1f s; second: %s after %.3f s\n' "$first_status" "$first_seconds" "$status" "$seconds"
  if awk "BEGIN { exit !($first_seconds > 4 && $seconds < 1) }" && [ "$status" = 200 ]; then lost=$((lost + 1)); fi
  kill -CONT "${pids[leading]}"
  sleep 2
done
[ $lost = 3 ] || { echo 'CHANGED: a write that was asked during an election gets its reply after it'; exit 1; }
