# tl-kit in a container, with the starter networks' weights.
#   docker build -t tl-kit .                                                      CPU
#   docker build -t tl-kit --build-arg TORCH=cu128 .                              NVIDIA GPUs (a CUDA build of torch)
#   docker run --rm -v "$PWD:/work" tl-kit finetune tf_efficientnet_lite0 --data imgs
#   docker run --rm -v "$PWD:/work" --gpus all --shm-size 2g tl-kit fit --data imgs --time 10m
# Files are written as user 1000; another one: --user "$(id -u):$(id -g)".

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tl_kit tl_kit
COPY recipes recipes
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# torch's build: cpu, or one for CUDA as https://pytorch.org/get-started names them.
ARG TORCH=cpu
# torch.compile needs a C++ compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/${TORCH}" torch torchvision
COPY --from=wheel /wheels /wheels
RUN wheel=$(echo /wheels/tl_kit-*.whl) && pip install --no-cache-dir "${wheel}[starter,export]" && rm -r /wheels
# Any user may write the caches: downloads of the hub, decoded images, features.
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
RUN mkdir --mode=1777 /cache && useradd --uid 1000 --create-home user
USER 1000
WORKDIR /work
VOLUME ["/cache"]
ENTRYPOINT ["tlkit"]
CMD ["--help"]
