# transformer2017 on NVIDIA GPUs; torch's wheels bring the CUDA libraries, the host its driver. From the root:
#   docker build -f docker/cuda.Dockerfile -t transformer2017:cuda .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" transformer2017:cuda train --train_source ... --bf16
# On several GPUs: docker run --rm --gpus all --entrypoint accelerate ... launch -m transformer2017 train ...
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir --constraint /source/constraints.txt "/source[interchange]" && rm -rf /source

RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["transformer2017"]
