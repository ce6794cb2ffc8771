FROM a
RUN --device=nvidia.com/gpu=all nvidia-smi
