# The gateway alone: no training framework inside. Build and run:
#   docker build -t ridgeline . && docker run -p 8000-8002:8000-8002 -v "$PWD/model_repository:/models:ro" ridgeline
FROM python:3.11-slim AS build
COPY requirements/serve-cpu.txt /tmp/requirements.txt
RUN python -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/requirements.txt

# The modules on the way of every request, compiled; this Python image brings gcc.
FROM python:3.11 AS compile
COPY requirements/cpu.txt /tmp/requirements.txt
RUN python -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/requirements.txt
WORKDIR /app
COPY pyproject.toml .
COPY ridgeline ridgeline
COPY serving serving
RUN /venv/bin/python -m serving.compile

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home ridgeline
COPY --from=build /venv /venv
WORKDIR /app
COPY ridgeline ridgeline
COPY serving serving
COPY --from=compile /app/build/compiled build/compiled
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "ridgeline", "serve"]
CMD ["--host", "0.0.0.0", "--repository", "/models"]
