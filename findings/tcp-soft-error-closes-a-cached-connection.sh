#!/usr/bin/env bash
# Linux TCP, ICMP host unreachable (seen on 6.18.44; Debian's nginx 1.22.1-9+deb12u9 and Python 3.11.2-6+deb12u8, bookworm)
#
# Most would expect: an ICMP destination unreachable is a hint for an open connection, a soft error, and nothing breaks over it: RFC 1122
# (4.2.3.9) forbids TCP to abort. It may even help: by RFC 6069 one that quotes the oldest byte without an acknowledgement takes
# back a doubling of the retransmission timer, and what is then overdue is sent at once. So a host that takes another's address
# over could have its clients repeat at once what was lost, by sending each of them a few.
#
# Behaviour: it does help, and reading, writing and poll() notice nothing. But Linux keeps the soft error until the connection's next
# acknowledgement, and until then getsockopt(SO_ERROR) returns it: EHOSTUNREACH. A connection without data under way takes
# it too, since the number that its next byte will have counts as well, and keeps it for as long as it is idle. SO_ERROR is how a
# program learns whether connect() has succeeded, and some ask it of connections that they have kept: nginx does before each use
# of a cached one, closes it then, and counts a failure of that server. So whoever prompts clients in this way has
# them close connections that nothing had happened to, unless it knows that their data are under way.
#
# Seen (retransmissions 0.2, 0.4, 0.8 and 1.7 s after the request; with the host unreachables 0.2, 0.4, 0.8 and 1.05 s after it):
#   a request while frames are lost for 0.9 s:
#     arrives after 1.69 s; with 3 host unreachables when the path is back, after 1.05 s
#   an idle connection, 1 s after one:
#     poll: no error, SO_ERROR: EHOSTUNREACH; after one more and an exchange that ends in reply: poll: no error, SO_ERROR: 0
#   nginx: the second request over the same connection,
#     after a host unreachable the third over another: connect() failed (113: No route to host) while connecting to upstream
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# Unpacks Debian's packages of a suite; nothing on the system changes. The mirror is the machine's own.
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
fetch bookworm nginx=1.22.1-9+deb12u9 python3.11-minimal=3.11.2-6+deb12u8 libpython3.11-minimal=3.11.2-6+deb12u8

cat > nginx.conf <<'END'
user root;
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
  access_log off;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  upstream service { server 198.51.100.2:7001; keepalive 4; }
  server {
    listen 127.0.0.1:8080;
    location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
END

# Two hosts, each a network namespace, and a cable. This one has the service, and makes the frames of a router; the other one has the
# clients.
cat > hosts.py <<'END'
import errno, select, socket, struct, subprocess, sys, time

CLIENT, HOST = '198.51.100.1', '198.51.100.2'
CLIENT_MAC, HOST_MAC, OTHER_MAC = '02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:99'
IPV4 = b'\x08\x00'
SAID = 'connect() failed (113: No route to host) while connecting to upstream'
# A socket stays in the namespace that it was made in.
PASS_SOCKETS = """
import socket
made = [socket.socket() for _ in range(8)]
socket.send_fds(socket.socket(fileno=0), [b'-'], [one.fileno() for one in made])
"""

def run(*words):
    subprocess.run(words, check=True)

holder = subprocess.Popen(['unshare', '--net', 'sh', '-c', 'echo; exec sleep 120'], stdout=subprocess.PIPE)
holder.stdout.readline()
on_client = ['nsenter', f'--net=/proc/{holder.pid}/ns/net']
run('ip', 'link', 'add', 'cable', 'address', HOST_MAC, 'type', 'veth',
    'peer', 'name', 'cable', 'address', CLIENT_MAC, 'netns', str(holder.pid))
for words, own, other, mac in (([], HOST, CLIENT, CLIENT_MAC), (on_client, CLIENT, HOST, HOST_MAC)):
    run(*words, 'ip', 'addr', 'add', f'{own}/24', 'dev', 'cable')
    run(*words, 'ip', 'link', 'set', 'lo', 'up')
    run(*words, 'ip', 'link', 'set', 'cable', 'up')
    run(*words, 'ip', 'neigh', 'replace', other, 'lladdr', mac, 'dev', 'cable')
near, far = socket.socketpair()
passing = subprocess.Popen([*on_client, sys.executable, '-c', PASS_SOCKETS], stdin=far)
client_sockets = [socket.socket(fileno=number) for number in socket.recv_fds(near, 1, 8)[1]]
passing.wait()
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(('cable', 3))
acknowledged = {}

def acknowledged_to(client_port):
    """The latest number that the host has acknowledged: the client's oldest byte without an acknowledgement, or its next one."""
    while select.select([wire], [], [], 0)[0]:
        frame, (_, _, kind, *_) = wire.recvfrom(2000)
        if kind == socket.PACKET_OUTGOING and frame[12:14] == IPV4 and frame[23] == socket.IPPROTO_TCP:
            to, _, number = struct.unpack('!HII', frame[36:46])
            acknowledged[to] = number
    return acknowledged[client_port]

def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack('!H', ~(total + (total >> 16)) & 0xFFFF)

def packet(source, destination, protocol, data, length):
    head = struct.pack('!BBHIBBH', 0x45, 0, length, 0, 64, protocol, 0) + socket.inet_aton(source) + socket.inet_aton(destination)
    return head[:10] + checksum(head) + head[12:] + data

def unreachable(client_port, port):
    """As of a router whose next hop does not reply: it quotes the head of the packet that it could not pass on."""
    tcp = struct.pack('!HHI', client_port, port, acknowledged_to(client_port))
    quoted = packet(CLIENT, HOST, socket.IPPROTO_TCP, tcp, 47)
    message = struct.pack('!BBHI', 3, 1, 0, 0) + quoted
    message = message[:2] + checksum(message) + message[4:]
    macs = bytes.fromhex((CLIENT_MAC + HOST_MAC).replace(':', ''))
    wire.send(macs + IPV4 + packet(HOST, CLIENT, socket.IPPROTO_ICMP, message, 20 + len(message)))
    time.sleep(0.01)

def exchange(client, service):
    client.send(b'request')
    service.recv(100)
    service.send(b'reply')
    return client.recv(100)

def connect(server):
    client = client_sockets.pop()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect(server.getsockname())
    service = server.accept()[0]
    # A few exchanges, so that the client knows the round trip.
    for _ in range(5):
        exchange(client, service)
    time.sleep(0.3)
    return client, service

def seen(client):
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return f"poll: {poll.poll(0) or 'no error'}, SO_ERROR: {errno.errorcode.get(number, number)}"

def arrival(server, unreachables):
    """After how many seconds a request arrives whose frames are lost for the first 0.9 s."""
    client, service = connect(server)
    run('ip', 'link', 'set', 'cable', 'address', OTHER_MAC)
    begin = time.monotonic()
    client.send(b'request')
    time.sleep(0.9)
    run('ip', 'link', 'set', 'cable', 'address', HOST_MAC)
    for _ in range(unreachables):
        unreachable(client.getsockname()[1], server.getsockname()[1])
    service.recv(100)
    return time.monotonic() - begin

def get(served):
    """Asks nginx for a page, and serves it. Returns the connection that nginx has used."""
    web = client_sockets.pop()
    while web.connect_ex(('127.0.0.1', 8080)) != 0:
        assert nginx.poll() is None, 'nginx has ended'
        time.sleep(0.05)
    web.send(b'GET / HTTP/1.0\r\n\r\n')
    while True:
        for one in select.select(served, [], [])[0]:
            if one is served[0]:
                served.append(one.accept()[0])
            elif one.recv(2000) == b'':
                served.remove(one)
            else:
                one.send(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
                assert web.recv(2000).startswith(b'HTTP/1.1 200'), 'nginx does not serve'
                return one

nginx = None
try:
    server = socket.create_server((HOST, 7000))
    without, prompted = arrival(server, 0), arrival(server, 3)
    print('a request while frames are lost for 0.9 s:')
    print(f'  arrives after {without:.2f} s; with 3 host unreachables when the path is back, after {prompted:.2f} s')

    client, service = connect(server)
    unreachable(client.getsockname()[1], 7000)
    time.sleep(1)
    idle = seen(client)
    unreachable(client.getsockname()[1], 7000)
    reply = exchange(client, service)
    after = seen(client)
    print('an idle connection, 1 s after one:')
    print(f'  {idle}; after one more and an exchange that ends in {reply.decode()}: {after}')

    served = [socket.create_server((HOST, 7001))]
    nginx = subprocess.Popen([*on_client, sys.argv[1], '-p', '.', '-c', 'nginx.conf'], stderr=subprocess.DEVNULL)
    first, second = get(served), get(served)
    time.sleep(0.3)
    unreachable(second.getpeername()[1], 7001)
    third = get(served)
    log = open('error.log').read()
    print(f"nginx: the second request over {'the same' if second is first else 'another'} connection,")
    print(f"  after a host unreachable the third over {'the same' if third is second else 'another'}: {SAID if SAID in log else log}")
finally:
    holder.kill()
    if nginx is not None:
        nginx.kill()
is_as_described = (
    prompted < without - 0.3
    and idle == 'poll: no error, SO_ERROR: EHOSTUNREACH' and reply == b'reply' and after == 'poll: no error, SO_ERROR: 0'
    and first is second and second is not third and SAID in log
)
sys.exit(0 if is_as_described else 1)
END
PYTHONHOME=$folder/root/usr unshare --user --map-root-user --net root/usr/bin/python3.11 hosts.py "$folder/root/usr/sbin/nginx" ||
  { echo 'CHANGED: a soft error does not close a cached connection, or prompts no retransmission'; exit 1; }
