#!/usr/bin/env bash
# A task's container from its start to its end, in namespaces of its own.
# Usage: entrypoint.sh [FOLDER...] (folders of the outer /tmp that the task sees too)

# What the agent prepares: an empty /run/determined and an empty /tmp.
set -e
mkdir -p /run/determined
mount -t tmpfs tmpfs /run/determined
mkdir -p /run/determined/{info,train/logs,workdir,tmp}
for folder in "$@"; do
    mkdir -p "/run/determined$folder"
    mount --bind "$folder" "/run/determined$folder"
done
mount --rbind /run/determined/tmp /tmp
ln -s "/proc/$$/fd/1" /run/determined/train/logs/stdout.log
ln -s "/proc/$$/fd/2" /run/determined/train/logs/stderr.log

# What the master's entrypoint does: the same steps, under the same options of the shell.
cd /run/determined/workdir
python3 -m determined.exec.prep_container --download_context_directory --resources --proxy
set -x
test -f startup-hook.sh && source startup-hook.sh
set +x
python3 -m determined.exec.prep_container --rendezvous
exec python3 -m determined.exec.launch
