# One image for the API and the workers. Build: docker-compose build. docs/deployment.md has its layers and their sizes.

FROM python:3.11-slim-bookworm

# PyPI's torch for Linux carries CUDA, gigabytes of it; this index has the CPU build of the same version.
# `--build-arg TORCH_INDEX=` (empty) takes PyPI's, for GPUs. An index that cannot be reached is passed over.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /app

# Dependencies first: these layers are rebuilt only when they change. What is removed in the same step takes no room:
# torch's tests, C++ headers and test programs, and the tests of other packages.
COPY constraints.txt ./
RUN torch=$(grep -E '^(torch|torchvision)==' constraints.txt) \
    && if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-compile --no-deps --retries 1 --timeout 15 --index-url "$TORCH_INDEX" $torch \
        || echo "$TORCH_INDEX cannot be used; taking torch from the usual index"; \
    fi \
    && pip install --no-compile -c constraints.txt $torch \
    && cd /usr/local/lib/python3.11/site-packages \
    && rm -rf torch/test torch/include \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find . -type d -name tests -not -path './torch/*' -prune -exec rm -rf {} +
COPY pyproject.toml ./
RUN mkdir models service worker && touch epochal.py epochal_command.py \
    && pip install --no-compile -c constraints.txt '.[pretrained,postgres]' \
    && pip uninstall --yes epochal \
    && rm -rf models service worker epochal.py epochal_command.py build *.egg-info \
    && find /usr/local/lib/python3.11/site-packages -type d -name tests -not -path '*/torch/*' -prune -exec rm -rf {} +

# Nothing here needs root. /data is the volume; it holds the database, artifacts, datasets and weights.
RUN groupadd --gid 10001 epochal \
    && useradd --uid 10001 --gid epochal --no-create-home --shell /usr/sbin/nologin epochal \
    && mkdir -p /data /run/secrets && chown epochal:epochal /data && chmod 0700 /data

COPY models models
COPY service service
COPY worker worker
COPY epochal.py epochal_command.py README.md LICENSE ./
# Only what is imported is compiled, so that a start on a read-only file system is quick and the image small.
RUN pip install --no-compile --no-deps . && rm -rf /app/* \
    && cd / && EPOCHAL_DATA_DIR=/tmp/none python -c 'import service.server, service.predictions.predictor, service.catalogue.describing, worker.app, worker.processes.child'

USER epochal
WORKDIR /data
ENV EPOCHAL_DATA_DIR=/data/lab EPOCHAL_CACHE_DIR=/data/cache HOME=/data PYTHONDONTWRITEBYTECODE=1
VOLUME /data
EXPOSE 8000

CMD ["epochal", "up", "--host", "0.0.0.0", "--port", "8000"]
