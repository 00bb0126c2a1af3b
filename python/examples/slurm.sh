#!/bin/bash
# Two nodes of eight GPUs each, started again where it stopped:
#     sbatch slurm.sh MODEL OUT DATA [FLAGS of mlpfusion.train…]
# MODEL, OUT and DATA lie where all nodes see them. A task is torchrun's agent of a node,
# which starts a process for each GPU, without GPUs one.
#SBATCH --job-name=mlpfusion
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --requeue
set -euo pipefail
# Else torch 2.15 has processes that it starts again look for those that are gone (gloo).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NTASKS" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
	--rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
	-m mlpfusion.train "$1" "$2" --task sst2 --data "$3" --batch 512 --lr 4e-5 \
	--precision bf16 --fsdp --resume "${@:4}"
