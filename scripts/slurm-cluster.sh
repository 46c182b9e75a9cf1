#!/usr/bin/env bash
# A real SLURM of virtual nodes on this machine, for the tests that need one:
#
#   scripts/slurm-cluster.sh up       installs SLURM where it is absent (Debian, as root) and starts it
#   scripts/slurm-cluster.sh status   shows its nodes and its jobs
#   scripts/slurm-cluster.sh down     cancels its jobs and stops it
#
# No systemd and no accounting; nothing is written outside $SLURM_CLUSTER. After `up`:
#   export SLURM_CONF=$SLURM_CLUSTER/slurm.conf
#
#   SLURM_CLUSTER=/tmp/continual-slurm   where its files lie; a short path (sockets end at 108 characters)
#   NODES=4            virtual nodes node1, node2, ...
#   CPUS_PER_NODE=2    what each claims to have
#   PORT               the first of NODES + 1 free ports; by default somewhere between 20000 and 30000
#   MAX_ARRAY_SIZE=1001
#   GRACE_SECONDS=30   between a preempted job's signal and its end
#
# Jobs of the partition `high` preempt those of `main`, which are signalled (USR2) and queued again.
set -euo pipefail

base=${SLURM_CLUSTER:-/tmp/continual-slurm}
nodes=${NODES:-4}
cpus=${CPUS_PER_NODE:-2}
port=${PORT:-$((20000 + RANDOM % 10000))}
export SLURM_CONF=$base/slurm.conf

up() {
    install_packages
    down
    rm -rf "$base"
    mkdir -p "$base"/{run,log,state,spool}
    chmod 755 "$base" "$base/run" # munge insists

    write_config
    (umask 077 && head -c 1024 /dev/urandom >"$base/munge.key")
    munged --key-file="$base/munge.key" --socket="$base/run/munge.socket" --seed-file="$base/run/munge.seed" \
        --pid-file="$base/run/munged.pid" --log-file="$base/log/munged.log"
    slurmctld
    for node in $(seq "$nodes"); do
        mkdir -p "$base/spool/node$node"
        slurmd -N "node$node"
    done

    for _ in $(seq 150); do
        if [ "$(sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l)" -eq "$nodes" ]; then
            sinfo
            return
        fi
        sleep 0.1
    done
    echo "SLURM did not start; the ends of its logs:" >&2
    tail -n 20 "$base"/log/*.log >&2
    exit 1
}

install_packages() {
    if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
        apt-get -o DPkg::Lock::Timeout=300 update -qq
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
            --no-install-recommends slurm-wlm munge >/dev/null
    fi
}

write_config() {
    cat >"$SLURM_CONF" <<CONF
ClusterName=continual
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root

# A job that is queued again starts only when its old credential has expired: 120 seconds by default.
AuthType=auth/munge
AuthInfo=socket=$base/run/munge.socket,cred_expire=5
CredType=cred/munge

StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
SlurmctldPidFile=$base/run/slurmctld.pid
SlurmdPidFile=$base/run/slurmd.%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd.%n.log

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,requeue_delay=0
PriorityType=priority/basic
MaxArraySize=${MAX_ARRAY_SIZE:-1001}
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

# A node that was down comes back by itself, and the dead are noticed within seconds.
ReturnToService=1
SlurmdTimeout=10
KillWait=2
InactiveLimit=0
WaitTime=0
CompleteWait=0
UnkillableStepTimeout=20

# The nodes need not have what they claim.
SlurmdParameters=config_overrides
NodeName=node[1-$nodes] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=$cpus RealMemory=4096
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=${GRACE_SECONDS:-30} OverSubscribe=NO
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF OverSubscribe=NO
CONF
}

down() {
    if is_alive "$base/run/slurmctld.pid"; then
        # Jobs would outlive the daemons.
        timeout 5 scancel --me 2>/dev/null || true
        for _ in $(seq 40); do
            [ -n "$(timeout 5 squeue -h 2>/dev/null)" ] || break
            sleep 0.25
        done
    fi
    stop "$base"/run/slurmd.*.pid "$base/run/slurmctld.pid"
    stop "$base/run/munged.pid"
}

# Ends the processes of these pid files, at once and then for certain.
stop() {
    local file seconds
    for file in "$@"; do
        ! is_alive "$file" || kill -TERM "$(cat "$file")"
    done
    for seconds in $(seq 80); do
        for file in "$@"; do
            if is_alive "$file"; then
                [ "$seconds" -lt 80 ] || kill -KILL "$(cat "$file")"
                sleep 0.1
                continue 2
            fi
        done
        break
    done
    rm -f "$@"
}

is_alive() {
    kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null  # a daemon that ends removes its file
}

case "${1:-}" in
    up) up ;;
    down) down ;;
    status) sinfo -N -l && squeue ;;
    *) echo "usage: $0 up|down|status" >&2 && exit 2 ;;
esac
