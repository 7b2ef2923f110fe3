#!/usr/bin/env bash
# Installs what slurm_cluster.py starts (Debian, Ubuntu). Does nothing where it is all there.
set -euo pipefail

missing=
for name in slurmctld slurmd slurmdbd sbatch srun sacct munged mariadbd mariadb-install-db; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null || missing+=" $name"
done
[ -z "$missing" ] && exit
[ "$(id -u)" = 0 ] || { echo "missing:$missing; only root can install them" >&2; exit 1; }

# The packages would start daemons of their own; the tests bring theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurm-wlm slurmdbd munge mariadb-server
