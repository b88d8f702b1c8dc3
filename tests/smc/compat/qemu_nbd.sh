#!/usr/bin/env bash
# what: qemu-nbd, qemu-img and qemu-io: a disk over TCP, patterns and whole images compared
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs qemu-nbd qemu-img qemu-io

megabytes=$([[ -n $SHORT ]] && echo 16 || echo 256)
count=$([[ -n $SHORT ]] && echo 1000 || echo 30000)
port=$(free_port)
truncate -s "${megabytes}M" disk
server nbd qemu-nbd --persistent --shared 8 --bind 127.0.0.1 --port "$port" --format raw --cache writeback disk
wait_for_port "$port"
disk=nbd://127.0.0.1:$port

io() { # COMMANDS...
	local command arguments=()
	for command in "$@"; do arguments+=(-c "$command"); done
	client qemu-io -f raw "${arguments[@]}" "$disk" >io.log 2>&1 || fail "qemu-io: $(tail -n 3 io.log)"
	lacks io.log 'failed|error'
}

io "write -P 0xa5 0 4M" "write -P 0x5a 4M 64k" "write -z 8M 1M" "flush" "read -P 0xa5 0 4M" "read -P 0x5a 4M 64k" "read -P 0 8M 1M"
io "read -P 0xa5 1M 512" "read -P 0x5a 4M 4k" "aio_write -P 1 1M 64k" "aio_write -P 2 2M 64k" "aio_flush" \
	"read -P 1 1M 64k" "read -P 2 2M 64k"
# What arrived is in the file itself.
same "the first bytes of the disk" "$(head -c 4096 disk | digest)" "$(head -c 4096 /dev/zero | tr '\0' '\245' | digest)"

for depth in 1 32; do
	client qemu-img bench -f raw -c "$count" -d "$depth" -s 4096 -w --pattern 0x77 "$disk" >bench.log
	holds bench.log 'Run completed in [0-9.]+ seconds'
	client qemu-img bench -f raw -c "$count" -d "$depth" -s 4096 "$disk" >bench.log
	holds bench.log 'Run completed in [0-9.]+ seconds'
	io "read -P 0x77 0 $((count * 4096 < megabytes << 20 ? count * 4096 : megabytes << 20))"
	io "write -P 0x11 0 ${megabytes}M"
done

random_file image $((megabytes << 20))
client qemu-img convert -n -f raw -O raw image "$disk"
same "the disk after a copy to it" "$(digest <disk)" "$(digest <image)"
client qemu-img compare -f raw -F raw image "$disk" >compare.log
client qemu-img convert -f raw -O raw "$disk" copy
same "a copy from the disk" "$(digest <copy)" "$(digest <image)"

finish
