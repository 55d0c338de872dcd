#!/usr/bin/env bash
# One run as a Slurm job: sbatch --nodes=2 experiments/slurm.sh preset=paper topics.path=structure.rdf.u8.gz
# Where it has several nodes, Ray shares what models write among them; runtime.nodes=2 beside it shares the trainings too.
# The folder that it is submitted from and SPEED_HOME lie on a file system that all nodes have.
#SBATCH --job-name=speed
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@300   # trainings save where they stand; the same command goes on
set -euo pipefail
shared=()
others=$((${SLURM_JOB_NUM_NODES:-1} - 1))
if [ "$others" -gt 0 ]; then
  address="$(hostname):6379"
  ray start --head --port=6379 --num-cpus=0 --num-gpus=0 --include-dashboard=false --disable-usage-stats
  srun --nodes="$others" --ntasks="$others" --exclude="${SLURMD_NODENAME:-$(hostname)}" --overlap \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 ray start --address="$address" --block &
  until [ "$(ray status --address="$address" | grep -c ' node_')" -gt "$others" ]; do
    if [ "$SECONDS" -gt 600 ] || ! kill -0 $! 2>/dev/null; then
      echo "the other nodes cannot join Ray at $address" >&2
      exit 1
    fi
    sleep 2
  done
  shared=(runtime.cluster=ray "runtime.address=$address")
fi
exec python -m speed.run "${shared[@]}" "$@"
