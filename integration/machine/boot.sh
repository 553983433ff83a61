#!/usr/bin/env bash
# Boots a small virtual machine with version 2 control groups alone, on the file system of this one: read-only by 9p, under a layer in
# memory for what the guest writes. It runs a script, prints what that prints, and exits with its status (125 where the machine did not
# come so far). No KVM is needed.
#
# usage: boot.sh none|systemd SECONDS MEBIBYTES SCRIPT
#
# A script that stands still is looked into a minute before the time is up: what runs, where each goroutine of each mayfly waits, and what
# the kernel and the services say are printed then.
#
# MAYFLY_TEST_BOOT_LIMIT is how many seconds it may take to begin with the script (120). From then on the guest gives a sign of life every
# five seconds, whatever the script does; where there is none for MAYFLY_TEST_SIGN_LIMIT seconds (90), the whole machine stands still, as
# emulated ones have been seen to. It is said where each of its processors is, and it is switched off and on, twice at most.
#
# With systemd, that is the guest's first process, and the script a service of its own; else the script is all there is.
set -euo pipefail
init=$1 seconds=$2 memory=$3 script=$(realpath "$4")
boot_limit=${MAYFLY_TEST_BOOT_LIMIT:-120} sign_limit=${MAYFLY_TEST_SIGN_LIMIT:-90}

version=$(find /lib/modules -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -- '-amd64$' | sort -V | tail -1)
[ -r "/boot/vmlinuz-$version" ] || { echo "cannot find a kernel for the machine: install linux-image-amd64" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The first file system: a static busybox, the modules that it takes to see the second one, and two scripts.
root=$work/root
mkdir -p "$root"/{bin,modules,dev,proc,sys,lower,upper,new}
cp /bin/busybox "$root/bin/busybox"
n=100
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p overlay; do
	file=$(find "/lib/modules/$version/kernel" -name "$module.ko*" -print -quit)
	n=$((n + 1))
	case $file in
	'') ;; # built in
	*.xz) xz -dc "$file" >"$root/modules/$n.ko" ;;
	*.zst) zstd -qdc "$file" >"$root/modules/$n.ko" ;;
	*) cp "$file" "$root/modules/$n.ko" ;;
	esac
done
cat >"$root/job" <<JOB
#!/bin/bash
exec >/dev/ttyS0 2>&1 </dev/null
stty -F /dev/ttyS0 -onlcr
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /
echo "machine: begin"
mkfifo /run/machine-never
while :; do
	echo # a sign of life
	read -rt 5 # no sleep, for tests look for those that were left
done <>/run/machine-never >/dev/ttyS1 &
signs=\$!
(
	timeout $((seconds > 120 ? seconds - 60 : seconds / 2)) tail -f /dev/null
	echo "machine: the script stands still; what runs:"
	ps axfo pid,stat,wchan:24,etimes,args
	pkill -QUIT -x mayfly
	sleep 5
	dmesg | tail -40
	journalctl --no-pager | tail -250
	cat /var/lib/mayfly/keeper.log
) &
bash "$script"
status=\$?
kill \$! \$signs 2>/dev/null
echo "machine: end \$status"
sync
echo o >/proc/sysrq-trigger
sleep 60
JOB
cat >"$root/init" <<INIT
#!/bin/busybox sh
set -e
busybox=/bin/busybox
\$busybox mount -t proc proc /proc
\$busybox mount -t sysfs sys /sys
\$busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do \$busybox insmod \$module; done
\$busybox mount -r -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose host /lower
\$busybox mount -t tmpfs -o size=70% tmpfs /upper
\$busybox mkdir /upper/upper /upper/work
\$busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /new
\$busybox mkdir -p /new/opt /new/etc/systemd/system
\$busybox cp /job /new/opt/machine-job
\$busybox chmod 755 /new/opt/machine-job
cat_unit() { \$busybox printf '[Unit]\nDefaultDependencies=no\nAfter=dbus.service systemd-journald.service\nWants=dbus.service\nBefore=machine.target\n[Service]\nExecStart=/opt/machine-job\nKillMode=process\n'; }
cat_unit >/new/etc/systemd/system/machine.service
\$busybox printf '[Unit]\nRequires=machine.service\n' >/new/etc/systemd/system/machine.target
\$busybox mount -t tmpfs tmpfs /new/tmp # systemd empties it, which takes minutes where it is the host's
for dir in proc sys dev; do \$busybox mount --move /\$dir /new/\$dir; done
if [ $init = systemd ]; then exec \$busybox switch_root /new /lib/systemd/systemd --unit=machine.target; fi
exec \$busybox switch_root /new /bin/bash -c '
	mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
	mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
	ip link set lo up; exec /opt/machine-job'
INIT
chmod 755 "$root/init" "$root/job"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"

# where prints at which instruction each of the machine's processors is, three times: it shows what they turn about in. /proc/kallsyms of
# any such machine has the names.
where() {
	for _ in 1 2 3; do
		echo 'info registers -a' >"$work/monitor.in"
		timeout 2 cat "$work/monitor.out" | tr -d '\r' | grep -o '^CPU#[0-9]*\|^RIP=.*' || true
	done
}

# It is up in eight seconds, or half a minute on a busy host. It has been seen to stand still before that, and once later, with its processors
# busy: then it is switched off and on.
words='quiet loglevel=1'
mkfifo "$work/monitor.in" "$work/monitor.out"
for try in 1 2 3; do
	: >"$work/console"
	: >"$work/signs"
	timeout $((seconds + 30)) qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -net none -display none -no-reboot \
		-serial stdio -serial "file:$work/signs" -monitor "pipe:$work/monitor" \
		-kernel "/boot/vmlinuz-$version" -initrd "$work/initrd" \
		-append "console=ttyS0 $words panic=-1 nokaslr systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 mitigations=off" \
		-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
		-device virtio-9p-pci,fsdev=host,mount_tag=host </dev/null >"$work/console" &
	machine=$!
	limit=$boot_limit last=$SECONDS signs=0 why=
	while kill -0 $machine 2>/dev/null; do
		now=$(stat -c %s "$work/signs")
		if [ "$now" != "$signs" ]; then signs=$now last=$SECONDS limit=$sign_limit; fi
		if [ $((SECONDS - last)) -ge "$limit" ]; then
			why="the machine stood still for $limit s (try $try), after $signs signs of life" && break
		elif [ "$SECONDS" -ge "$seconds" ]; then
			why="the machine did not finish within $seconds s" && break
		fi
		sleep 1
	done
	if [ -n "$why" ]; then
		echo "$why; its processors, and the end of its console:" >&2
		where >&2
		tail -20 "$work/console" >&2
		kill $machine 2>/dev/null || true
	fi
	wait $machine || true
	if [ -z "$why" ] || [ "$SECONDS" -ge "$seconds" ]; then break; fi
	if [ "$signs" = 0 ]; then words='ignore_loglevel earlyprintk=ttyS0'; fi # to see how far it comes
done
sed -n '/machine: begin/,/machine: end/{/machine: begin\|machine: end/!p}' "$work/console"
status=$(sed -n 's/.*machine: end \([0-9]*\).*/\1/p' "$work/console" | tail -1)
[ -n "$status" ] || { echo "the machine did not finish; the end of its console:" >&2; tail -20 "$work/console" >&2; exit 125; }
exit "$status"
