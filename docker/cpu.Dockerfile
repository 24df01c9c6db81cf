# transformer2017 on CPU. Build from the repository's root:
#   docker build -f docker/cpu.Dockerfile -t transformer2017 .
#   docker run --rm -i -v "$PWD/runs:/runs" transformer2017 translate /runs/en-de < input.txt
FROM python:3.12-slim

# torch's own index has wheels without CUDA, a tenth of the size.
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu

COPY . /source
RUN pip install --no-cache-dir --constraint /source/constraints.txt "/source[interchange]" && rm -rf /source

RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["transformer2017"]
