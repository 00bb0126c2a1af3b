#!/bin/bash
# emulate.sh PROGRAM ARGUMENTS...
#
# Runs a static Linux program (a test binary built with CGO_ENABLED=0) in the
# Bochs emulator's Skylake-X, to test AVX-512 where no CPU has it:
#
#	CGO_ENABLED=0 go test -c -ldflags="-s -w" -o /tmp/kernel.test ./kernel
#	kernel/_generate/emulate.sh /tmp/kernel.test -test.v -every 1000003 -test.run '/avx512$'
#
# It takes minutes, most of them to start the emulated Linux. On Debian it needs
# the packages bochs, bochsbios, vgabios, isolinux, syslinux-common, genisoimage,
# busybox-static and linux-image-cloud-amd64. Bochs 2.7 has neither AVX512_BF16
# nor AMX.
set -eu
root=${DEBIAN_ROOT:-} # where these packages are unpacked, if not installed
program=$1
shift
work=$(mktemp -d)
pid=
trap 'kill $pid 2>/dev/null; rm -rf "$work"' EXIT

mkdir -p "$work"/init/{bin,dev,proc,tmp} "$work"/cd/isolinux
cp "$root"/bin/busybox "$work"/init/bin/
cp "$program" "$work"/init/program
cat >"$work"/init/init <<END
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
cd /tmp
GODEBUG=asyncpreemptoff=1 /program $(printf "'%s' " "$@")
echo EXIT STATUS \$?
/bin/busybox sleep 1000
END
chmod +x "$work"/init/init
(cd "$work"/init && find . | "$root"/bin/busybox cpio -o -H newc 2>/dev/null >../cd/initrd)

cp "$root"/boot/vmlinuz-*cloud* "$work"/cd/vmlinuz
cp "$root"/usr/lib/ISOLINUX/isolinux.bin "$root"/usr/lib/syslinux/modules/bios/ldlinux.c32 "$work"/cd/isolinux/
# Bochs misreports the size of compacted state: 321 and 323 are XSAVEC and XSAVES.
cat >"$work"/cd/isolinux/isolinux.cfg <<END
default t
label t
 kernel /vmlinuz
 append initrd=/initrd console=ttyS0 loglevel=4 clearcpuid=321,323 mitigations=off nosmp tsc=reliable lpj=1000000 no_timer_check nowatchdog
END
"$root"/usr/bin/genisoimage -quiet -o "$work"/cd.iso -b isolinux/isolinux.bin -c isolinux/boot.cat \
	-no-emul-boot -boot-load-size 4 -boot-info-table "$work"/cd

cat >"$work"/bochsrc <<END
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model=corei7_skylake_x, count=1, ips=100000000
clock: sync=none
memory: guest=512, host=512
romimage: file=$root/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$root/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
log: $work/log
END
echo c >"$work"/commands # the debugger's "continue"
: >"$work"/serial
"$root"/usr/bin/bochs-bin -q -f "$work"/bochsrc -rc "$work"/commands </dev/null >"$work"/out 2>&1 &
pid=$!
while ! grep -aqE "EXIT STATUS|Kernel panic" "$work"/serial && kill -0 $pid 2>/dev/null; do
	sleep 1
done
tr -d '\r' <"$work"/serial
grep -aq "EXIT STATUS 0" "$work"/serial
