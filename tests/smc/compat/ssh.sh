#!/usr/bin/env bash
# what: ssh, scp and sftp on loopback: keys made here, forwarding, one connection for several sessions
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs sshd ssh scp sftp ssh-keygen

bytes=$([[ -n $SHORT ]] && echo 10000000 || echo 300000000)
port=$(free_port)
ssh-keygen -q -t ed25519 -N '' -f host_key
ssh-keygen -q -t ed25519 -N '' -f user_key
# Of that name whatever the system's configuration is: root's sshd puts its unprivileged half there.
((EUID != 0)) || [[ -d /run/sshd ]] || mkdir -m 755 /run/sshd
cat >sshd_config <<END
ListenAddress 127.0.0.1
Port $port
HostKey $SCRATCH/host_key
AuthorizedKeysFile $SCRATCH/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
END
cat >ssh_config <<END
Host *
	HostName 127.0.0.1
	Port $port
	User $(id -un)
	IdentityFile $SCRATCH/user_key
	IdentitiesOnly yes
	UserKnownHostsFile $SCRATCH/known_hosts
	StrictHostKeyChecking accept-new
	BatchMode yes
	ConnectTimeout 10
END

# It executes itself anew for every connection, which is inherited then and stays what it is.
may_stay_tcp=yes
server sshd "$(command -v sshd)" -D -e -f "$SCRATCH/sshd_config"
wait_for_port "$port"
remote() { client ssh -F ssh_config "$@"; }

random_file original "$bytes"
sum=$(digest <original)

# An account that may not log in says nothing about us.
if ! remote there true 2>login.log; then
	grep -q 'account is locked\|not allowed because' sshd.log && skip_case "sshd does not let $(id -un) in"
	fail "login: $(<login.log)"
fi
through_cat() { remote there cat <original >returned; }
counting through_cat
same "through cat and back" "$(digest <returned)" "$sum"
client scp -q -F ssh_config original "there:$SCRATCH/uploaded"
same "scp to there" "$(digest <uploaded)" "$sum"
if [[ -z $SHORT ]]; then
	status=0
	remote there 'exit 7' || status=$?
	same "a command's exit status" "$status" 7
	same "lines of a long output" "$(remote there 'seq 1 200000' | digest)" "$(seq 1 200000 | digest)"
	client scp -q -F ssh_config "there:$SCRATCH/original" downloaded
	same "scp from there" "$(digest <downloaded)" "$sum"
	printf 'get %s/original fetched\nput original %s/stored\n' "$SCRATCH" "$SCRATCH" |
		client sftp -q -F ssh_config -b - there >sftp.log
	same "sftp get" "$(digest <fetched)" "$sum"
	same "sftp put" "$(digest <stored)" "$sum"
fi
rm -f returned uploaded downloaded fetched stored

# Several sessions in one connection, to which they are handed over a Unix socket.
control=$SCRATCH/control
(
	preload client
	exec ssh -F ssh_config -M -S "$control" -N there
) >master.log 2>&1 &
master=$!
# The path ends with a number while it is being made.
multiplexed() { ssh -F ssh_config -S "$control" -O check there 2>/dev/null; }
eventually multiplexed
sessions=()
for at in 1 2 3 4; do
	remote -S "$control" there cat <original | digest >"session-$at" &
	sessions+=($!)
done
for at in "${sessions[@]}"; do wait "$at"; done
for at in 1 2 3 4; do same "session $at of one connection" "$(<"session-$at")" "$sum"; done

# A forwarded port: ssh within ssh.
forward=$(free_port)
remote -S "$control" -O forward -L "127.0.0.1:$forward:127.0.0.1:$port" there >/dev/null
wait_for_port "$forward"
same "through a forwarded port" "$(remote -p "$forward" -o HostKeyAlias=127.0.0.1 there cat <original | digest)" "$sum"
remote -S "$control" -O exit there 2>/dev/null
wait "$master" || true

finish
