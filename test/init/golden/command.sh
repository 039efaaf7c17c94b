# Started by hand.
LC_ALL=C sudo /usr/bin/qemu-system-x86_64 \
  -name "guest=shop floor,debug-threads=on" -S \
  -machine q35,accel=kvm,usb=off,dump-guest-core=off,memory-backend=pc.ram \
  -cpu Haswell,+rdrand,vmx=off \
  -m size=1536M \
  -object '{"qom-type":"memory-backend-ram","id":"pc.ram","size":1610612736}' \
  -smp 1,sockets=1,cores=1,threads=1 \
  -nodefaults -nographic \
  -rtc base=utc,driftfix=slew \
  -device '{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"}' \
  -blockdev '{"driver":"file","filename":"/var/lib/colo/shop/root.img","node-name":"libvirt-1-storage","auto-read-only":true}' \
  -blockdev '{"node-name":"libvirt-1-format","read-only":true,"driver":"raw","file":"libvirt-1-storage"}' \
  -device '{"driver":"virtio-blk-pci","bus":"pcie.0","addr":"0x3","drive":"libvirt-1-format","id":"virtio-disk0","bootindex":1}' \
  -drive file=/srv/install.iso,media=cdrom \
  -netdev '{"type":"tap","fd":"33","id":"hostnet0"}' \
  -device '{"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"52:54:00:C0:10:02","bus":"pci.1","addr":"0x0","host_mtu":1450,"csum":true}' \
  -chardev socket,id=mon,path=/tmp/mon.sock,server=on,wait=off -mon chardev=mon,mode=control \
  -object rng-random,id=rng0,filename=/dev/urandom -device virtio-rng-pci,rng=rng0 \
  -msg timestamp=on -kernel /boot/vmlinuz-shop -append 'root=/dev/vda "x=1 2"'
