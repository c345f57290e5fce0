# Separates recordings with what `pip install sccunet` brings, without TensorFlow. Not run.
#   docker build --tag sccunet .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/music" sccunet separate song.mp3
FROM python:3.12-slim AS build
WORKDIR /source
COPY setup.py pyproject.toml README.md ./
COPY sccunet sccunet
COPY data_pipeline data_pipeline
COPY experiments experiments
RUN pip install --no-cache-dir --prefix=/installed .

FROM python:3.12-slim
COPY --from=build /installed /usr/local
RUN useradd --create-home sccunet
USER sccunet
WORKDIR /music
ENTRYPOINT ["sccunet"]
CMD ["--help"]
