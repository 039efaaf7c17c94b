# The services of the lab's guest, in one process and one loop, so that its counters are plain variables:
#   7/tcp and 7/udp    echo
#   80/tcp             files, by busybox httpd (started from here once the files exist)
#   4000/tcp           counter: "next" hands out 1, 2, 3 ..., "stats" replies one line of JSON, "clock" replies
#                      the nanoseconds since boot, which differ between two VMs; "put KEY VALUE" stores, "get KEY" replies
#                      the value or "none"; "reboot" reboots the guest, which then has counted and stored nothing
#                      With a disk: "write TEXT" appends a line to a file, replies "written N" when fsync says that it is durable;
#                      "read N" replies up to 1000 lines from the Nth on, out of the disk and not out of the guest's memory
#   4001/udp           counted echo: "<datagrams so far> <payload>"
#   4002/tcp           connect out: "connect HOST PORT TEXT", then "again TEXT" on the same connection
# Every socket is IPv6 with V6ONLY off, which serves IPv4 as well.
# Words of the kernel's command line: colo.group=ADDRESS has the echo of datagrams join that group; colo.vlan=ID:ADDRESS has the
# guest say once, in that VLAN, that it has that IPv4 address.
use strict;
use Socket qw(:DEFAULT inet_pton inet_ntop IPPROTO_IPV6 IPV6_V6ONLY IPPROTO_TCP TCP_NODELAY);

use constant { EAGAIN => 11, EINPROGRESS => 115, EINTR => 4 };
# Reading a peer is paused while this much output waits for it; no line is longer than this.
use constant { OUTPUT_BYTES_MAX => 256 * 1024, LINE_BYTES_MAX => 64 * 1024 };
# Sequence numbers are marked in a bit string, which this bounds to 8 MB.
use constant SEQUENCE_MAX => 1 << 26;

use constant STORED_MAX => 10_000;
use constant DISK_FILE => '/disk/lines';

my ($next, $udp, $udp_distinct, $udp_duplicates, $seen) = (0, 0, 0, 0, '');
my %stored;
my $written;    # lines of the disk's file, once the first was written
my (%tcp, %udp, %listen);    # by file descriptor
my ($readable, $writable) = ('', '');

$SIG{PIPE} = 'IGNORE';
make_files();
listen_tcp(7, \&echo_input);
listen_tcp(4000, \&counter_input);
listen_tcp(4002, \&connector_input);
bind_udp(7, sub { $_[0] });
bind_udp(4001, \&counted);
system('/bin/busybox', 'httpd', '-p', '[::]:80', '-h', '/www') == 0 or die "httpd: $?";
follow_words();
$| = 1;
print "colo-guest ready\n";
loop();

# The big file is 48 copies of the block, each rotated by another amount, so that no two of its pages
# are equal and a byte from the wrong place shows. files.ts builds the same and knows its SHA-256.
sub make_files {
  my $block = slurp('/block.bin');
  unlink '/block.bin';
  write_file('/www/1m.bin', $block);
  write_file('/www/64k.bin', substr($block, 0, 65536));
  write_file('/www/4k.bin', substr($block, 0, 4096));
  open my $file, '>', '/www/big.bin' or die "big.bin: $!";
  for my $i (0 .. 47) {
    my $at = $i * 21845;
    syswrite($file, substr($block, $at)) == length($block) - $at or die "big.bin: $!";
    $at == 0 or syswrite($file, substr($block, 0, $at)) == $at or die "big.bin: $!";
  }
  close $file;
}

sub slurp {
  my ($path) = @_;
  open my $file, '<', $path or die "$path: $!";
  local $/;
  return scalar <$file>;
}

sub write_file {
  my ($path, $data) = @_;
  open my $file, '>', $path or die "$path: $!";
  syswrite($file, $data) == length $data or die "$path: $!";
  close $file;
}

sub any_socket {
  my ($type, $port) = @_;
  socket(my $socket, AF_INET6, $type, 0) or die "socket: $!";
  setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, pack('i', 0));
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, pack('i', 1));
  bind($socket, pack_sockaddr_in6($port, inet_pton(AF_INET6, '::'))) or die "bind $port: $!";
  nonblocking($socket);
  return $socket;
}

# fcntl's constants, without Fcntl.pm, which nothing else here needs.
sub nonblocking { fcntl($_[0], 4, 04000) or die "fcntl: $!" }

sub listen_tcp {
  my ($port, $input) = @_;
  my $socket = any_socket(SOCK_STREAM, $port);
  listen($socket, 512) or die "listen $port: $!";
  $listen{ fileno $socket } = { socket => $socket, input => $input };
  vec($readable, fileno($socket), 1) = 1;
}

sub bind_udp {
  my ($port, $answer) = @_;
  my $socket = any_socket(SOCK_DGRAM, $port);
  setsockopt($socket, SOL_SOCKET, 33, pack('i', 4 << 20));    # SO_RCVBUFFORCE: bursts are a test
  $udp{ fileno $socket } = { socket => $socket, answer => $answer };
  vec($readable, fileno($socket), 1) = 1;
}

sub follow_words {
  my $words = slurp('/proc/cmdline');
  my ($echo) = map { $_->{socket} } grep { (unpack_sockaddr_in6(getsockname($_->{socket})))[0] == 7 } values %udp;
  # IP_ADD_MEMBERSHIP and IPV6_ADD_MEMBERSHIP, on the interface of that number.
  my $interface = slurp('/sys/class/net/eth0/ifindex') + 0;
  while ($words =~ /\bcolo\.group=([0-9a-f:.]+)/g) {
    my $joined =
      $1 =~ /:/
      ? setsockopt($echo, IPPROTO_IPV6, 20, inet_pton(AF_INET6, $1) . pack('I', $interface))
      : setsockopt($echo, 0, 35, inet_pton(AF_INET, $1) . pack('x4I', $interface));
    $joined or die "join $1: $!";
  }
  say_in_vlan($interface, $1, $2) if $words =~ /\bcolo\.vlan=(\d+):([0-9.]+)/;
}

# One ARP announcement (RFC 5227) by a packet socket.
sub say_in_vlan {
  my ($interface, $id, $address) = @_;
  my $mac = pack('H12', slurp('/sys/class/net/eth0/address') =~ tr/0-9a-f//cdr);
  my $ip = inet_pton(AF_INET, $address);
  my $tagged = "\xff" x 6 . $mac . pack('nnn', 0x8100, $id, 0x0806);
  my $arp = pack('nnCCn', 1, 0x0800, 6, 4, 1) . $mac . $ip . "\0" x 6 . $ip;
  socket(my $packets, 17, SOCK_RAW, 0) or die "packet socket: $!";
  send($packets, $tagged . $arp . "\0" x 18, 0, pack('SniSCCx8', 17, 0x0806, $interface, 0, 0, 0)) or die "VLAN: $!";
}

sub loop {
  while (1) {
    my ($r, $w) = ($readable, $writable);
    my $n = select($r, $w, undef, undef);
    next if $n <= 0;
    for my $fd (keys %udp) { datagrams($udp{$fd}) if vec($r, $fd, 1) }
    for my $fd (keys %listen) { accept_all($listen{$fd}) if vec($r, $fd, 1) }
    for my $fd (keys %tcp) {
      my $c = $tcp{$fd};
      writable($c) if defined $c && !$c->{closed} && vec($w, $fd, 1);
      readable($c) if defined $c && !$c->{closed} && vec($r, $fd, 1);
    }
  }
}

# --- UDP -------------------------------------------------------------------------------------------------

sub datagrams {
  my ($u) = @_;
  for (1 .. 64) {
    my $from = recv($u->{socket}, my $data, 65536, 0);
    return if !defined $from;
    send($u->{socket}, $u->{answer}->($data), 0, $from);
  }
}

sub counted {
  my ($data) = @_;
  $udp += 1;
  if ($data =~ /^([0-9]{1,9})/ && $1 < SEQUENCE_MAX) {
    if (vec($seen, $1, 1)) { $udp_duplicates += 1 }
    else { vec($seen, $1, 1) = 1; $udp_distinct += 1 }
  }
  return "$udp $data";
}

# --- TCP -------------------------------------------------------------------------------------------------

sub add {
  my ($socket, $input) = @_;
  nonblocking($socket);
  setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, pack('i', 1));
  my $c = { socket => $socket, fd => fileno $socket, in => '', out => '', input => $input };
  $tcp{ $c->{fd} } = $c;
  vec($readable, $c->{fd}, 1) = 1;
  return $c;
}

sub accept_all {
  my ($l) = @_;
  while (accept(my $socket, $l->{socket})) { add($socket, $l->{input}) }
}

sub readable {
  my ($c) = @_;
  my $n = sysread($c->{socket}, $c->{in}, 65536, length $c->{in});
  return if !defined $n && ($! == EAGAIN || $! == EINTR);
  return close_now($c) if !defined $n;
  if ($n == 0) {
    $c->{ended} = 1;
    vec($readable, $c->{fd}, 1) = 0;
  }
  $c->{input}->($c);
  settle($c);
}

sub writable {
  my ($c) = @_;
  if ($c->{connecting}) {
    $c->{connecting} = 0;
    my $error = unpack('i', getsockopt($c->{socket}, SOL_SOCKET, SO_ERROR));
    if ($error != 0) {
      $! = $error;
      return close_now($c, "error $!");
    }
  }
  settle($c);
}

# Writes what it can, and then registers what to wait for. Input that arrived while the output was full is handled
# here once there is room.
sub settle {
  my ($c) = @_;
  return if $c->{closed};
  while ($c->{out} ne '' && !$c->{connecting}) {
    my $n = syswrite($c->{socket}, $c->{out});
    if (!defined $n) {
      last if $! == EAGAIN || $! == EINTR;
      return close_now($c);
    }
    substr($c->{out}, 0, $n, '');
    $c->{input}->($c) if $c->{in} ne '' && length $c->{out} < OUTPUT_BYTES_MAX;
  }
  return close_now($c) if $c->{ended} && $c->{out} eq '' && !$c->{asking};
  vec($writable, $c->{fd}, 1) = $c->{out} ne '' || $c->{connecting} ? 1 : 0;
  vec($readable, $c->{fd}, 1) = !$c->{ended} && length $c->{out} < OUTPUT_BYTES_MAX ? 1 : 0;
}

sub close_now {
  my ($c, $why) = @_;
  return if $c->{closed};
  $c->{closed} = 1;
  vec($readable, $c->{fd}, 1) = 0;
  vec($writable, $c->{fd}, 1) = 0;
  delete $tcp{ $c->{fd} };
  close $c->{socket};
  $c->{on_close}->($why // 'error closed') if $c->{on_close};
  my $peer = delete $c->{outgoing};
  close_now($peer) if $peer;
}

sub echo_input {
  my ($c) = @_;
  $c->{out} .= $c->{in};
  $c->{in} = '';
}

# Returns the next whole line without its end, or undef.
sub take_line {
  my ($c) = @_;
  return undef if length $c->{out} >= OUTPUT_BYTES_MAX;
  if ($c->{in} =~ s/^([^\n]*)\n//) {
    my $line = $1;
    $line =~ s/\r$//;
    return $line;
  }
  if (length $c->{in} > LINE_BYTES_MAX) { $c->{in} = ''; $c->{ended} = 1 }
  return undef;
}

sub counter_input {
  my ($c) = @_;
  while (defined(my $line = take_line($c))) {
    if ($line eq 'next') { $next += 1; $c->{out} .= "$next\n" }
    elsif ($line eq 'stats') { $c->{out} .= stats() }
    elsif ($line eq 'clock') { $c->{out} .= clock() . "\n" }
    elsif ($line =~ /^put ([a-z0-9]{1,32}) ([a-z0-9]{1,64})$/) { put($c, $1, $2) }
    elsif ($line =~ /^get ([a-z0-9]{1,32})$/) { $c->{out} .= ($stored{$1} // 'none') . "\n" }
    elsif ($line =~ /^write ([a-z0-9]{1,64})$/) { $c->{out} .= write_line($1) . "\n" }
    elsif ($line =~ /^read ([0-9]{1,9})$/) { $c->{out} .= join(' ', read_lines($1)) . "\n" }
    elsif ($line eq 'reboot') { system('/bin/busybox', 'reboot', '-f') }
    else { $c->{out} .= "error unknown request\n" }
  }
}

sub put {
  my ($c, $key, $value) = @_;
  if (!exists $stored{$key} && keys %stored >= STORED_MAX) { $c->{out} .= "error full\n"; return }
  $stored{$key} = $value;
  $c->{out} .= "stored\n";
}

# Appends a line to the disk's file, and returns when the disk has it.
sub write_line {
  my ($text) = @_;
  open my $file, '>>', DISK_FILE or return "error $!";
  $written //= () = slurp(DISK_FILE) =~ /\n/g;
  # fsync(2).
  my $ok = syswrite($file, "$text\n") == length($text) + 1 && syscall(74, fileno $file) == 0;
  close $file;
  return $ok ? 'written ' . ++$written : "error $!";
}

sub read_lines {
  my ($from) = @_;
  write_file('/proc/sys/vm/drop_caches', '3');
  open my $file, '<', DISK_FILE or return ();
  my @lines;
  while (my $line = <$file>) {
    chomp $line;
    push @lines, $line if $. >= $from && $. < $from + 1000;
  }
  return @lines;
}

# Returns CLOCK_MONOTONIC by clock_gettime, without Time::HiRes.
sub clock {
  my $time = "\0" x 16;
  syscall(228, 1, $time) == 0 or die "clock_gettime: $!";
  return sprintf '%d%09d', unpack('qq', $time);
}

sub stats {
  my $icmp = 0;
  my ($names, $values) = grep { /^Icmp:/ } split /\n/, slurp('/proc/net/snmp');
  my @names = split / /, $names;
  my @values = split / /, $values;
  for (0 .. $#names) { $icmp += $values[$_] if $names[$_] eq 'InEchos' }
  $icmp += $1 if slurp('/proc/net/snmp6') =~ /^Icmp6InEchos\s+([0-9]+)/m;
  return sprintf qq({"udp":%d,"udpDistinct":%d,"udpDuplicates":%d,"icmp":%d,"next":%d}\n),
    $udp, $udp_distinct, $udp_duplicates, $icmp, $next;
}

# --- connect out -----------------------------------------------------------------------------------------

sub connector_input {
  my ($c) = @_;
  # One request at a time: the reply to the last one must have left before the next line is read.
  while (!$c->{asking} && defined(my $line = take_line($c))) {
    if ($line =~ /^connect ([0-9A-Fa-f:.]+(?:%[a-z0-9]+)?) ([0-9]{1,5}) (.*)$/) { connect_out($c, $1, $2, $3) }
    elsif ($line =~ /^again (.*)$/ && $c->{outgoing}) { ask($c, $1) }
    elsif ($line =~ /^again /) { $c->{out} .= "error not connected\n" }
    else { $c->{out} .= "error unknown request\n" }
  }
}

sub connect_out {
  my ($c, $host, $port, $text) = @_;
  my $old = delete $c->{outgoing};
  if ($old) { $old->{on_close} = undef; close_now($old) }
  my ($family, $address);
  if ($host =~ /:/) {
    my $bytes = inet_pton(AF_INET6, $host);
    ($family, $address) = (AF_INET6, defined $bytes ? pack_sockaddr_in6($port, $bytes) : undef);
  } else {
    my $bytes = inet_pton(AF_INET, $host);
    ($family, $address) = (AF_INET, defined $bytes ? pack_sockaddr_in($port, $bytes) : undef);
  }
  if (!defined $address) { $c->{out} .= "error bad address\n"; return }
  socket(my $socket, $family, SOCK_STREAM, 0) or die "socket: $!";
  my $o = add($socket, sub { outgoing_input($c, $_[0]) });
  $o->{on_close} = sub { outgoing_closed($c, $_[0]) };
  $c->{outgoing} = $o;
  $o->{connecting} = 1;
  if (!connect($socket, $address) && $! != EINPROGRESS) {
    $c->{asking} = 1;
    close_now($o, "error $!");
    return;
  }
  ask($c, $text);
}

sub ask {
  my ($c, $text) = @_;
  $c->{asking} = 1;
  $c->{outgoing}{out} .= "$text\n";
  settle($c->{outgoing});
}

sub outgoing_input {
  my ($c, $o) = @_;
  answered($c, take_line($o)) if $c->{asking} && $o->{in} =~ /\n/;
}

sub outgoing_closed {
  my ($c, $why) = @_;
  $c->{outgoing} = undef;
  answered($c, $why) if $c->{asking} && !$c->{closed};
}

sub answered {
  my ($c, $line) = @_;
  $c->{asking} = 0;
  $c->{out} .= "$line\n";
  connector_input($c);
  settle($c);
}
