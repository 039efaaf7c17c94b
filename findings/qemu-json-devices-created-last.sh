#!/usr/bin/env bash
# QEMU 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1, trixie-backports)
#
# Most would expect: -device options are executed in the order of the command line, as a device may only name a bus that exists. JSON
# is another way to write the same option.
#
# Behaviour: QEMU creates all devices that are given as key=value first, and then all that are given in JSON, wherever they stand. A
# command line that turns one of its devices into JSON can fail, though it says the same, and a device in JSON may name a bus
# that comes after it. Whoever adds one -device of their own to a user's options cannot put it after a bus that is in JSON.
#
# Seen:
#   bus, then NIC on it: starts
#   NIC, then its bus: Bus 'rp' not found
#   bus in JSON, then NIC on it: Bus 'rp' not found
#   NIC in JSON, then its bus: starts
#   both in JSON, the bus first: starts
set -euo pipefail
script=$(readlink -f "$0")
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

# Unpacks Debian packages of a suite with everything they need; nothing on the system changes. The mirror is the machine's own.
fetch() {
  local suite=$1 mirror
  shift
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ { print $1; exit }')
  mkdir -p state/lists/partial cache/archives/partial root
  : > status
  printf "deb $mirror %s main\n" "${suite%-backports}" "$suite" | sort -u > sources.list
  cat > apt.conf <<CONF
Dir::State "$folder/state"; Dir::State::status "$folder/status"; Dir::Cache "$folder/cache";
Dir::Etc::SourceList "$folder/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User ""; APT::Install-Recommends "false"; Debug::NoLocking "true";
CONF
  APT_CONFIG=$folder/apt.conf apt-get -qq update
  APT_CONFIG=$folder/apt.conf apt-get -qq -y --download-only install -t "$suite" "$@" ||
    { echo "CHANGED: $mirror has no $* in $suite any more"; exit 1; }
  for package in cache/archives/*.deb; do dpkg -x "$package" root; done
}
libraries=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu:root/usr/lib/x86_64-linux-gnu/pulseaudio
cat > qemu <<QEMU
#!/bin/sh
export QEMU_MODULE_DIR=$folder/root/usr/lib/x86_64-linux-gnu/qemu
for loader in root/lib64/ld-linux-x86-64.so.2 root/usr/lib64/ld-linux-x86-64.so.2 root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2; do
  [ ! -e \$loader ] || break
done
exec \$loader --library-path $libraries root/usr/bin/qemu-system-x86_64 -L root/usr/share/qemu -L root/usr/share/seabios "\$@"
QEMU
chmod +x qemu
fetch trixie-backports qemu-system-x86=1:11.1.3+ds-1~bpo13+1

bus=pcie-root-port,id=rp
nic=virtio-net-pci,bus=rp,romfile=
json_bus='{"driver":"pcie-root-port","id":"rp"}'
json_nic='{"driver":"virtio-net-pci","bus":"rp","romfile":""}'

# Prints what QEMU says to these two devices.
try() {
  local what=$1 said
  shift
  said=$(printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"quit"}' |
    ./qemu -nodefaults -display none -machine q35 -accel tcg -S -qmp stdio -device "$1" -device "$2" 2>&1 > reply |
    grep -o "Bus '[a-z]*' not found" || true)
  [ -n "$said" ] || { grep -q '"event": "SHUTDOWN"' reply && said=starts; } || said='something else'
  echo "$what: $said"
}

{
  try 'bus, then NIC on it' "$bus" "$nic"
  try 'NIC, then its bus' "$nic" "$bus"
  try 'bus in JSON, then NIC on it' "$json_bus" "$nic"
  try 'NIC in JSON, then its bus' "$json_nic" "$bus"
  try 'both in JSON, the bus first' "$json_bus" "$json_nic"
} | tee seen
diff <(sed -n 's/^#   //p' "$script") seen || { echo 'CHANGED: devices in JSON are not created last any more'; exit 1; }
