# Not tested: written where there is no Docker. The lines are the README's.
#
#   docker build -t lhuc_asr .
#   docker run --rm -v "$PWD/exp:/lhuc_asr/exp" lhuc_asr
#
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /lhuc_asr
COPY . .
RUN make setup
CMD ["make", "demo"]
